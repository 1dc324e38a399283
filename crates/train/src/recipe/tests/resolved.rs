//! What a recipe becomes: defaults, paths, and the text that reads back the same.

use super::{Place, SHORTEST};
use crate::recipe::adapter::TargetModules;
use crate::recipe::objective::Reference;
use crate::recipe::sources::{DataPath, Source};
use crate::recipe::{ModelPath, Recipe};
use expect_test::expect;

/// Every key, none at its default.
const LONGEST: &str = r#"
output = "runs/every \"key\""
seed = 7
[model]
path = "model"
quantization = "nf4"
double_quant = false
dtype = "bf16"
[adapter]
r = 8
lora_alpha = 16
lora_dropout = 0.05
use_rslora = true
use_dora = true
target_modules = ["q_proj", "v_proj"]
exclude_modules = '.*\.0\..*'
layers_to_transform = [1, 2]
modules_to_save = "norm"
init = "pissa_niter_4"
init_from = "start"
[adapter.rank_pattern]
'1\.self_attn\..*' = 32
v_proj = 4
[adapter.alpha_pattern]
v_proj = 8
[data]
train = ["feedback.jsonl", "more.jsonl"]
eval = "held-out.jsonl"
form = "sharegpt"
columns = { label = "liked", conversations = "turns" }
max_length = 512
order = "sequential"
cache = "tokens"
[objective]
name = "kto"
beta = 0.3
desirable_weight = 1.25
undesirable_weight = 0.75
reference = "start"
[optimizer]
name = "adamw_8bit"
learning_rate = 5e-5
beta1 = 0.8
beta2 = 0.99
eps = 1e-6
weight_decay = 0.01
max_grad_norm = 0
[schedule]
name = "cosine"
warmup_ratio = 0.1
[train]
epochs = 1.5
batch_size = 4
gradient_accumulation_steps = 2
log_every = 1
eval_every = 50
save_every = 20
save_minutes = 2.5
keep_checkpoints = 0
max_bad_batches = 0
attention = "standard"
device = "cpu"
memory_limit = "1.5GiB"
token_budget = 4096
threads = 2
[generate]
prompts = "prompts.jsonl"
max_new_tokens = 32
temperature = 0.7
show = 3
[generate.desirable]
starts_with = "Dear"
ends_with = "\n\u0001\\"
contains = "you"
not_contains = ["!", "?"]
"#;

/// A recipe's resolved text, without the folders of the test.
fn resolved(place: &Place, recipe: &Recipe) -> String {
    let folder = place.folder.path().display().to_string();
    let current = std::env::current_dir().unwrap().display().to_string();
    recipe.to_toml().replace(&folder, "PLACE").replace(&current, "HERE")
}

#[test]
fn the_shortest_recipe_gets_every_default() {
    let place = Place::new();
    let recipe = place.read(SHORTEST, &[]).unwrap();
    expect![[r##"
        # The recipe as resolved: every default filled in.
        output = "HERE/runs/recipe"
        seed = 42

        [model]
        path = "PLACE/model"
        quantization = "none"
        double_quant = true
        dtype = "f32"

        [data]
        train = ["PLACE/feedback.jsonl"]
        max_length = 1024
        order = "shuffled"

        [objective]
        name = "kto"
        beta = 0.1
        desirable_weight = 1.0
        undesirable_weight = 1.0
        sft_weight = 0.0
        reference = "base"

        [optimizer]
        name = "adamw"
        learning_rate = 1e-6
        beta1 = 0.9
        beta2 = 0.999
        eps = 1e-8
        weight_decay = 0.0
        max_grad_norm = 1.0

        [schedule]
        name = "linear"
        warmup_steps = 0

        [train]
        epochs = 3.0
        batch_size = 8
        gradient_accumulation_steps = 1
        log_every = 10
        eval_every = 500
        save_every = 500
        save_minutes = 5.0
        keep_checkpoints = 2
        max_bad_batches = 10
        attention = "flash"
        device = "auto"
    "##]]
    .assert_eq(&resolved(&place, &recipe));
}

#[test]
fn the_longest_recipe_keeps_every_value() {
    let place = Place::new();
    let recipe = place.read(LONGEST, &[]).unwrap();
    expect![[r##"
        # The recipe as resolved: every default filled in.
        output = "HERE/runs/every \"key\""
        seed = 7

        [model]
        path = "PLACE/model"
        quantization = "nf4"
        double_quant = false
        dtype = "bf16"

        [adapter]
        r = 8
        lora_alpha = 16.0
        lora_dropout = 0.05
        use_rslora = true
        use_dora = true
        target_modules = ["q_proj", "v_proj"]
        exclude_modules = ".*\\.0\\..*"
        layers_to_transform = [1, 2]
        rank_pattern = { "1\\.self_attn\\..*" = 32, "v_proj" = 4 }
        alpha_pattern = { "v_proj" = 8.0 }
        modules_to_save = ["norm"]
        init = "pissa_niter_4"
        init_from = "PLACE/start"

        [data]
        train = ["PLACE/feedback.jsonl", "PLACE/more.jsonl"]
        eval = ["PLACE/held-out.jsonl"]
        form = "sharegpt"
        columns = { label = "liked", conversations = "turns" }
        max_length = 512
        order = "sequential"
        cache = "HERE/tokens"

        [objective]
        name = "kto"
        beta = 0.3
        desirable_weight = 1.25
        undesirable_weight = 0.75
        sft_weight = 0.0
        reference = "start"

        [optimizer]
        name = "adamw_8bit"
        learning_rate = 5e-5
        beta1 = 0.8
        beta2 = 0.99
        eps = 1e-6
        weight_decay = 0.01
        max_grad_norm = 0.0

        [schedule]
        name = "cosine"
        warmup_ratio = 0.1

        [train]
        epochs = 1.5
        batch_size = 4
        gradient_accumulation_steps = 2
        log_every = 1
        eval_every = 50
        save_every = 20
        save_minutes = 2.5
        keep_checkpoints = 0
        max_bad_batches = 0
        attention = "standard"
        device = "cpu"
        memory_limit = "1536MiB"
        token_budget = 4096
        threads = 2

        [generate]
        prompts = "PLACE/prompts.jsonl"
        max_new_tokens = 32
        temperature = 0.7
        desirable = { starts_with = "Dear", ends_with = "\n\u0001\\", contains = ["you"], not_contains = ["!", "?"] }
        show = 3
    "##]].assert_eq(&resolved(&place, &recipe));
}

#[test]
fn the_resolved_text_reads_back_the_same() {
    let place = Place::new();
    let run_folder = place.path("run");
    // In the run folder lie things that relative paths would be mistaken for.
    std::fs::create_dir_all(run_folder.join("start")).unwrap();
    let objectives = ["kto", "apo_zero_unpaired", "bco", "dpo", "orpo", "simpo", "cpo", "sft"];
    for objective in objectives {
        for written in [SHORTEST, LONGEST] {
            let written = match objective {
                "bco" | "dpo" | "orpo" | "simpo" | "cpo" | "sft" => written
                    .lines()
                    .filter(|line| {
                        !["desirable_weight", "undesirable_weight", "beta =", "reference"]
                            .iter()
                            .any(|key| line.starts_with(key))
                    })
                    .collect::<Vec<_>>()
                    .join("\n"),
                _ => written.to_owned(),
            };
            let recipe = place.read(&written, &[&format!("objective.name={objective}")]).unwrap();
            let path = run_folder.join("recipe.toml");
            std::fs::write(&path, recipe.to_toml()).unwrap();
            let names_output = true; // as resolved, it does
            let expected = Recipe { names_output, ..recipe };
            assert_eq!(Recipe::read(&path, &[]).unwrap(), expected, "{objective}");
        }
    }
}

#[test]
fn a_file_beside_the_recipe_is_found_before_one_in_the_current_folder() {
    // The tests run in the crate's folder, which has a `src`.
    let here = std::env::current_dir().unwrap().join("src");
    let place = Place::new();
    let recipe = SHORTEST.replace("\"model\"", "\"src\"");
    assert_eq!(place.read(&recipe, &[]).unwrap().model.path, ModelPath::Folder(here));
    std::fs::create_dir(place.path("src")).unwrap();
    assert_eq!(place.read(&recipe, &[]).unwrap().model.path, ModelPath::Folder(place.path("src")));
}

#[test]
fn owner_and_name_is_a_hub_id_unless_there_is_such_a_folder() {
    let place = Place::new();
    let recipe = SHORTEST.replace("\"model\"", "\"owner/tiny-0.5B\"");
    assert_eq!(
        place.read(&recipe, &[]).unwrap().model.path,
        ModelPath::Hub("owner/tiny-0.5B".into())
    );
    std::fs::create_dir_all(place.path("owner/tiny-0.5B")).unwrap();
    assert_eq!(
        place.read(&recipe, &[]).unwrap().model.path,
        ModelPath::Folder(place.path("owner/tiny-0.5B"))
    );
}

#[test]
fn a_plan_can_be_made_before_the_data_is_there() {
    let place = Place::new();
    let path = place.path("recipe.toml");
    std::fs::write(&path, SHORTEST.replace("feedback", "not-yet")).unwrap();
    assert!(Recipe::read(&path, &[]).is_err());
    let recipe = Recipe::read_without_files(&path, &[]).unwrap();
    let path = std::env::current_dir().unwrap().join("not-yet.jsonl");
    assert_eq!(recipe.data.train, [Source::of(DataPath(path))]);
}

#[test]
fn an_adapter_to_start_from_says_what_the_recipe_does_not() {
    let place = Place::new();
    let fresh = place.read(&format!("{SHORTEST}[adapter]\nr = 4"), &[]).unwrap().adapter.unwrap();
    assert_eq!((fresh.r, fresh.lora_alpha), (Some(4), Some(32.0)));
    assert_eq!(fresh.target_modules, Some(TargetModules::AllLinear));
    let started = place.read(&format!("{SHORTEST}[adapter]\ninit_from = \"start\""), &[]).unwrap();
    assert_eq!(started.objective.reference, Reference::Base);
    let started = started.adapter.unwrap();
    assert_eq!((started.r, started.lora_alpha, started.target_modules), (None, None, None));
}

#[test]
fn the_learning_rate_that_is_not_written_depends_on_the_objective() {
    let place = Place::new();
    let rate = |flags: &[&str]| place.read(SHORTEST, flags).unwrap().optimizer.learning_rate;
    assert_eq!(rate(&[]), 1e-6);
    assert_eq!(rate(&["objective.name=sft"]), 2e-5);
    assert_eq!(rate(&["objective.name=sft", "optimizer.learning_rate=1e-6"]), 1e-6);
}

#[test]
fn the_weight_of_sft_that_is_not_written_depends_on_the_objective() {
    let place = Place::new();
    let weight = |flags: &[&str]| place.read(SHORTEST, flags).unwrap().objective.sft_weight;
    for (objective, expected) in [
        ("kto", Some(0.0)),
        ("dpo", Some(0.0)),
        ("simpo", Some(0.0)),
        ("orpo", Some(1.0)),
        ("cpo", Some(1.0)),
        ("sft", None),
    ] {
        assert_eq!(weight(&[&format!("objective.name={objective}")]), expected, "{objective}");
    }
    assert_eq!(weight(&["objective.name=cpo", "objective.sft_weight=0.25"]), Some(0.25));
}

#[test]
fn objectives_without_a_kl_estimate_take_a_batch_of_one() {
    for objective in ["apo_zero_unpaired", "bco", "dpo", "orpo", "simpo", "cpo", "sft"] {
        let flags = [&format!("objective.name={objective}"), "train.batch_size=1"];
        assert_eq!(Place::new().read(SHORTEST, &flags).unwrap().train.batch_size, 1);
    }
}

#[test]
fn sizes_are_read_in_their_units() {
    let place = Place::new();
    let size =
        |text: &str| place.read(SHORTEST, &[&format!("train.memory_limit=\"{text}\"")]).unwrap();
    for (text, bytes) in [
        ("24GiB", 24 << 30),
        ("1.5 GiB", 3 << 29),
        ("800MB", 800_000_000),
        ("4tib", 4 << 40),
        ("1KB", 1000),
    ] {
        assert_eq!(size(text).train.memory_limit.unwrap().0, bytes, "{text}");
    }
}
