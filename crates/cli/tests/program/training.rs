//! `prospect train` to its end.

use crate::place::{DPO, Place, SFT, without_reference};

#[test]
fn a_run_leaves_its_folder_and_says_where_everything_is() {
    let place = Place::new();
    let came = place.well("train recipe.toml");
    for name in [
        "recipe.toml",
        "run.json",
        "report.html",
        "answers-before.json",
        "answers.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "checkpoint-10/state.json",
        "checkpoint-12/state.json",
    ] {
        assert!(place.path("run").join(name).exists(), "{name}");
    }
    assert!(!place.path("run/checkpoint-5").exists(), "keep_checkpoints = 2");
    let steps: Vec<u64> = place
        .read("run/metrics.jsonl")
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(steps, (1..=12).collect::<Vec<u64>>());
    let summary = place.json("run/summary.json");
    assert_eq!(summary["steps"], 12);
    assert_eq!(summary["prompts"], 4);
    assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"]);
    assert!(summary["metrics"]["eval_loss"].as_f64().unwrap() < 0.5);
    // Progress went to stderr, results to stdout.
    for words in [
        "device: CPU",
        "data: 14 examples (7 up, 7 down)",
        "policy: ",
        "memory: ",
        "step  4/12",
        "held-out data after step 6",
    ] {
        assert!(came.stderr.contains(words), "{words}\n{}", came.stderr);
    }
    for words in [
        "before ",
        "desirable answers: ",
        "adapter  run/adapter",
        "report   run/report.html",
        "generate model --adapter run/adapter",
    ] {
        assert!(came.stdout.contains(words), "{words}\n{}", came.stdout);
    }
    assert!(
        !came.stdout.contains('\x1b') && !came.stderr.contains('\x1b'),
        "no colour into a pipe"
    );
}

#[test]
fn two_runs_and_any_number_of_threads_give_the_same_bytes() {
    let place = Place::new();
    for (output, threads) in [("one", 1), ("two", 2), ("again", 2)] {
        place.well(&format!(
            "train recipe.toml --set output={output} --set train.threads={threads}"
        ));
    }
    for name in [
        "adapter/adapter_model.safetensors",
        "metrics.jsonl",
        "answers.json",
        "checkpoint-12/optimizer.safetensors",
    ] {
        let one = place.bytes(&format!("one/{name}"));
        assert!(one == place.bytes(&format!("two/{name}")), "{name}: 1 and 2 threads");
        assert!(one == place.bytes(&format!("again/{name}")), "{name}: two runs");
    }
}

#[test]
fn an_output_that_exists_is_refused_unless_the_recipe_names_none() {
    let place = Place::new();
    place.well("train recipe.toml --set train.max_steps=1");
    let came = place.run("train recipe.toml --set train.max_steps=1 --set train.device=cpu");
    assert_eq!(came.code, Some(2));
    expect_test::expect![[r#"
        error: output 'run' holds a run already
          hint: go on with it by --resume, or choose another place by --set output=...
    "#]]
    .assert_eq(&place.tidy(&came.stderr));
    let recipe = crate::place::RECIPE.replace("output = \"run\"\n", "");
    place.write("quick.toml", &recipe);
    for name in ["quick", "quick-2", "quick-3"] {
        place.well("train quick.toml --set train.max_steps=1");
        assert!(place.path("runs").join(name).join("summary.json").exists(), "{name}");
    }
}

#[test]
fn every_objective_and_full_fine_tuning_train() {
    let place = Place::new();
    for (output, sets) in [
        ("apo", "--set objective.name=apo_zero_unpaired".to_owned()),
        ("bco", "--set objective.name=bco".to_owned()),
        ("kto-sft", "--set objective.sft_weight=0.5".to_owned()),
        ("dpo", DPO.to_owned()),
        ("ipo", format!("{DPO} --set objective.loss_type=ipo")),
        ("orpo", without_reference("orpo")),
        ("simpo", without_reference("simpo")),
        ("cpo", without_reference("cpo")),
        ("sft", format!("{SFT} --set adapter.lora_dropout=0.1")),
    ] {
        place.well(&format!(
            "train recipe.toml --set output={output} --set train.max_steps=3 {sets}"
        ));
        assert!(place.path(output).join("adapter/adapter_model.safetensors").exists(), "{output}");
        place.well(&format!("eval recipe.toml {sets}"));
    }
    place.write("full.toml", &crate::place::RECIPE.replace("[adapter]\nr = 4\n", ""));
    let came = place.well("train full.toml --set train.max_steps=3");
    assert!(came.stdout.contains("generate run/model"), "{}", came.stdout);
    place.well("generate run --prompt w1 --max-new-tokens 3");
}
