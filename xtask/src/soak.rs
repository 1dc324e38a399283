//! `cargo xtask soak`: a long run of the quickstart's model, and whether memory, open files or the time of a step grow.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: cargo xtask soak [--minutes N]";

/// Between two looks.
const LOOK: Duration = Duration::from_secs(30);

/// One look at the run.
struct Sample {
    hours: f64,
    resident_mib: f64,
    files: f64,
    steps: f64,
}

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let minutes: u64 = match arguments {
        [] => 120,
        ["--minutes", minutes] => minutes.parse().map_err(|_| USAGE.to_owned())?,
        _ => return Err(USAGE.to_owned()),
    };
    let built = Command::new(crate::cargo())
        .current_dir(root)
        .args(["build", "--release", "--package", "prospect"])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the program does not build".to_owned());
    }
    let out = root.join("target/soak");
    let _ = std::fs::remove_dir_all(&out); // of the soak before
    let mut program = Command::new(root.join("target/release/prospect"));
    program.current_dir(root).args(["train", "recipes/quickstart.toml"]);
    // More steps than fit into the time; each is planned before the first.
    let steps = 3000 * minutes;
    for set in ["train.save_every=20", "train.eval_every=0", &format!("train.max_steps={steps}")] {
        program.args(["--set", set]);
    }
    program.arg("--set").arg(format!("output={}", out.display()));
    let mut run = program
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start the program: {error}"))?;
    let samples = watch(&mut run, &out, Duration::from_secs(60 * minutes));
    // The first signal has it save and end.
    let _ = Command::new("kill").args(["-TERM", &run.id().to_string()]).status();
    let ended = run.wait().map_err(|error| error.to_string())?;
    report(&samples?);
    match ended.code() {
        Some(143) => Ok(()),
        code => Err(format!("the run ended with {code:?}, expected 143")),
    }
}

fn watch(run: &mut Child, out: &Path, time: Duration) -> Result<Vec<Sample>, String> {
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        std::thread::sleep(LOOK);
        if let Ok(Some(status)) = run.try_wait() {
            return Err(format!("the run ended by itself: {status}"));
        }
        let process = format!("/proc/{}", run.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = resident
            .and_then(|text| text.trim().strip_suffix("kB")?.trim().parse().ok())
            .ok_or("the process does not say what it holds")?;
        let files = std::fs::read_dir(format!("{process}/fd")).map_or(0, Iterator::count);
        let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
        let sample = Sample {
            hours: start.elapsed().as_secs_f64() / 3600.0,
            resident_mib: kib / 1024.0,
            files: files as f64,
            steps: metrics.lines().count() as f64,
        };
        println!(
            "{:6.1} min  {:8.2} MiB  {:3} files  {:7} steps",
            60.0 * sample.hours,
            sample.resident_mib,
            sample.files,
            sample.steps
        );
        samples.push(sample);
    }
    Ok(samples)
}

/// Slopes over the last nine tenths: the first warms up.
fn report(samples: &[Sample]) {
    let warm = &samples[samples.len() / 10..];
    let paces: Vec<(f64, f64)> = warm
        .windows(2)
        .filter(|pair| pair[1].steps > pair[0].steps)
        .map(|pair| {
            let seconds = 3600.0 * (pair[1].hours - pair[0].hours);
            (pair[1].hours, 1e3 * seconds / (pair[1].steps - pair[0].steps))
        })
        .collect();
    let of = |value: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        warm.iter().map(|sample| (sample.hours, value(sample))).collect()
    };
    println!("memory   {:+.3} MiB an hour", slope(&of(|sample| sample.resident_mib)));
    println!("files    {:+.3} an hour", slope(&of(|sample| sample.files)));
    println!("a step   {:+.3} ms an hour, of {:.1} ms", slope(&paces), mean(&paces));
}

fn mean(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|(_, y)| y).sum::<f64>() / points.len().max(1) as f64
}

/// Of the line through the points by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let middle = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let (mean, mut products, mut squares) = (mean(points), 0.0, 0.0);
    for (x, y) in points {
        products += (x - middle) * (y - mean);
        squares += (x - middle).powi(2);
    }
    if squares > 0.0 { products / squares } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_found_and_that_of_a_point_is_none() {
        let line: Vec<(f64, f64)> =
            (0..10).map(|i| (f64::from(i), 3.0 - 2.0 * f64::from(i))).collect();
        assert!((slope(&line) + 2.0).abs() < 1e-12);
        assert_eq!(slope(&line[..1]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }
}
