//! Names of the hub in recipes and flags, from a cache as Python leaves it. The downloads themselves are tested in
//! crates/hub.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::place::Place;
use expect_test::expect;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A place whose model and feedback are in the hub's cache alone.
fn place() -> Place {
    let place = Place::new();
    for (kind, from, names) in [
        ("models--owner--tiny", "model", None),
        ("datasets--owner--thumbs", "", Some(["feedback.jsonl", "held-out.jsonl"])),
    ] {
        let folder = place.path("hub/hub").join(kind);
        let snapshot = folder.join("snapshots").join(COMMIT);
        for folder in [&snapshot, &folder.join("refs"), &folder.join("blobs")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(folder.join("refs/main"), COMMIT).unwrap();
        for entry in fs::read_dir(place.path(from)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() || names.is_some_and(|names| !names.contains(&name.as_str())) {
                continue;
            }
            fs::copy(&path, folder.join("blobs").join(&name)).unwrap();
            // The split is a word of the file's name.
            let named = name.replace("feedback", "train").replace("held-out", "test-0");
            symlink(Path::new("../../blobs").join(&name), snapshot.join(named)).unwrap();
        }
    }
    fs::remove_dir_all(place.path("model")).unwrap();
    fs::remove_file(place.path("feedback.jsonl")).unwrap();
    fs::remove_file(place.path("held-out.jsonl")).unwrap();
    let recipe = place.read("recipe.toml").replace("\"model\"", "\"owner/tiny\"");
    let recipe = recipe.replace("feedback.jsonl", "datasets/owner/thumbs");
    place.write("recipe.toml", &recipe.replace("held-out.jsonl", "datasets/owner/thumbs"));
    place
}

#[test]
fn a_run_learns_from_the_cache_and_says_which_commit() {
    let place = place();
    place.well("train recipe.toml --set train.max_steps=6");
    let resolved = place.read("run/recipe.toml");
    let snapshot = format!("models--owner--tiny/snapshots/{COMMIT}\"");
    assert!(resolved.contains(&snapshot), "{resolved}");
    assert!(resolved.contains(&format!("snapshots/{COMMIT}/train.jsonl")), "{resolved}");
    assert!(resolved.contains(&format!("snapshots/{COMMIT}/test-0.jsonl")), "{resolved}");
    let run = place.read("run/run.json");
    assert!(run.contains(&format!("{COMMIT}/config.json")), "{run}");
    // It is gone on with, and its result is used, by the same name.
    place.well("train recipe.toml --set train.max_steps=6 --resume");
    place.well("plan recipe.toml --json");
    place.well("data recipe.toml --json");
    place.well("eval recipe.toml --adapter run/adapter --json");
    let question = "--prompt w1 --max-new-tokens 6";
    let answer = |model: &str| place.well(&format!("generate {model} {question}")).stdout;
    let theirs = answer("run");
    assert_eq!(answer("owner/tiny --adapter run/adapter"), theirs);
    assert_eq!(answer(&format!("owner/tiny@{COMMIT} --adapter run/adapter")), theirs);
    place.well("merge owner/tiny --adapter run/adapter --out merged");
    assert_eq!(answer("merged"), theirs);
}

#[test]
fn a_plan_of_a_name_needs_the_configuration_alone() {
    let place = place();
    let whole = place.well("plan recipe.toml --json --gpu 24GiB").stdout;
    let folder = place.path("hub/hub/models--owner--tiny");
    fs::remove_file(folder.join("blobs/model.safetensors")).unwrap();
    fs::remove_file(folder.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    assert_eq!(place.well("plan recipe.toml --json --gpu 24GiB").stdout, whole);
    // What another program left of a model in shards is no model.
    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}"#;
    let path = folder.join("snapshots").join(COMMIT).join("model.safetensors.index.json");
    fs::write(path, index).unwrap();
    assert_eq!(place.well("plan recipe.toml --json --gpu 24GiB").stdout, whole);
    let came = place.run("train recipe.toml");
    assert_eq!(came.code, Some(2));
    assert!(came.stderr.contains("'owner/tiny' is not in the cache"), "{}", came.stderr);
}

#[test]
fn what_is_not_in_the_cache_is_named() {
    let place = place();
    let said = |arguments: &str| {
        let came = place.run(arguments);
        assert_eq!(came.code, Some(2), "{}", came.stderr);
        came.stderr
    };
    expect![[r#"
        error: 'owner/other' is not in the cache 'hub/hub', and HF_HUB_OFFLINE says to ask nobody
          hint: unset HF_HUB_OFFLINE, or fetch it where there is a network and copy the cache
    "#]]
    .assert_eq(&said("generate owner/other --prompt w1"));
    expect![[r#"
        error: 'datasets/owner/other' is not in the cache 'hub/hub', and HF_HUB_OFFLINE says to ask nobody
          hint: unset HF_HUB_OFFLINE, or fetch it where there is a network and copy the cache
    "#]].assert_eq(&said("train recipe.toml --set data.train=datasets/owner/other"));
    assert!(!place.path("run").exists());
    // A folder of that name goes before the hub.
    fs::create_dir_all(place.path("owner/tiny")).unwrap();
    assert!(said("generate owner/tiny --prompt w1").contains("'owner/tiny' has neither"));
}
