//! The runs of fixtures/trl, repeated: recipe in, metrics and weights out, within rounding of the Python stack.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use models::checkpoint::Checkpoint;
use serde_json::Value;
use train::recipe::Recipe;
use train::run::{Ending, run};

fn check(case: &str) {
    check_with(case, &[]);
}

/// As [`check`], with further settings that must change nothing.
fn check_with(case: &str, settings: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/trl").join(case);
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run");
    let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    settings.push("train.device=\"cpu\"".to_owned());
    settings.extend([format!("output=\"{}\"", output.display()), "train.log_every=1".to_owned()]);
    let recipe = Recipe::read(&source.join("recipe.toml"), &settings).unwrap();
    let full = recipe.adapter.is_none();
    let ending = run(recipe, false, &AtomicBool::new(false), &mut |_| {});
    let Ok(Ending::Finished(summary)) = ending else { panic!("{case}: {:?}", ending.err()) };
    assert_eq!(summary.planned_peak_bytes, summary.peak_bytes, "{case}: the plan is exact");
    check_log(case, &source, &output);
    let (ours, theirs) = if full {
        (output.join("model/model.safetensors"), source.join("final/model.safetensors"))
    } else {
        (
            output.join("adapter/adapter_model.safetensors"),
            source.join("final/adapter_model.safetensors"),
        )
    };
    check_weights(case, &ours, &theirs);
}

fn check_log(case: &str, source: &Path, output: &Path) {
    let text = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines = text.lines().filter(|line| !line.contains("\"warning\""));
    let ours: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let log: Value =
        serde_json::from_str(&std::fs::read_to_string(source.join("log.json")).unwrap()).unwrap();
    assert_eq!(ours.len(), log.as_array().unwrap().len(), "{case}: optimizer steps");
    for (ours, theirs) in ours.iter().zip(log.as_array().unwrap()) {
        for (name, value) in theirs.as_object().unwrap() {
            let theirs = value.as_f64().unwrap();
            let name = if name == "rewards/accuracies" { "rewards/accuracy" } else { name };
            let ours = ours[name]
                .as_f64()
                .unwrap_or_else(|| panic!("{case}: {name} is missing in {ours}"));
            let tolerance = match name {
                "step" | "epoch" | "learning_rate" => 1e-9,
                "loss" => 5e-6 * theirs.abs().max(1.0),
                "logps/chosen" | "logps/rejected" => 5e-4,
                "grad_norm" => 2e-5 * theirs,
                _ => 2e-4,
            };
            assert!((ours - theirs).abs() <= tolerance, "{case}, {name}: {ours}, TRL has {theirs}");
        }
    }
}

fn check_weights(case: &str, ours: &Path, theirs: &Path) {
    let (ours, theirs) =
        (Checkpoint::open_file(ours).unwrap(), Checkpoint::open_file(theirs).unwrap());
    assert!(ours.names().eq(theirs.names()), "{case}: the names of the tensors");
    // The singular vectors of a start have no sign of their own: the product of the matrices has.
    let starts_from_weights = case.contains("pissa") || case.contains("olora");
    let values = |checkpoint: &Checkpoint, name: &str| {
        let stored = checkpoint.get(name).unwrap();
        let mut values = vec![0f32; stored.shape.iter().product()];
        stored.to_f32(name, &mut values).unwrap();
        match name.strip_suffix(".lora_B.weight") {
            Some(path) if starts_from_weights => {
                let a = checkpoint.get(&format!("{path}.lora_A.weight")).unwrap();
                let mut below = vec![0f32; a.shape.iter().product()];
                a.to_f32(name, &mut below).unwrap();
                product(&values, &below, a.shape[0])
            }
            _ => values,
        }
    };
    let mut differences = Vec::new();
    for name in ours.names() {
        let shape = |checkpoint: &Checkpoint| checkpoint.get(name).unwrap().shape.to_vec();
        assert_eq!(shape(&ours), shape(&theirs), "{case}: {name}");
        if !(starts_from_weights && name.ends_with(".lora_A.weight")) {
            let both = values(&ours, name).into_iter().zip(values(&theirs, name));
            differences.extend(both.map(|(a, b)| (a - b).abs()));
        }
    }
    differences.sort_by(f32::total_cmp);
    let at = |share: f64| differences[((differences.len() - 1) as f64 * share) as usize];
    assert!(
        at(1.0) <= 5e-5 && at(0.999) <= 5e-6,
        "{case}: off by {:e} at most, {:e} at 99.9 %",
        at(1.0),
        at(0.999)
    );
}

/// `B A` for matrices of rank `r`.
fn product(b: &[f32], a: &[f32], r: usize) -> Vec<f32> {
    let width = a.len() / r;
    let mut product = vec![0f32; b.len() / r * width];
    for (to, b) in product.chunks_mut(width).zip(b.chunks(r)) {
        for (b, a) in b.iter().zip(a.chunks(width)) {
            to.iter_mut().zip(a).for_each(|(to, a)| *to += b * a);
        }
    }
    product
}

#[test]
fn kto_on_qwen2_with_rslora_decay_clipping_cosine_and_accumulation() {
    check("qwen2-kto");
}

#[test]
fn apo_zero_unpaired_on_mistral_with_a_sliding_window() {
    check("mistral-apo");
}

#[test]
fn dpo_on_qwen3_with_normed_heads() {
    check("qwen3-dpo");
}

#[test]
fn each_loss_of_dpo_on_qwen3() {
    for loss_type in [
        "hinge",
        "ipo",
        "robust",
        "apo-zero",
        "apo-down",
        "sigmoid-norm",
        "exo-pair",
        "nca-pair",
        "bco-pair",
        "sppo-hard",
        "discopop",
    ] {
        check(&format!("qwen3-dpo-{loss_type}"));
    }
}

#[test]
fn dpo_with_sft_mixed_in() {
    check("qwen3-dpo-with-sft");
}

#[test]
fn orpo_scores_the_prompt_too() {
    check("llama-orpo");
    check("qwen2-orpo");
}

#[test]
fn cpo_with_each_of_its_losses() {
    check("mistral-cpo");
    check("qwen2-cpo-ipo");
    check("qwen3-cpo-hinge");
}

#[test]
fn simpo_as_its_paper_has_it_and_with_sft_mixed_in() {
    check("qwen3-simpo");
    check("llama-simpo");
}

#[test]
fn bco_with_its_running_mean() {
    check("qwen2-bco");
    check("mistral-bco");
}

#[test]
fn groups_split_into_parts_are_trls_too() {
    for case in ["qwen2-bco", "llama-orpo", "qwen3-dpo-with-sft", "qwen3-kto"] {
        check_with(case, &["train.token_budget=24"]);
    }
}

#[test]
fn kto_on_other_families_with_weights_truncation_and_clipping() {
    check("qwen3-kto");
    check("llama-kto");
}

#[test]
fn dpo_on_other_families_with_truncation_decay_and_rslora() {
    check("mistral-dpo");
    check("qwen2-dpo");
}

#[test]
fn sft_on_other_families_with_truncation_and_rslora() {
    check("qwen2-sft");
    check("mistral-sft");
}

#[test]
fn sft_on_llama_with_biases() {
    check("llama-sft");
}

#[test]
fn kto_on_gemma2_with_soft_caps_and_four_norms() {
    check("gemma2-kto");
}

#[test]
fn dpo_on_phi3_with_fused_layers_and_heads_that_turn_in_part() {
    check("phi3-dpo");
}

#[test]
fn sft_on_olmo2_with_norms_behind_attention_and_mlp() {
    check("olmo2-sft");
}

#[test]
fn kto_on_granite_with_its_multipliers() {
    check("granite-kto");
}

#[test]
fn kto_of_all_weights_on_a_tied_llama() {
    check("llama-full-kto");
}

#[test]
fn kto_with_dora_on_llama_with_biases() {
    check("llama-dora-kto");
}

#[test]
fn dpo_with_modules_by_a_regular_expression_and_ranks_by_pattern() {
    check("qwen3-patterns-dpo");
}

#[test]
fn kto_with_a_tied_head_embeddings_and_norms_trained_whole() {
    check("qwen2-save-kto");
}

#[test]
fn dpo_with_dora_and_all_norms_trained_whole() {
    check("qwen3-dora-save-dpo");
}

#[test]
fn sft_from_the_leading_part_of_each_weight() {
    check("mistral-pissa-sft");
}

#[test]
fn sft_from_the_first_columns_of_each_weight() {
    check("llama-olora-sft");
}
