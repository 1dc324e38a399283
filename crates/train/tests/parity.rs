//! Parity with TRL 1.16.0 in f32: recipe in, metrics and adapter out. fixtures/kto was made with torch 2.15.0,
//! transformers 5.23.0, trl 1.16.0 and peft 0.21.2 on a CPU.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data::template::Moment;
use engine::device::Device;
use models::checkpoint::Checkpoint;
use serde_json::Value;
use train::event::Metrics;
use train::fit::{Policy, simulate};
use train::inputs::Inputs;
use train::machine::Machine;
use train::recipe::Recipe;
use train::run::{Ending, run};
use train::session::Session;

/// Where the tests are run, not where they were built: a bundle takes both elsewhere.
fn fixtures() -> PathBuf {
    let here = std::env::var("CARGO_MANIFEST_DIR");
    let here = here.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&here).join("../../fixtures/kto")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The fixture's case in `folder`, with further settings.
fn recipe(folder: &Path, objective: &str, settings: &[&str]) -> Recipe {
    let adapter = folder.join("init");
    std::fs::create_dir_all(&adapter).unwrap();
    let weights = fixtures().join(format!("lora_init_{objective}.safetensors"));
    std::fs::copy(weights, adapter.join("adapter_model.safetensors")).unwrap();
    let config =
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}"#;
    std::fs::write(adapter.join("adapter_config.json"), config).unwrap();
    let rows = json(&fixtures().join("dataset.json"));
    let lines: Vec<String> = rows.as_array().unwrap().iter().map(Value::to_string).collect();
    std::fs::write(folder.join("train.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(folder.join("eval.jsonl"), lines[..6].join("\n")).unwrap();
    let weighs = !settings.contains(&"objective.name=bco");
    let recipe = format!(
        r#"
output = "{out}"
[model]
path = "{model}"
[adapter]
init_from = "{adapter}"
[data]
train = ["{folder}/train.jsonl"]
eval = ["{folder}/eval.jsonl"]
max_length = 14
order = "sequential"
[objective]
name = "{objective}"
beta = 0.3
{weight}
[optimizer]
learning_rate = 5e-3
[train]
device = "cpu"
epochs = 2
batch_size = 4
gradient_accumulation_steps = 2
eval_every = 2
"#,
        out = folder.join("run").display(),
        model = fixtures().join("model").display(),
        adapter = adapter.display(),
        folder = folder.display(),
        weight = if weighs { "undesirable_weight = 1.5" } else { "" },
    );
    let path = folder.join("recipe.toml");
    std::fs::write(&path, recipe).unwrap();
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    Recipe::read(&path, &settings).unwrap()
}

/// Runs the fixture's case in `folder` with further settings, and returns the run folder.
fn train(folder: &Path, objective: &str, settings: &[&str]) -> PathBuf {
    let recipe = recipe(folder, objective, settings);
    let output = recipe.output.clone();
    let ending = run(recipe, false, &AtomicBool::new(false), &mut |_| {});
    let Ok(Ending::Finished(summary)) = ending else { panic!("{:?}", ending.err()) };
    assert_eq!(summary.planned_peak_bytes, summary.peak_bytes, "the plan is exact");
    output
}

fn check_metrics(run: &Path, objective: &str) {
    let compared = compare_metrics(run, objective, |name, theirs| match name {
        "step" | "epoch" | "learning_rate" => 1e-12,
        "loss" => 5e-6,
        "logps/chosen" | "logps/rejected" => 5e-4,
        "grad_norm" => 2e-5 * theirs,
        _ => 2e-4,
    });
    assert!(compared >= 50, "{compared} numbers were compared");
}

/// Compares what both have logged, by the tolerance for a name and a value; gives how much that is.
fn compare_metrics(run: &Path, objective: &str, tolerance: impl Fn(&str, f64) -> f64) -> usize {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().filter(|line| !line.contains("\"warning\""));
    let ours: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let theirs = json(&fixtures().join(format!("fixture_{objective}.json")));
    let mut compared = 0;
    for logged in theirs["log_history"].as_array().unwrap() {
        let step = logged["step"].as_u64().unwrap() as usize;
        let line = &ours[step - 1];
        assert_eq!(line["step"], step);
        for (name, value) in logged.as_object().unwrap() {
            let (Some(theirs), Some(ours)) = (value.as_f64(), line[name].as_f64()) else {
                continue;
            };
            let tolerance = tolerance(name.trim_start_matches("eval_"), theirs);
            assert!(
                (ours - theirs).abs() <= tolerance,
                "step {step}, {name}: {ours}, TRL has {theirs}"
            );
            compared += 1;
        }
    }
    compared
}

fn check_adapter(run: &Path, objective: &str) {
    let ours = Checkpoint::open_file(&run.join("adapter/adapter_model.safetensors")).unwrap();
    let theirs =
        Checkpoint::open_file(&fixtures().join(format!("lora_final_{objective}.safetensors")))
            .unwrap();
    let mut differences = Vec::new();
    for name in ours.names() {
        let values = |checkpoint: &Checkpoint, name: &str| {
            let stored = checkpoint.get(name).unwrap();
            let mut values = vec![0f32; stored.shape.iter().product()];
            stored.to_f32(name, &mut values).unwrap();
            values
        };
        let in_state_dict = name.replace(".weight", ".default.weight");
        let pairs = values(&ours, name).into_iter().zip(values(&theirs, &in_state_dict));
        differences.extend(pairs.map(|(a, b)| (a - b).abs()));
    }
    differences.sort_by(f32::total_cmp);
    let at = |share: f64| differences[((differences.len() - 1) as f64 * share) as usize];
    assert!(
        at(1.0) <= 5e-5 && at(0.999) <= 5e-6,
        "adapter off by {:e} at most, {:e} at 99.9 %",
        at(1.0),
        at(0.999)
    );
}

#[test]
fn kto_is_trls() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path(), "kto", &[]);
    check_metrics(&run, "kto");
    check_adapter(&run, "kto");
}

#[test]
fn apo_zero_unpaired_is_trls() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path(), "apo_zero_unpaired", &[]);
    check_metrics(&run, "apo_zero_unpaired");
    check_adapter(&run, "apo_zero_unpaired");
}

#[test]
fn groups_split_into_parts_and_blocks_computed_again_are_trls_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path(), "kto", &["train.token_budget=24"]);
    check_metrics(&run, "kto");
    check_adapter(&run, "kto");
}

/// Where the inputs of all blocks wait beside the device, a split group's parts run forward once, with their mismatched
/// completions, and backward in reverse. On a GPU the search chooses so; here it is asked for.
#[test]
fn parts_that_leave_their_inputs_learn_what_whole_groups_learn() {
    for name in ["kto", "bco"] {
        let folder = tempfile::tempdir().unwrap();
        let objective = format!("objective.name={name}");
        let recipe = recipe(folder.path(), "kto", &[objective.as_str()]);
        let inputs = Inputs::load(recipe, Moment::now()).unwrap();
        let layers = inputs.config.num_hidden_layers;
        let whole = Policy::all(usize::MAX, layers);
        let parts = Policy { token_budget: 24, kept_layers: 0, host_layers: layers, ..whole };
        assert!(parts.leaves_inputs(layers));
        let machine = Machine::choose(&inputs.recipe).unwrap();
        let learned = |policy: Policy| -> Metrics {
            let plan = simulate(&inputs, &machine, policy).unwrap();
            let device = Device::cpu(plan.peak_bytes).unwrap().with_host(plan.host_bytes.max(256));
            let device = device.unwrap();
            let mut session = Session::open(&device, &inputs, &policy).unwrap();
            let mut metrics = Vec::new();
            for index in 0..session.steps() {
                let packed = session.packed(index);
                let parts = packed.micro_batches.len();
                assert_eq!(parts > 2, policy.token_budget == 24, "{name}: {parts} parts");
                assert!(packed.kl_micro_batches.is_empty());
                metrics.extend(session.step(index, &packed).unwrap().metrics);
            }
            assert_eq!(device.host().used_bytes(), 0);
            metrics
        };
        let (whole, parts) = (learned(whole), learned(parts));
        assert_eq!(whole.len(), parts.len());
        for ((name, one), (_, other)) in whole.iter().zip(&parts) {
            assert!((one - other).abs() <= 2e-5 * one.abs().max(1.0), "{name}: {one} and {other}");
        }
    }
}

/// Whole runs on a GPU: forward, objective, backward, optimizer, evaluation; the heads are small, so attention is the
/// standard one. bf16 has 8 bits, so a log-probability of some 40 is off by a tenth or so.
#[test]
fn on_cuda_a_run_is_trls_as_far_as_bf16_goes_and_repeats_itself() {
    if let Err(error) = engine::cuda::Cuda::open(0) {
        assert!(std::env::var_os("PROSPECT_GPU_TESTS").is_none(), "{error}");
        return;
    }
    let adapter =
        |run: &Path| std::fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    let on_gpu = |objective: &str, settings: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let mut all = vec!["train.device=cuda"];
        all.extend(settings);
        let run = train(folder.path(), objective, &all);
        let compared = compare_metrics(&run, objective, |name, theirs| match name {
            "step" | "epoch" | "learning_rate" => 1e-12,
            "loss" => 0.01,
            "logps/chosen" | "logps/rejected" => 0.2,
            "grad_norm" => 0.05 * theirs,
            _ => 0.08,
        });
        assert!(compared >= 50, "{compared} numbers were compared");
        adapter(&run)
    };
    for objective in ["kto", "apo_zero_unpaired"] {
        let one = on_gpu(objective, &[]);
        assert!(one == on_gpu(objective, &[]), "{objective}: two runs differ");
        on_gpu(objective, &["train.token_budget=24"]);
    }
}
