//! Runs that are interrupted, and what going on with them gives.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::place::{Place, SFT};

const RESULT: &str = "adapter/adapter_model.safetensors";

/// A run of some hundred steps, so that there is time to interrupt it.
const LONG: &str = "train recipe.toml --set train.max_steps=200 --set train.save_every=11 --set train.eval_every=50";

fn signal(process: &std::process::Child, name: &str) {
    let sent = Command::new("kill").args([name, &process.id().to_string()]).status().unwrap();
    assert!(sent.success(), "kill {name}");
}

#[test]
fn a_run_killed_at_any_step_and_resumed_gives_the_same_bytes() {
    let place = Place::new();
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos() as usize;
    for (number, sets) in [
        "",
        "--set optimizer.name=adamw_8bit --set model.quantization=nf4",
        "--set objective.name=bco --set train.token_budget=40",
        &format!("{SFT} --set adapter.lora_dropout=0.2"),
        "--set adapter.use_dora=true --set adapter.modules_to_save=lm_head --set adapter.init=pissa",
    ]
    .into_iter()
    .enumerate()
    {
        place.well(&format!("{LONG} {sets} --set output=whole{number}"));
        let killed = format!("{LONG} {sets} --set output=killed{number}");
        let mut went = String::new();
        for attempt in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let lines = 1 + (seed >> 33) % 60;
            let step =
                std::fs::read_to_string(place.path(&format!("killed{number}/metrics.jsonl")))
                    .map_or(0, |text| text.lines().count());
            went += &format!(" {}", step + lines);
            let resume = if attempt > 0 { "--resume" } else { "" };
            let mut process = place.start(&format!("{killed} {resume}"));
            if attempt == 0 {
                place.wait_for_lines(&format!("killed{number}/metrics.jsonl"), lines);
            } else {
                // The metrics of before are still there: a moment is as random as a step.
                std::thread::sleep(Duration::from_millis(100 + 5 * lines as u64));
            }
            process.kill().unwrap();
            process.wait().unwrap();
        }
        place.well(&format!("{killed} --resume"));
        for name in [RESULT, "metrics.jsonl", "answers.json"] {
            assert!(
                place.bytes(&format!("whole{number}/{name}"))
                    == place.bytes(&format!("killed{number}/{name}")),
                "{name} differs after kills about steps{went} ({sets})"
            );
        }
    }
}

#[test]
fn a_signal_ends_the_step_saves_and_exits_with_its_number() {
    let place = Place::new();
    place.well(&format!("{LONG} --set output=whole"));
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let output = format!("stopped{name}");
        // So many steps that none is the last when the signal comes.
        let mut process =
            place.start(&format!("{LONG} --set output={output} --set train.save_every=0"));
        place.wait_for_lines(&format!("{output}/metrics.jsonl"), 3);
        signal(&process, name);
        let status = process.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{name}");
        let steps = place.read(&format!("{output}/metrics.jsonl")).lines().count();
        assert!(place.path(&format!("{output}/checkpoint-{steps}/state.json")).exists(), "{steps}");
        assert!(!place.path(&format!("{output}/summary.json")).exists());
        assert!(place.read(&format!("{output}/report.html")).contains("after step"));
        place.well(&format!("{LONG} --set output={output} --set train.save_every=0 --resume"));
        assert!(
            place.bytes(&format!("whole/{RESULT}")) == place.bytes(&format!("{output}/{RESULT}"))
        );
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let place = Place::new();
    // Answers that take a minute, which the first signal does not cut short.
    place.write("prompts.jsonl", &"{\"prompt\": \"w1 w2\"}\n".repeat(30_000));
    let mut process = place.start("train recipe.toml --set generate.max_new_tokens=120");
    place.wait_for_lines("run/run.json", 1);
    std::thread::sleep(Duration::from_millis(300));
    signal(&process, "-INT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(process.try_wait().unwrap().is_none(), "the first signal lets work in progress end");
    let second = Instant::now();
    signal(&process, "-INT");
    assert_eq!(process.wait().unwrap().code(), Some(130));
    assert!(second.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_word() {
    let place = Place::new();
    place.well("train recipe.toml");
    let whole = place.bytes(&format!("run/{RESULT}"));
    std::fs::remove_file(place.path("run/summary.json")).unwrap();
    let path = place.path("run/checkpoint-12/optimizer.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let came = place.well("train recipe.toml --resume");
    assert!(
        came.stderr.contains("warning: ") && came.stderr.contains("checkpoint-12"),
        "{}",
        came.stderr
    );
    assert!(
        came.stderr.contains("going on from 'HERE") || came.stderr.contains("checkpoint-10'"),
        "{}",
        came.stderr
    );
    assert!(whole == place.bytes(&format!("run/{RESULT}")));
}

#[test]
fn a_finished_run_is_not_run_again() {
    let place = Place::new();
    let first = place.well("train recipe.toml");
    let summary = place.bytes("run/summary.json");
    let again = place.well("train recipe.toml --resume");
    assert!(
        again.stderr.contains("is finished: there is nothing to go on with"),
        "{}",
        again.stderr
    );
    assert_eq!(again.stdout, first.stdout);
    assert!(summary == place.bytes("run/summary.json"));
    // Stopped between the last checkpoint and the summary, it only writes its end.
    std::fs::remove_file(place.path("run/summary.json")).unwrap();
    place.well("train recipe.toml --resume");
    let (now, then): (serde_json::Value, serde_json::Value) =
        (place.json("run/summary.json"), serde_json::from_slice(&summary).unwrap());
    assert_eq!(now["metrics"], then["metrics"]);
    assert_eq!(now["desirable_after"], then["desirable_after"]);
}

#[test]
fn a_folder_is_written_by_one_run_at_a_time() {
    let place = Place::new();
    let mut process = place.start(&format!("{LONG} --set train.save_every=0"));
    place.wait_for_lines("run/metrics.jsonl", 1);
    let came = place.run(&format!("{LONG} --set train.save_every=0 --resume"));
    assert_eq!(came.code, Some(2), "{}", came.stderr);
    assert!(
        place.tidy(&came.stderr).contains("output 'run' is being written by another run"),
        "{}",
        came.stderr
    );
    process.kill().unwrap();
    process.wait().unwrap();
    // The lock went with the process.
    place.well(&format!("{LONG} --set train.save_every=0 --resume"));
}

#[test]
fn warnings_stand_in_the_metrics_and_are_the_same_after_a_stop() {
    let place = Place::new();
    // A rate that is far too high, and most rows cut.
    let command = "train recipe.toml --set train.max_steps=120 --set optimizer.learning_rate=0.3 --set data.max_length=12";
    let came = place.well(command);
    let metrics = place.read("run/metrics.jsonl");
    let warned: Vec<serde_json::Value> = metrics
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line.get("warning").is_some())
        .collect();
    assert!(warned[0]["warning"].as_str().unwrap().contains(" records are dropped or cut, "));
    assert_eq!(warned[0]["step"], 0);
    let late = warned.last().unwrap();
    assert!(late["step"].as_u64().unwrap() > 10, "{warned:?}");
    for warning in &warned {
        let text = warning["warning"].as_str().unwrap();
        assert!(came.stderr.contains(text), "{text}");
        assert!(!warning["hint"].as_str().unwrap().is_empty(), "{text}");
    }
    assert!(place.read("run/report.html").contains("before the first step"));
    let step = late["step"].as_u64().unwrap() as usize;
    // Stopped just before the last warning, and just after it.
    for (output, lines) in [("before", step - 3), ("after", step + 3)] {
        let command = format!("{command} --set output={output}");
        let mut process = place.start(&command);
        place.wait_for_lines(&format!("{output}/metrics.jsonl"), lines);
        process.kill().unwrap();
        process.wait().unwrap();
        place.well(&format!("{command} --resume"));
        assert_eq!(place.read(&format!("{output}/metrics.jsonl")), metrics, "{output}");
    }
}

#[test]
fn a_run_is_not_resumed_by_another_version_or_on_another_machine() {
    for (key, then, words) in [
        ("prospect", "0.0.9", "Prospect is 0.1.0, was 0.0.9, since the run in 'run' began"),
        ("machine", "a GPU", "the CPU computes now, it was a GPU, since the run in 'run' began"),
    ] {
        let place = Place::new();
        place.well("train recipe.toml --set train.max_steps=2");
        let path = place.path("run/run.json");
        let mut start: serde_json::Value = train::checksum::read_sealed(&path).unwrap();
        start[key] = then.into();
        train::checksum::write_sealed(&path, &start).unwrap();
        let came = place.run("train recipe.toml --set train.max_steps=2 --resume");
        assert_eq!(came.code, Some(2));
        assert!(place.tidy(&came.stderr).contains(words), "{}", came.stderr);
    }
}

#[test]
fn a_run_is_not_resumed_with_another_recipe_or_other_data() {
    let place = Place::new();
    place.well("train recipe.toml --set train.max_steps=2");
    let refused = |arguments: &str| {
        let came = place.run(arguments);
        assert_eq!(came.code, Some(2), "{}", came.stderr);
        place.tidy(came.stderr.lines().find(|line| line.starts_with("error:")).unwrap())
    };
    expect_test::expect!["error: train.max_steps = 3 was 2 since the run in 'run' began"]
        .assert_eq(&refused("train recipe.toml --set train.max_steps=3 --resume"));
    place.write("feedback.jsonl", &place.read("feedback.jsonl").replacen("w19", "w20", 1));
    expect_test::expect!["error: feedback.jsonl changed since the run in 'run' began"]
        .assert_eq(&refused("train recipe.toml --set train.max_steps=2 --resume"));
}
