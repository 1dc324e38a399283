//! The disk fails, and the program is killed in the middle of writing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{Dice, Disturbed, TRAIN, all, ended_with_words, full, leftovers, share};

/// Calls that change the folder in an undisturbed run; none where there is no failing disk.
fn calls() -> Option<usize> {
    let disturbed = Disturbed::new();
    let output = disturbed.run(&[("FAULTS_KIND", "none")])?;
    assert!(output.status.success());
    disturbed.compare("counting").unwrap();
    let calls = disturbed.calls();
    assert!(calls > 200, "{calls} calls: the layer does not see the program's writes");
    Some(calls)
}

/// Every call, or some that are spread evenly, the first and the last among them.
fn spread(calls: usize, some: usize) -> Vec<usize> {
    if full() {
        return (1..=calls).collect();
    }
    (0..some).map(|i| 1 + i * (calls - 1) / (some - 1)).collect()
}

fn fails(kind: &str, fault: i32) {
    let Some(calls) = calls() else { return };
    all(&format!("{kind} disk"), &spread(calls, 12), |at| {
        let what = format!("{kind} at call {at} of {calls}");
        let disturbed = Disturbed::new();
        let at = at.to_string();
        let Some(output) = disturbed.run(&[("FAULTS_KIND", kind), ("FAULTS_AT", &at)]) else {
            return Ok(());
        };
        ended_with_words(&what, &output)?;
        match output.status.code() {
            // What failed was not needed: an old checkpoint that was not removed, the report.
            Some(0) => disturbed.compare(&what).or_else(|_| disturbed.go_on(&what)),
            Some(code) if code == fault => {
                // What can be removed is removed at once.
                if kind == "full"
                    && let Some(left) = leftovers(&disturbed.place.path("run")).first()
                {
                    return Err(format!("{what}: {left} is left"));
                }
                disturbed.go_on(&what)
            }
            code => Err(format!(
                "{what}: exit code {code:?}\n{}",
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    });
}

#[test]
fn a_disk_that_is_full_costs_no_more_than_the_work_since_the_last_checkpoint() {
    fails("full", 1);
}

#[test]
fn a_disk_that_becomes_read_only_costs_no_more() {
    fails("readonly", 1);
}

#[test]
fn a_disk_that_fails_costs_no_more() {
    fails("failing", 1);
}

#[test]
fn a_disk_that_fails_once_costs_no_more() {
    fails("once", 1);
}

#[test]
fn a_disk_that_writes_something_else_is_found_out() {
    let Some(calls) = calls() else { return };
    all("lying disk", &spread(calls, 10), |at| {
        let what = format!("a flipped bit in call {at} of {calls}");
        let disturbed = Disturbed::new();
        let at = at.to_string();
        let Some(output) = disturbed.run(&[("FAULTS_KIND", "flip"), ("FAULTS_AT", &at)]) else {
            return Ok(());
        };
        ended_with_words(&what, &output)?;
        let adapter = "run/adapter/adapter_model.safetensors";
        let whole = || disturbed.compare_one(adapter);
        if output.status.success() {
            // Metrics and reports are not read back; what was trained is.
            return match whole() {
                true => Ok(()),
                false => Err(format!("{what}: {adapter} differs and nobody said so")),
            };
        }
        let resume = match disturbed.place.path("run/recipe.toml").exists() {
            true => " --resume",
            false => "",
        };
        let came = disturbed.place.run(&format!("{TRAIN}{resume}"));
        match came.code {
            Some(0) if whole() => Ok(()),
            Some(0) => Err(format!("{what}: {adapter} differs after going on")),
            // The run's own description was what was damaged: there is nothing to go on with, and it says so.
            Some(2) if came.stderr.contains("is damaged") => Ok(()),
            code => Err(format!("{what}: going on ended with {code:?}\n{}", came.stderr)),
        }
    });
}

#[test]
fn a_slow_disk_and_one_that_takes_little_at_a_time_change_nothing() {
    all("slow disk", &["slow", "short"], |kind| {
        let disturbed = Disturbed::new();
        let Some(output) = disturbed.run(&[("FAULTS_KIND", kind), ("FAULTS_SLOW", "3000")]) else {
            return Ok(());
        };
        ended_with_words(kind, &output)?;
        disturbed.compare(kind)
    });
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    let jobs: Vec<usize> = (0..share(2, 10)).collect();
    all("clock jumps", &jobs, |_| {
        let disturbed = Disturbed::new();
        let Some(output) = disturbed.run(&[("FAULTS_KIND", "clock")]) else { return Ok(()) };
        ended_with_words("clock", &output)?;
        disturbed.compare("clock")
    });
}

#[test]
fn a_run_killed_within_a_write_goes_on_to_the_same_bytes() {
    let Some(calls) = calls() else { return };
    let mut dice = Dice(7);
    let jobs: Vec<usize> = (0..share(12, 70)).map(|_| 1 + dice.below(calls)).collect();
    let within = AtomicUsize::new(0);
    all("kill -9 within a call", &jobs, |at| {
        let what = format!("killed in call {at} of {calls}");
        let disturbed = Disturbed::new();
        let text = at.to_string();
        let Some(output) = disturbed.run(&[("FAULTS_KIND", "kill"), ("FAULTS_AT", &text)]) else {
            return Ok(());
        };
        if output.status.code().is_some() {
            return Err(format!("{what}: it was not killed"));
        }
        if leftovers(&disturbed.place.path("run")).iter().any(|name| name.contains(".checkpoint-"))
        {
            within.fetch_add(1, Ordering::Relaxed);
        }
        // Every third is killed again while it goes on.
        if at % 3 == 0 && disturbed.place.path("run/recipe.toml").exists() {
            let again = (1 + at / 2).to_string();
            let faults = [("FAULTS_KIND", "kill"), ("FAULTS_AT", &*again)];
            let Some(mut command) = disturbed.command(&format!("{TRAIN} --resume"), &faults) else {
                return Ok(());
            };
            command.output().unwrap();
        }
        disturbed.go_on(&what)
    });
    let within = within.into_inner();
    println!("{within} of them while a checkpoint was being written");
    assert!(within > jobs.len() / 4, "{within} of {} kills met a checkpoint", jobs.len());
}

#[test]
fn a_run_killed_at_any_time_goes_on_to_the_same_bytes() {
    let mut dice = Dice(11);
    let jobs: Vec<u64> = (0..share(6, 30)).map(|_| 20 + dice.below(900) as u64).collect();
    all("kill -9 at a time", &jobs, |milliseconds| {
        let mut milliseconds = *milliseconds;
        loop {
            let disturbed = Disturbed::new();
            let mut process = disturbed.place.start(TRAIN);
            std::thread::sleep(Duration::from_millis(milliseconds));
            if process.try_wait().unwrap().is_some() {
                milliseconds = milliseconds * 2 / 3; // it was done already: nothing was killed
                continue;
            }
            process.kill().unwrap();
            process.wait().unwrap();
            return disturbed.go_on(&format!("killed after {milliseconds} ms"));
        }
    });
}
