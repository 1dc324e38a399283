//! `prospect plan` for GPUs that are not here.

use std::path::Path;

use crate::place::Place;

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_readmes_table_is_what_the_program_prints() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_prospect"))
        .args(["plan", "--table", "--gpu", "RTX 3090"])
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(readme.contains(table.trim_end()), "README.md does not hold:\n{table}");
}

#[test]
fn a_plan_needs_neither_the_gpu_nor_the_weights_nor_the_data() {
    let place = Place::new();
    let whole = json(&place.well("plan recipe.toml --json --gpu RTX3060").stdout);
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let without = json(&place.well("plan recipe.toml --json --gpu RTX3060").stdout);
    assert_eq!(whole, without, "the weights");
    assert_eq!((&whole["gpu"], &whole["made_up"]), (&"RTX 3060".into(), &false.into()));
    assert_eq!(whole["limit_bytes"].as_f64().unwrap(), 10.5 * 1024f64.powi(3));

    std::fs::remove_file(place.path("feedback.jsonl")).unwrap();
    let made_up = json(&place.well("plan recipe.toml --json --gpu 12GiB").stdout);
    assert_eq!((&made_up["gpu"], &made_up["made_up"]), (&serde_json::Value::Null, &true.into()));
    // Of the four examples of a step each is as long as it may be.
    assert_eq!(made_up["rated_tokens"], 4 * 32);
    let refused = place.run("train recipe.toml");
    assert_eq!(refused.code, Some(2), "a run needs both: {}", refused.stderr);
}

#[test]
fn less_memory_moves_what_can_be_moved_and_never_more_than_is_needed() {
    let place = Place::new();
    let at = |gpu: &str, more: &str| {
        json(&place.well(&format!("plan recipe.toml --json --gpu {gpu} {more}")).stdout)
    };
    let roomy = at("24GiB", "");
    assert_eq!((&roomy["kept_layers"], &roomy["host_table"]), (&2.into(), &false.into()));
    assert_eq!(roomy["host_bytes"], 0);
    // The most that CUDA may hold is left out of every limit.
    let outside = 3u64 << 29;
    let peak = roomy["peak_bytes"].as_u64().unwrap();
    let limit =
        |bytes: u64| format!("--set train.token_budget=4000 --set train.memory_limit={bytes}");
    let tight = at("24GiB", &limit(outside + peak - 1));
    assert_eq!((&tight["fits"], &tight["host_table"]), (&true.into(), &true.into()), "{tight}");
    assert!(tight["peak_bytes"].as_u64().unwrap() < peak);
    assert!(tight["reason"].as_str().unwrap().contains("keeping all would take"), "{tight}");

    // All weights are trained: the table stays.
    let recipe = place.read("recipe.toml");
    place.write("full.toml", &recipe.replace("[adapter]\nr = 4\n", ""));
    let arguments = format!("plan full.toml --json --gpu 24GiB {}", limit(outside + 1));
    let full = json(&place.well(&arguments).stdout);
    assert_eq!((&full["fits"], &full["host_table"]), (&false.into(), &false.into()), "{full}");
}

#[test]
fn a_gpu_that_is_not_known_or_too_old_is_refused_with_those_that_are() {
    let place = Place::new();
    for (gpu, words) in [
        (
            "GTX1080",
            "error: --gpu GTX1080 is neither a GPU that is known nor a size\n  hint: write its memory, such as 24GiB, or one of T4, RTX 3060",
        ),
        ("T4", "error: --gpu T4: a T4 has compute capability 7.5, 8.0 is needed\n  hint: "),
    ] {
        let came = place.run(&format!("plan recipe.toml --gpu {gpu}"));
        assert_eq!(came.code, Some(2));
        assert!(came.stderr.contains(words), "{}", came.stderr);
    }
}
