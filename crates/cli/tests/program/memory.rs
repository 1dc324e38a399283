//! The planned peak is the peak, to the byte.

use models::checkpoint::Checkpoint;

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
        (
            "dora",
            "recipe.toml",
            "--set adapter.use_dora=true --set adapter.modules_to_save=norm".to_owned(),
        ),
        (
            "dora-recompute",
            "recipe.toml",
            "--set train.memory_limit=470KiB --set adapter.use_dora=true --set adapter.modules_to_save=norm".to_owned(),
        ),
        (
            "dora-split-nf4",
            "recipe.toml",
            "--set train.token_budget=40 --set adapter.use_dora=true --set model.quantization=nf4 --set objective.reference=start"
                .to_owned(),
        ),
        (
            "dora-sft",
            "recipe.toml",
            format!("{SFT} --set adapter.use_dora=true --set adapter.lora_dropout=0.1"),
        ),
        (
            "pissa",
            "recipe.toml",
            "--set model.quantization=nf4 --set adapter.init=pissa_niter_2".to_owned(),
        ),
        (
            "loftq",
            "recipe.toml",
            "--set model.quantization=nf4 --set adapter.init=loftq --set adapter.modules_to_save=lm_head".to_owned(),
        ),
        (
            "olora-recompute",
            "recipe.toml",
            "--set train.memory_limit=520KiB --set adapter.init=olora --set adapter.use_dora=true".to_owned(),
        ),
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
    // What runs again runs for fewer rows at a time, which rounds otherwise and changes nothing else.
    for (kept, again) in [("kto", "recompute"), ("dora", "dora-recompute")] {
        let open = |output: &str| {
            let path = format!("{output}/adapter/adapter_model.safetensors");
            Checkpoint::open_file(&place.path(&path)).unwrap()
        };
        let (kept, again) = (open(kept), open(again));
        for name in kept.names() {
            let values = |checkpoint: &Checkpoint| {
                let stored = checkpoint.get(name).unwrap();
                let mut values = vec![0f32; stored.shape.iter().product()];
                stored.to_f32(name, &mut values).unwrap();
                values
            };
            let mut both = values(&kept).into_iter().zip(values(&again));
            let far = both.find(|(a, b)| (a - b).abs() > 1e-5);
            assert_eq!(far, None, "{name}");
        }
    }
    for output in ["recompute", "dora-recompute", "olora-recompute"] {
        let recompute = place.json(&format!("{output}/run.json"));
        assert!(
            recompute["policy"]["kept_layers"].as_u64().unwrap() < 2,
            "the limit is below keeping all: {recompute}"
        );
    }
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
