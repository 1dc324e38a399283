//! Faults: a run is killed, its disk fills up, fails, lies or is slow, its files are damaged, the clock jumps. After
//! each, what the README promises must hold.
//!
//! Bounded here; `cargo xtask faults` does all of it (`PROSPECT_FAULTS=full`) and prints the counts.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "counts are told, and what is skipped"
)]

mod damage;
mod disk;
mod gpu;
#[allow(dead_code, reason = "shared with the program's other tests, which need the rest")]
#[path = "../program/place.rs"]
mod place;
mod tune;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

use crate::place::Place;

/// The run that is disturbed: eight checkpoints in half a second.
pub(crate) const TRAIN: &str =
    "train recipe.toml --set train.max_steps=24 --set train.save_every=3 --set train.eval_every=9";

/// What must be the same whatever happened on the way.
const RESULT: [&str; 4] = [
    "run/adapter/adapter_model.safetensors",
    "run/adapter/adapter_config.json",
    "run/metrics.jsonl",
    "run/answers.json",
];

/// Whether all faults are injected, or as many as a test has time for.
pub(crate) fn full() -> bool {
    std::env::var("PROSPECT_FAULTS").is_ok_and(|value| value == "full")
}

/// `whole` of what is done in full, `some` of it in a test.
pub(crate) fn share(some: usize, whole: usize) -> usize {
    if full() { whole } else { some }
}

/// The result of a run that nobody disturbed.
fn undisturbed() -> &'static BTreeMap<&'static str, Vec<u8>> {
    static RESULTS: OnceLock<BTreeMap<&'static str, Vec<u8>>> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let place = Place::new();
        place.well(TRAIN);
        let read = |name: &&'static str| {
            assert!(place.path(name).exists(), "{name}");
            (*name, place.tidy(&result(&place, name)).into())
        };
        RESULT.iter().map(read).collect()
    })
}

/// A file of the result with every byte visible; it may hold the place's path.
fn result(place: &Place, name: &str) -> String {
    let bytes = fs::read(place.path(name)).unwrap_or_default();
    bytes.into_iter().map(char::from).collect()
}

/// The disk that fails, compiled once; none where there is no C compiler.
fn layer() -> Option<&'static Path> {
    static LAYER: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let built = LAYER.get_or_init(|| compiled("disk.c", "disk.so"));
    built.as_ref().map(|(_, library)| library.as_path())
}

/// A source of this folder as a library in a folder of its own; none where there is no C compiler.
pub(crate) fn compiled(source: &str, library: &str) -> Option<(TempDir, PathBuf)> {
    let folder = TempDir::new().unwrap();
    let library = folder.path().join(library);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults").join(source);
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(&path);
    match cc.arg("-ldl").status() {
        Ok(status) => assert!(status.success(), "{source} does not compile"),
        Err(error) => {
            eprintln!("skipped: no C compiler to build {source} with: {error}");
            return None;
        }
    }
    Some((folder, library))
}

/// A place whose disk fails as the variables say.
pub(crate) struct Disturbed {
    pub(crate) place: Place,
}

impl Disturbed {
    pub(crate) fn new() -> Disturbed {
        Disturbed { place: Place::new() }
    }

    /// The program on the failing disk; none where there is no layer.
    pub(crate) fn command(&self, arguments: &str, faults: &[(&str, &str)]) -> Option<Command> {
        let here = self.place.path(".").canonicalize().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_prospect"));
        command.args(arguments.split_whitespace()).current_dir(&here);
        command
            .env("NO_COLOR", "1")
            .env("CUDA_VISIBLE_DEVICES", "")
            .env("LD_PRELOAD", layer()?)
            .env("FAULTS_UNDER", here.join("run"));
        command.env("FAULTS_COUNT", here.join("count")).stdin(Stdio::null());
        command.envs(faults.iter().copied());
        Some(command)
    }

    /// Runs it to its end; none where there is no layer.
    pub(crate) fn run(&self, faults: &[(&str, &str)]) -> Option<Output> {
        Some(self.command(TRAIN, faults)?.output().unwrap())
    }

    /// How many calls changed the run's folder in the last run.
    pub(crate) fn calls(&self) -> usize {
        self.place.read("count").parse().unwrap()
    }

    /// Goes on after a fault, or starts anew if the run never began, to its end, and compares every byte.
    pub(crate) fn go_on(&self, what: &str) -> Result<(), String> {
        let begun = self.place.path("run/recipe.toml").exists();
        let resume = if begun { " --resume" } else { "" };
        let came = self.place.run(&format!("{TRAIN}{resume}"));
        if came.code != Some(0) {
            return Err(format!("{what}: going on failed\n{}", came.stderr));
        }
        self.compare(what)
    }

    /// Whether a file of the result is that of an undisturbed run.
    pub(crate) fn compare_one(&self, name: &str) -> bool {
        self.place.tidy(&result(&self.place, name)).as_bytes() == undisturbed()[name]
    }

    /// Compares the result with that of an undisturbed run.
    pub(crate) fn compare(&self, what: &str) -> Result<(), String> {
        for name in RESULT {
            if !self.compare_one(name) {
                return Err(format!("{what}: {name} differs"));
            }
        }
        match leftovers(&self.place.path("run")).first() {
            Some(left) => Err(format!("{what}: {left} is left half-written")),
            None => Ok(()),
        }
    }
}

/// Files and folders that were being written.
pub(crate) fn leftovers(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.path().display().to_string();
        if name.ends_with(".tmp") {
            found.push(name);
        } else if entry.path().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

/// A run that ended badly must have ended with words: not by a signal, not by a panic, with a hint.
pub(crate) fn ended_with_words(what: &str, output: &Output) -> Result<(), String> {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1 | 2)
            if said.contains("error: ")
                && said.contains("\n  hint: ")
                && !said.contains("Prospect failed where it should not") =>
        {
            Ok(())
        }
        code => Err(format!("{what}: ended with {code:?}\n{said}")),
    }
}

/// Does every job on two threads; all that failed fail the test together.
pub(crate) fn all<T: Sync>(what: &str, jobs: &[T], job: impl Fn(&T) -> Result<(), String> + Sync) {
    undisturbed();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = job(item) {
                        failed.lock().unwrap().push(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("{what}: {} injected, {} survived", jobs.len(), jobs.len() - failed.len());
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), jobs.len(), failed.join("\n"));
}

/// Numbers that look random and are the same every time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}
