//! `cargo xtask gpu-bundle OUT`: the program, the GPU tests and the benchmarks in one folder, for a machine with a GPU and
//! without Rust. `OUT/run.sh` says what it can do there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const USAGE: &str = "\
usage: cargo xtask gpu-bundle [--data FOLDER] [--tokenizer FOLDER] OUT

  --data       JSONL files of feedback to measure with: natural.jsonl, fixed.jsonl, hh.jsonl
  --tokenizer  the tokenizer they are read with; without both there are tests alone";

/// Packages and their test programs that have tests for a GPU, under the names they get.
const TESTS: [(&str, &[&str], &str); 3] = [
    ("prospect-engine", &["--lib"], "engine-tests"),
    ("prospect-models", &["--lib"], "model-tests"),
    ("prospect-train", &["--test", "parity"], "run-tests"),
];

pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (mut data, mut tokenizer, mut out) = (None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--data" => data = rest.next(),
            "--tokenizer" => tokenizer = rest.next(),
            folder if !folder.starts_with('-') => out = Some(folder),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let Some(out) = out.map(Path::new) else { return Err(USAGE.to_owned()) };
    let failed = |error: std::io::Error| format!("cannot write '{}': {error}", out.display());
    std::fs::create_dir_all(out).map_err(failed)?;
    for (package, name) in [("prospect", "prospect"), ("xtask", "xtask")] {
        let programs = build(root, &["build", "--release", "--package", package])?;
        put(&programs, out, name)?;
    }
    for (package, which, name) in TESTS {
        let mut arguments = vec!["test", "--release", "--no-run", "--package", package];
        arguments.extend(which);
        put(&build(root, &arguments)?, out, name)?;
    }
    for fixtures in ["fixtures/kto", "fixtures/models"] {
        copy(&root.join(fixtures), &out.join(fixtures)).map_err(failed)?;
    }
    for (from, to) in [(data, "data"), (tokenizer, "tokenizer")] {
        if let Some(from) = from {
            copy(Path::new(from), &out.join(to)).map_err(failed)?;
        }
    }
    std::fs::write(out.join("kto.toml"), include_str!("gpu_bundle/kto.toml")).map_err(failed)?;
    let flash = include_str!("../bench/flash_attention.py");
    std::fs::write(out.join("flash_attention.py"), flash).map_err(failed)?;
    std::fs::write(out.join("run.sh"), include_str!("gpu_bundle/run.sh")).map_err(failed)?;
    println!("on the machine with the GPU: bash {}/run.sh", out.display());
    Ok(())
}

/// Builds, and gives the programs that came of it.
fn build(root: &Path, arguments: &[&str]) -> Result<Vec<PathBuf>, String> {
    let output = Command::new(crate::cargo())
        .current_dir(root)
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {} failed", arguments.join(" ")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect())
}

/// Copies the one program that was built, without its symbols.
fn put(programs: &[PathBuf], out: &Path, name: &str) -> Result<(), String> {
    let [program] = programs else {
        return Err(format!("{} programs were built for {name}, expected one", programs.len()));
    };
    let to = out.join(name);
    std::fs::copy(program, &to).map_err(|error| format!("cannot copy {name}: {error}"))?;
    // What is not stripped is only larger.
    let _ = Command::new("strip").arg(&to).status();
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
