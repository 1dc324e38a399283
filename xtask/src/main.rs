//! Tasks of the repository: `cargo xtask TASK`.

#![allow(clippy::print_stdout, reason = "a task speaks to the person who started it")]

mod bench;
mod docs;
mod exports;
mod faults;
mod gpu_bundle;
mod kernels;
mod quickstart;
mod random_model;
mod soak;
mod tidy;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

  tidy    check formatting, lints, licences, the shape of the repository and its documents
  docs    write the generated documents: docs/recipes.md, docs/cli.md
  kernels [--nvrtc FOLDER]
          compile the kernels to PTX with NVRTC 12.2, from FOLDER or from PyPI
  bench   measure Prospect and TRL side by side on this machine's cores
  exports [--shape SHAPE] [--layers N] [--program FILE]
          measure merging an adapter and writing GGUF, time and memory, on a model of random weights (7b)
  faults  inject every fault and give every hostile input, and print the counts
  soak [--minutes N]
          a long run of the quickstart's model: do memory, open files or the time of a step grow?
  quickstart [--pretrain]
          make the quickstart's data, tokenizer and untrained model; with --pretrain train it, too
  gpu-bundle [--data FOLDER] [--tokenizer FOLDER] OUT
          gather the program, the GPU tests and the benchmarks for a machine with a GPU and no Rust
  random-model --shape SHAPE OUT
          write a checkpoint of random weights, for benchmarks without downloads";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let done = match arguments[..] {
        ["tidy"] => tidy::run(&root),
        ["docs"] => docs::run(&root),
        ["kernels", ..] => kernels::run(&root, &arguments[1..]),
        ["gpu-bundle", ..] => gpu_bundle::run(&root, &arguments[1..]),
        ["random-model", ..] => random_model::run(&arguments[1..]),
        ["bench", ..] => bench::run(&root, &arguments[1..]),
        ["exports", ..] => exports::run(&root, &arguments[1..]),
        ["faults"] => faults::run(&root),
        ["soak", ..] => soak::run(&root, &arguments[1..]),
        ["quickstart", ..] => quickstart::run(&root, &arguments[1..]),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The cargo that runs this task.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The root of the repository, from wherever in it the task was started.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from("."))
}
