//! `--set`: what it overrides, and what a bad one is told.

use super::{Place, SHORTEST};
use crate::recipe::ModelPath;
use crate::recipe::objective::ObjectiveName;
use expect_test::{Expect, expect};

fn check_error(flags: &[&str], expected: Expect) {
    expected.assert_eq(&Place::new().error(SHORTEST, flags));
}

#[test]
fn a_flag_overrides_the_file_or_a_default() {
    let place = Place::new();
    let recipe = format!("{SHORTEST}max_length = 64\n[objective]\nbeta = 0.2\n");
    let flags = [
        "data.max_length=128",
        "objective.name=apo_zero_unpaired",
        "optimizer.learning_rate = 1e-4",
        "seed=7",
    ];
    let recipe = place.read(&recipe, &flags).unwrap();
    assert_eq!(recipe.data.max_length, 128);
    assert_eq!(recipe.objective.name, ObjectiveName::ApoZeroUnpaired);
    assert_eq!(recipe.objective.beta, 0.2);
    assert_eq!(recipe.optimizer.learning_rate, 1e-4);
    assert_eq!(recipe.seed, 7);
}

#[test]
fn values_need_no_quotes_and_may_have_them() {
    let place = Place::new();
    for flag in [
        "train.memory_limit=24GiB",
        "train.memory_limit=\"24GiB\"",
        "train.memory_limit=25769803776",
    ] {
        let recipe = place.read(SHORTEST, &[flag]).unwrap();
        assert_eq!(recipe.train.memory_limit.unwrap().0, 24 << 30, "{flag}");
    }
    let recipe =
        place.read(SHORTEST, &["adapter.target_modules=[\"q_proj\", \"v_proj\"]"]).unwrap();
    assert!(recipe.adapter.is_some(), "a flag for a key of a table makes the table");
    let rule = ["generate.prompts=/dev/null", "generate.desirable.ends_with= a = b"];
    let generate = place.read(SHORTEST, &rule).unwrap().generate.unwrap();
    assert_eq!(generate.desirable.unwrap().ends_with.unwrap(), "a = b");
}

#[test]
fn the_last_flag_for_a_key_holds() {
    let recipe = Place::new().read(SHORTEST, &["seed=1", "seed=2"]).unwrap();
    assert_eq!(recipe.seed, 2);
}

#[test]
fn a_flag_takes_the_place_of_the_key_that_excludes_it() {
    let place = Place::new();
    let recipe = format!("{SHORTEST}[train]\nepochs = 3\n[schedule]\nwarmup_ratio = 0.1\n");
    let recipe = place.read(&recipe, &["train.max_steps=10", "schedule.warmup_steps=2"]).unwrap();
    assert_eq!((recipe.train.epochs, recipe.train.max_steps), (None, Some(10)));
    assert_eq!((recipe.schedule.warmup_ratio, recipe.schedule.warmup_steps), (None, Some(2)));
}

#[test]
fn a_path_in_a_flag_is_under_the_current_folder() {
    // `src` is beside the tests' current folder, the crate; the recipe's own folder has a `model`.
    let recipe = Place::new().read(SHORTEST, &["model.path=src"]).unwrap();
    assert_eq!(recipe.model.path, ModelPath::Folder(std::env::current_dir().unwrap().join("src")));
    check_error(
        &["model.path=./model"],
        expect![[r#"
        [model] path = ./model does not exist, --set model.path=./model
          hint: looked for HERE/./model; a hub id has the form owner/name"#]],
    );
}

#[test]
fn bad_flags() {
    check_error(
        &["optimizer.learnin_rate=1e-4"],
        expect![[r#"
        unknown key 'learnin_rate' in [optimizer], --set optimizer.learnin_rate=1e-4
          hint: did you mean 'learning_rate'?"#]],
    );
    check_error(
        &["optimizer.learning_rate=-1"],
        expect![[r#"
        [optimizer] learning_rate = -1 is out of range, --set optimizer.learning_rate=-1
          hint: write a number of at least 0"#]],
    );
    check_error(
        &["optimizer.learning_rate=fast"],
        expect![[r#"
        [optimizer] learning_rate = fast is a string, --set optimizer.learning_rate=fast
          hint: write a number of at least 0"#]],
    );
    check_error(
        &["learning_rate=1e-4"],
        expect![[r#"
        unknown key 'learning_rate' at the top, --set learning_rate=1e-4
          hint: 'learning_rate' belongs in [optimizer]"#]],
    );
    check_error(
        &["optimizer.learning_rate"],
        expect![[r#"
        no '=' in --set optimizer.learning_rate
          hint: write --set table.key=value, for example --set optimizer.learning_rate=1e-5"#]],
    );
    check_error(
        &["optimizer.=1"],
        expect![[r#"
        a key is empty in --set optimizer.=1
          hint: write --set table.key=value, for example --set optimizer.learning_rate=1e-5"#]],
    );
    check_error(
        &["=1"],
        expect![[r#"
        a key is empty in --set =1
          hint: write --set table.key=value, for example --set optimizer.learning_rate=1e-5"#]],
    );
    check_error(
        &["model.path.name=x"],
        expect![[r#"
            model.path is a string and has no key 'name', --set model.path.name=x
              hint: write --set model.path=VALUE; the recipe has it in recipe.toml:2"#]],
    );
    check_error(
        &["optimiser.name=adamw"],
        expect![[r#"
        unknown table [optimiser], --set optimiser.name=adamw
          hint: did you mean [optimizer]?"#]],
    );
    check_error(
        &["optimizer=adamw"],
        expect![[r#"
        [optimizer] is a table, but optimizer = adamw is a string, --set optimizer=adamw
          hint: write [optimizer] in a line of its own, its keys below"#]],
    );
    check_error(
        &["objective.name=kt"],
        expect![[r#"
            [objective] name = kt is not known, --set objective.name=kt
              hint: did you mean "kto"? It may be "kto", "apo_zero_unpaired", "bco", "dpo", "orpo", "simpo", "cpo" or "sft""#]],
    );
    check_error(
        &["train.batch_size=1"],
        expect![[r#"
        [train] batch_size = 1 leaves kto no second example to estimate the KL with, --set train.batch_size=1
          hint: write batch_size = 2 or more: token_budget bounds the memory, not batch_size; or objective.name = "apo_zero_unpaired""#]],
    );
    check_error(
        &["train.max_steps=1", "train.epochs=2"],
        expect![[r#"
        [train] has both epochs and max_steps, --set train.epochs=2
          hint: remove one: both say how long the run is"#]],
    );
    check_error(
        &["seed=1\noutput = \"x\""],
        expect![[r#"
        seed = 1
        output = "x" is a string, --set seed=1
        output = "x"
          hint: write an integer of at least 0"#]],
    );
}
