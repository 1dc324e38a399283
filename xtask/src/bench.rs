//! `cargo xtask bench`: Prospect and TRL on the same cores, the same model and the same batches, in turn.
//!
//! The model and the data are made by `xtask/bench/trl_kto.py`, which also trains with TRL: with its defaults
//! (activation checkpointing) and without. What is counted is the same for all: prompt and completion tokens of the
//! rated examples, without padding and KL sequences, over whole steps.

use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "\
usage: cargo xtask bench --python PYTHON [--out DIR] [--steps N] [--rounds N]

  PYTHON  an interpreter with torch, transformers, trl and peft (see xtask/bench/trl_kto.py)";

/// What is measured, and how it is called in the table.
const CONTESTANTS: [&str; 3] = ["Prospect", "TRL, its defaults", "TRL without checkpointing"];

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let value = |flag: &str| {
        arguments.iter().position(|a| *a == flag).and_then(|at| arguments.get(at + 1).copied())
    };
    let python = value("--python").ok_or(USAGE)?;
    let out = value("--out").map_or_else(|| root.join("target/bench"), PathBuf::from);
    let number = |flag: &str, default: usize| {
        value(flag).map_or(Ok(default), |text| text.parse().map_err(|_| USAGE.to_owned()))
    };
    let (steps, rounds) = (number("--steps", 6)?, number("--rounds", 2)?);
    let script = root.join("xtask/bench/trl_kto.py");
    if !out.join("adapter").exists() {
        std::fs::create_dir_all(&out).map_err(|error| error.to_string())?;
        output(Command::new(python).arg(&script).arg("make").arg(&out))?;
    }
    output(Command::new(crate::cargo()).current_dir(root).args([
        "build",
        "--release",
        "--package",
        "prospect",
    ]))?;
    let program = root.join("target/release/prospect");
    let mut rates = vec![Vec::new(); CONTESTANTS.len()];
    for round in 0..rounds {
        for (contestant, rates) in rates.iter_mut().enumerate() {
            let rate = if contestant == 0 {
                prospect(&program, &out, steps, round)?
            } else {
                trl(python, &script, &out, steps, contestant == 1)?
            };
            println!("round {}: {}: {rate:.0} rated tokens/s", round + 1, CONTESTANTS[contestant]);
            rates.push(rate);
        }
    }
    println!("\n| | rated tokens/s, median of {rounds} | Prospect is faster by |\n|---|---|---|");
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    for (name, rate) in CONTESTANTS.iter().zip(&medians) {
        println!("| {name} | {rate:.0} | {:.2} x |", medians[0] / rate);
    }
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// The same batches as TRL's: its order, its group of eight, its length.
fn prospect(program: &Path, out: &Path, steps: usize, round: usize) -> Result<f64, String> {
    let run = out.join(format!("run-{round}"));
    let _ = std::fs::remove_dir_all(&run); // of an earlier call
    let recipe = format!(
        "output = \"{}\"\n[model]\npath = \"model\"\n[adapter]\nr = 16\nlora_alpha = 16\n[data]\ntrain = \"feedback.jsonl\"\nmax_length = 512\norder = \"sequential\"\n[optimizer]\nlearning_rate = 1e-5\n[train]\nmax_steps = {steps}\nbatch_size = 8\ndevice = \"cpu\"\n",
        run.display()
    );
    let path = out.join("recipe.toml");
    std::fs::write(&path, recipe).map_err(|error| error.to_string())?;
    output(Command::new(program).arg("train").arg(&path))?;
    let summary =
        std::fs::read_to_string(run.join("summary.json")).map_err(|error| error.to_string())?;
    field(&summary, "rated_tokens_per_second")
}

fn trl(
    python: &str,
    script: &Path,
    out: &Path,
    steps: usize,
    checkpointing: bool,
) -> Result<f64, String> {
    let mut command = Command::new(python);
    // One more step: the first is not counted there.
    command.arg(script).arg("train").arg(out).args(["--steps", &(steps + 1).to_string()]);
    if checkpointing {
        command.arg("--checkpointing");
    }
    let text = output(&mut command)?;
    let last = text
        .lines()
        .rev()
        .find(|line| line.starts_with('{') && line.contains("rated_tokens_per_second"));
    field(last.ok_or("TRL printed no result")?, "rated_tokens_per_second")
}

/// A number of a flat JSON object.
fn field(json: &str, name: &str) -> Result<f64, String> {
    let missing = || format!("no {name} in {json}");
    let rest = json.split_once(&format!("\"{name}\":")).ok_or_else(missing)?.1;
    let number: String =
        rest.trim_start().chars().take_while(|c| !matches!(c, ',' | '}' | '\n')).collect();
    number.trim().parse().map_err(|_| missing())
}

/// What a command prints; its own words where it fails.
fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&done.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_pretty_and_plain_json() {
        assert_eq!(field("{\n  \"a\": 1,\n  \"rate\": 2.5\n}", "rate"), Ok(2.5));
        assert_eq!(field("{\"rate\": 3, \"b\": 4}", "rate"), Ok(3.0));
        assert!(field("{}", "rate").is_err());
    }
}
