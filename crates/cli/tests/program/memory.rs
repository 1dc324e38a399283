//! The planned peak is the peak, to the byte.

use crate::place::{DPO, Place, RECIPE, SFT, without_reference};

#[test]
fn the_planned_peak_is_the_peak() {
    let place = Place::new();
    place.write("full.toml", &RECIPE.replace("[adapter]\nr = 4\n", ""));
    let cases = [
        ("kto", "recipe.toml", String::new()),
        ("apo", "recipe.toml", "--set objective.name=apo_zero_unpaired".to_owned()),
        ("dpo", "recipe.toml", DPO.to_owned()),
        ("sft", "recipe.toml", format!("{SFT} --set adapter.lora_dropout=0.1")),
        ("bco", "recipe.toml", "--set objective.name=bco".to_owned()),
        ("orpo", "recipe.toml", without_reference("orpo")),
        ("simpo", "recipe.toml", without_reference("simpo")),
        ("cpo", "recipe.toml", without_reference("cpo")),
        ("full-orpo", "full.toml", without_reference("orpo")),
        ("start", "recipe.toml", "--set objective.reference=start".to_owned()),
        ("full", "full.toml", String::new()),
        ("full-sft", "full.toml", SFT.to_owned()),
        ("full-dpo", "full.toml", DPO.to_owned()),
        ("nf4", "recipe.toml", "--set model.quantization=nf4".to_owned()),
        (
            "nf4-plain",
            "recipe.toml",
            "--set model.quantization=nf4 --set model.double_quant=false".to_owned(),
        ),
        ("fp4", "recipe.toml", "--set model.quantization=fp4".to_owned()),
        ("int8", "recipe.toml", "--set model.quantization=int8".to_owned()),
        ("bf16", "recipe.toml", "--set model.dtype=bf16".to_owned()),
        ("adamw_8bit", "recipe.toml", "--set optimizer.name=adamw_8bit".to_owned()),
        ("split", "recipe.toml", "--set train.token_budget=40".to_owned()),
        ("split-dpo", "recipe.toml", format!("--set train.token_budget=40 {DPO}")),
        ("split-sft", "recipe.toml", format!("--set train.token_budget=40 {SFT}")),
        (
            "split-bco",
            "recipe.toml",
            "--set train.token_budget=40 --set objective.name=bco".to_owned(),
        ),
        (
            "split-orpo",
            "recipe.toml",
            format!("--set train.token_budget=40 {}", without_reference("orpo")),
        ),
        ("split-full", "full.toml", "--set train.token_budget=40".to_owned()),
        ("accumulate", "recipe.toml", "--set train.gradient_accumulation_steps=2".to_owned()),
        ("sequential", "recipe.toml", "--set data.order=sequential".to_owned()),
        ("recompute", "recipe.toml", "--set train.memory_limit=410KiB".to_owned()),
    ];
    for (output, recipe, sets) in cases {
        place.well(&format!("train {recipe} --set output={output} --set train.max_steps=8 {sets}"));
        let summary = place.json(&format!("{output}/summary.json"));
        assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"], "{output}");
        let plan = place.well(&format!("plan {recipe} --json --set train.max_steps=8 {sets}"));
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        assert_eq!(plan["peak_bytes"], summary["peak_bytes"], "{output}");
        assert_eq!(plan["rated_tokens"], summary["rated_tokens"], "{output}");
        let parts: u64 =
            plan["peak"].as_object().unwrap().values().map(|part| part.as_u64().unwrap()).sum();
        assert_eq!(Some(parts), plan["peak_bytes"].as_u64(), "{output}");
    }
    let peak = |output: &str| place.json(&format!("{output}/summary.json"))["peak_bytes"].as_u64();
    assert!(peak("simpo") < peak("dpo"), "what has no reference takes no memory for its rows");
    assert!(peak("full-orpo") < peak("full-dpo"), "nor for a second model");
    let recompute = place.json("recompute/run.json");
    assert!(
        recompute["policy"]["kept_layers"].as_u64().unwrap() < 2,
        "the limit is below keeping all: {recompute}"
    );
}

#[test]
fn the_peak_of_the_recipes_is_the_planned_one() {
    let place = Place::new();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let assets = format!("{root}/assets/quickstart");
    for (recipe, data) in [("quickstart", "feedback"), ("pairs", "pairs")] {
        place.well(&format!(
            "train {root}/recipes/{recipe}.toml --set output={recipe} --set model.path={assets}/model \
             --set data.train={assets}/{data}.jsonl --set generate.prompts={assets}/prompts.jsonl \
             --set train.max_steps=2 --set generate.max_new_tokens=2"
        ));
        let summary = place.json(&format!("{recipe}/summary.json"));
        assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"], "{recipe}");
        assert_eq!(summary["prompts"], 100, "{recipe}");
    }
}
