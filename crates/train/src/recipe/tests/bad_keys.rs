//! Recipes with bad keys, tables, files or syntax, and exactly what each is told.

use super::{Place, SHORTEST};
use expect_test::{Expect, expect};

/// Lines that follow [`SHORTEST`], so the first of them is line 5.
fn check(lines: &str, expected: Expect) {
    check_whole(&format!("{SHORTEST}{lines}"), expected);
}

fn check_whole(recipe: &str, expected: Expect) {
    expected.assert_eq(&Place::new().error(recipe, &[]));
}

#[test]
fn unknown_keys() {
    check(
        "[optimizer]\nlearnin_rate = 1e-5",
        expect![[r#"
        unknown key 'learnin_rate' in [optimizer], recipe.toml:6
          hint: did you mean 'learning_rate'?"#]],
    );
    check(
        "[optimizer]\nlr = 1e-5",
        expect![[r#"
        unknown key 'lr' in [optimizer], recipe.toml:6
          hint: Prospect calls it 'learning_rate' in [optimizer]"#]],
    );
    check(
        "[train]\nper_device_train_batch_size = 4",
        expect![[r#"
        unknown key 'per_device_train_batch_size' in [train], recipe.toml:6
          hint: Prospect calls it 'batch_size' in [train]"#]],
    );
    check(
        "[train]\nbeta = 0.1",
        expect![[r#"
        unknown key 'beta' in [train], recipe.toml:6
          hint: 'beta' belongs in [objective]"#]],
    );
    check(
        "[train]\nseed = 1",
        expect![[r#"
        unknown key 'seed' in [train], recipe.toml:6
          hint: 'seed' stands at the top of the recipe, before the first table"#]],
    );
    check(
        "[schedule]\nwobble = true",
        expect![[r#"
        unknown key 'wobble' in [schedule], recipe.toml:6
          hint: [schedule] has name, warmup_steps, warmup_ratio"#]],
    );
    check(
        "[train]\n[train.loop]\nx = 1",
        expect![[r#"
        unknown key 'loop' in [train], recipe.toml:6
          hint: [train] has epochs, max_steps, batch_size, gradient_accumulation_steps, log_every, eval_every, save_every, save_minutes, keep_checkpoints, max_bad_batches, attention, device, memory_limit, token_budget, threads"#]],
    );
    check(
        "[generate]\nprompts = \"prompts.jsonl\"\ndesirable = { ends_wiht = \"!\" }",
        expect![[r#"
            unknown key 'ends_wiht' in [generate.desirable], recipe.toml:7
              hint: did you mean 'ends_with'?"#]],
    );
    check_whole(
        &format!("sead = 1\n{SHORTEST}"),
        expect![[r#"
        unknown key 'sead' at the top, recipe.toml:1
          hint: did you mean 'seed'?"#]],
    );
    check_whole(
        &format!("learning_rate = 1e-5\n{SHORTEST}"),
        expect![[r#"
        unknown key 'learning_rate' at the top, recipe.toml:1
          hint: 'learning_rate' belongs in [optimizer]"#]],
    );
    check_whole(
        &format!("output_dir = \"x\"\n{SHORTEST}"),
        expect![[r#"
        unknown key 'output_dir' at the top, recipe.toml:1
          hint: Prospect calls it 'output', at the top of the recipe"#]],
    );
    check_whole(
        &format!("colour = 1\n{SHORTEST}"),
        expect![[r#"
        unknown key 'colour' at the top, recipe.toml:1
          hint: at the top stand output, seed"#]],
    );
}

#[test]
fn unknown_tables() {
    check(
        "[optimiser]\nlearning_rate = 1e-5",
        expect![[r#"
        unknown table [optimiser], recipe.toml:5
          hint: did you mean [optimizer]?"#]],
    );
    check(
        "[lora]\nr = 8",
        expect![[r#"
            unknown table [lora], recipe.toml:5
              hint: did you mean [adapter]?"#]],
    );
    check_whole(
        &format!("optimizer = \"adamw\"\n{SHORTEST}"),
        expect![[r#"
        [optimizer] is a table, but optimizer = "adamw" is a string, recipe.toml:1
          hint: write [optimizer] in a line of its own, its keys below"#]],
    );
    check(
        "[[train]]\nepochs = 1",
        expect![[r#"
        [train] is a table, but train = [[train]] is a list, recipe.toml:5
          hint: write [train] in a line of its own, its keys below"#]],
    );
}

#[test]
fn missing_keys() {
    check_whole(
        "",
        expect![[r#"
        'path' is missing in [model], recipe.toml
          hint: add path = ... under [model], with a folder or a hub id"#]],
    );
    check_whole(
        "[model]\npath = \"model\"",
        expect![[r#"
            'train' is missing in [data], recipe.toml
              hint: add train = ... under [data], with a path or a list of paths"#]],
    );
    check(
        "[generate]\nshow = 3",
        expect![[r#"
        'prompts' is missing in [generate], recipe.toml
          hint: add prompts = ... under [generate], with a path"#]],
    );
}

#[test]
fn keys_that_do_not_go_together() {
    check(
        "[train]\nbatch_size = 1",
        expect![[r#"
        [train] batch_size = 1 leaves kto no second example to estimate the KL with, recipe.toml:6
          hint: write batch_size = 2 or more: token_budget bounds the memory, not batch_size; or objective.name = "apo_zero_unpaired""#]],
    );
    check(
        "[train]\nepochs = 1\nmax_steps = 10",
        expect![[r#"
        [train] has both epochs and max_steps, recipe.toml:6
          hint: remove one: both say how long the run is"#]],
    );
    check(
        "[schedule]\nwarmup_ratio = 0.1\nwarmup_steps = 10",
        expect![[r#"
        [schedule] has both warmup_steps and warmup_ratio, recipe.toml:7
          hint: remove one: both say how long the warm-up is"#]],
    );
    check(
        "[objective]\nname = \"dpo\"\ndesirable_weight = 1.0",
        expect![[r#"
            [objective] desirable_weight has no effect in dpo, recipe.toml:7
              hint: remove it; dpo has loss_type, beta, label_smoothing, sft_weight, reference"#]],
    );
    check(
        "[objective]\nname = \"sft\"\nbeta = 0.1",
        expect![[r#"
        [objective] beta has no effect in sft, recipe.toml:7
          hint: remove it; sft has no further keys"#]],
    );
    check(
        "[objective]\nlabel_smoothing = 0.1",
        expect![[r#"
            [objective] label_smoothing has no effect in kto, recipe.toml:6
              hint: remove it; kto has beta, desirable_weight, undesirable_weight, sft_weight, reference"#]],
    );
    check(
        "[objective]\nname = \"dpo\"\nloss_type = \"hinge\"\nlabel_smoothing = 0.1",
        expect![[r#"
            [objective] label_smoothing has no effect in dpo with loss_type = "hinge", recipe.toml:8
              hint: remove it; dpo with loss_type = "hinge" has loss_type, beta, sft_weight, reference"#]],
    );
    check(
        "[objective]\nname = \"dpo\"\nsimpo_gamma = 0.1",
        expect![[r#"
        [objective] simpo_gamma has no effect in dpo, recipe.toml:7
          hint: remove it; dpo has loss_type, beta, label_smoothing, sft_weight, reference"#]],
    );
    check(
        "[objective]\nname = \"orpo\"\nreference = \"start\"",
        expect![[r#"
        [objective] reference has no effect in orpo, recipe.toml:7
          hint: remove it; orpo has beta, sft_weight"#]],
    );
    check(
        "[objective]\nname = \"kto\"\nloss_type = \"sigmoid\"",
        expect![[r#"
        [objective] loss_type has no effect in kto, recipe.toml:7
          hint: remove it; kto has beta, desirable_weight, undesirable_weight, sft_weight, reference"#]],
    );
    check(
        "[objective]\nname = \"cpo\"\nloss_type = \"robust\"",
        expect![[r#"
        [objective] loss_type = "robust" is no loss of cpo, recipe.toml:7
          hint: write "sigmoid", "hinge" or "ipo", or name = "dpo""#]],
    );
    check(
        "[objective]\nname = \"dpo\"\nloss_type = \"exo_pair\"",
        expect![[r#"
        [objective] loss_type = "exo_pair" needs a label_smoothing above 0, recipe.toml:7
          hint: write label_smoothing = 1e-3, as its paper does"#]],
    );
    check(
        "[objective]\nname = \"sft\"\nsft_weight = 1",
        expect![[r#"
        [objective] sft_weight has no effect in sft, recipe.toml:7
          hint: remove it; sft has no further keys"#]],
    );
    check(
        "[objective]\nrpo_alpha = 1",
        expect![[r#"
        unknown key 'rpo_alpha' in [objective], recipe.toml:6
          hint: Prospect calls it 'sft_weight' in [objective]"#]],
    );
    check_whole(
        "[model]\npath = \"model\"\nquantization = \"nf4\"\n[data]\ntrain = \"feedback.jsonl\"",
        expect![[r#"
            [model] quantization = "nf4" and no [adapter]: 4-bit weights cannot be trained, recipe.toml:3
              hint: add an [adapter] table, or write quantization = "none""#]],
    );
    check_whole(
        "[model]\npath = \"model\"\nquantization = \"int8\"\n[data]\ntrain = \"feedback.jsonl\"",
        expect![[r#"
            [model] quantization = "int8" and no [adapter]: 8-bit weights cannot be trained, recipe.toml:3
              hint: add an [adapter] table, or write quantization = "none""#]],
    );
}

#[test]
fn files_that_are_not_there() {
    check_whole(
        "[model]\npath = \"models/tiny/v2\"",
        expect![[r#"
        [model] path = "models/tiny/v2" does not exist, recipe.toml:2
          hint: looked for models/tiny/v2 and HERE/models/tiny/v2; a hub id has the form owner/name"#]],
    );
    check(
        "eval = \"held_out.jsonl\"",
        expect![[r#"
        [data] eval = "held_out.jsonl" does not exist, recipe.toml:5
          hint: looked for held_out.jsonl and HERE/held_out.jsonl"#]],
    );
    check_whole(
        "[model]\npath = \"model\"\n[data]\ntrain = [\"feedback.jsonl\", \"/no/such.jsonl\"]",
        expect![[r#"
            [data] train = "/no/such.jsonl" does not exist, recipe.toml:4
              hint: looked for /no/such.jsonl"#]],
    );
    check(
        "[adapter]\ninit_from = \"adapters/start\"",
        expect![[r#"
        [adapter] init_from = "adapters/start" does not exist, recipe.toml:6
          hint: looked for adapters/start and HERE/adapters/start"#]],
    );
    check(
        "[generate]\nprompts = \"\"",
        expect![[r#"
        [generate] prompts = "" is empty, recipe.toml:6
          hint: write a path"#]],
    );
}

#[test]
fn text_that_is_not_toml() {
    check(
        "[optimizer\nlearning_rate = 1e-5",
        expect![[r#"
        not valid TOML: unclosed table, expected `]`, recipe.toml:5
          hint: a line is 'key = value' or '[table]'; strings stand in double quotes"#]],
    );
    check(
        "[optimizer]\nlearning_rate = 1e-5\nlearning_rate = 2e-5",
        expect![[r#"
            not valid TOML: duplicate key, recipe.toml:7
              hint: the key or table stands in the recipe before; keep one"#]],
    );
    check(
        "[train]\ndevice = cpu",
        expect![[r#"
        not valid TOML: string values must be quoted, expected literal string, recipe.toml:6
          hint: a line is 'key = value' or '[table]'; strings stand in double quotes"#]],
    );
    check(
        "[train]\ndevice = \"cpu",
        expect![[r#"
        not valid TOML: invalid basic string, expected `"`, recipe.toml:6
          hint: a line is 'key = value' or '[table]'; strings stand in double quotes"#]],
    );
    check(
        "max_length 512",
        expect![[r#"
        not valid TOML: key with no value, expected `=`, recipe.toml:5
          hint: a line is 'key = value' or '[table]'; strings stand in double quotes"#]],
    );
    check(
        "[data]\norder = \"sequential\"",
        expect![[r#"
            not valid TOML: duplicate key, recipe.toml:5
              hint: the key or table stands in the recipe before; keep one"#]],
    );
}

#[test]
fn a_recipe_that_cannot_be_read() {
    let place = Place::new();
    let path = place.path("nowhere.toml");
    let error = super::Recipe::read(&path, &[]).unwrap_err().to_string();
    let error = error.replace(&path.display().to_string(), "nowhere.toml");
    expect![[r#"
        cannot read the recipe nowhere.toml: No such file or directory (os error 2)
          hint: give the path of a TOML file, such as recipes/quickstart.toml"#]]
    .assert_eq(&error);
}
