//! `prospect tune` on the GPU that computes nothing, whose library of products is `blas.c`: what is measured, what runs
//! make of the table, and what becomes of one that cannot be used.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use crate::gpu::{self, ON_GPU, driver, said};
use crate::place::Place;

const NAME: &str = "a-GPU-that-computes-nothing_cublaslt-12.2.5.txt";

/// A place with a cache of its own.
struct Tuning {
    place: Place,
}

impl Tuning {
    /// None where there is no C compiler.
    fn new() -> Option<Tuning> {
        driver().map(|_| Tuning { place: Place::new() })
    }

    fn folder(&self) -> PathBuf {
        self.place.path("cache/prospect/tuned")
    }

    fn table(&self) -> PathBuf {
        self.folder().join(NAME)
    }

    fn run(&self, arguments: &str, more: &[(&str, &str)]) -> Output {
        let library = driver().unwrap().join("libcuda.so.1").display().to_string();
        let (cache, launches) = (self.place.path("cache"), self.place.path("launches"));
        let (cache, launches) = (cache.display().to_string(), launches.display().to_string());
        let mut variables = vec![
            ("PROSPECT_GEMM", "cublaslt"),
            ("PROSPECT_CUBLASLT", &library),
            ("XDG_CACHE_HOME", &cache),
            ("BLAS_LAUNCHES", &launches),
        ];
        variables.extend(more);
        gpu::run(&self.place, &format!("{arguments}{ON_GPU}"), &variables).unwrap()
    }

    fn well(&self, arguments: &str, more: &[(&str, &str)]) -> String {
        let output = self.run(arguments, more);
        assert!(output.status.success(), "{arguments}\n{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn train(&self, output: &str, more: &[(&str, &str)]) {
        self.well(
            &format!("train recipe.toml --set train.max_steps=2 --set output={output}"),
            more,
        );
    }

    /// Products by each answer of the heuristic in the last run.
    fn launches(&self) -> Vec<usize> {
        self.place.read("launches").split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    /// What computed a run, as it is written down.
    fn computed(&self, output: &str) -> String {
        self.place.json(&format!("{output}/run.json"))["machine"].as_str().unwrap().to_owned()
    }
}

#[test]
fn what_was_tuned_is_what_runs_take_until_it_cannot_be_used() {
    let Some(tuning) = Tuning::new() else { return };
    tuning.train("before", &[]);
    let untuned = tuning.computed("before");
    assert!(untuned.contains("cuBLASLt 12.2.5 from") && !untuned.contains("tuned"), "{untuned}");
    assert_eq!(tuning.launches()[1..], [0, 0, 0], "only the heuristic's first answers");

    let shown = tuning.well("tune recipe.toml --steps 2", &[]);
    assert!(!tuning.place.path("run").exists(), "a run folder is made");
    // The fourth answer is the third that can be used; it is taken where it is more than 1 % faster.
    let of = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let words =
        |line: String| line.split_whitespace().rev().take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(of("forward"))[1..], ["3", "%", "-20.0", "8.0", "10.0"], "{shown}");
    assert_eq!(words(of("backward_weight"))[1..5], ["1", "same", "10.0", "10.0"], "{shown}");
    assert!(shown.contains("products of a step: ") && shown.contains(" ms after (-"), "{shown}");
    let table = fs::read_to_string(tuning.table()).unwrap();
    assert_eq!(fs::read_dir(tuning.folder()).unwrap().count(), 1);
    let hash = &table.lines().last().unwrap()["sha256 ".len()..][..8];
    let shapes = table.lines().count() - 7;
    assert!(shapes > 3, "{table}");

    tuning.train("tuned", &[]);
    let tuned = tuning.computed("tuned");
    assert!(tuned.ends_with(&format!(", tuned choices {hash} ({shapes} shapes))")), "{tuned}");
    let launches = tuning.launches();
    assert!(launches[0] > 0 && launches[3] > 0, "{launches:?}");
    // A run that began without is not gone on with.
    let resumed =
        tuning.run("train recipe.toml --set train.max_steps=2 --set output=before --resume", &[]);
    assert_eq!(resumed.status.code(), Some(2), "{}", said(&resumed));
    assert!(said(&resumed).contains("tuned choices"), "{}", said(&resumed));

    // The library does not take them: the heuristic's.
    tuning.train("refused", &[("BLAS_REFUSES", "1")]);
    assert_eq!(tuning.launches()[1..], [0, 0, 0]);

    // Half a table is none.
    fs::write(tuning.table(), &table[..table.len() / 2]).unwrap();
    tuning.train("half", &[]);
    let half = tuning.computed("half");
    assert!(half.contains("passed over: it is cut off"), "{half}");
    assert_eq!(tuning.launches()[1..], [0, 0, 0]);

    // Tuned anew, it is the same; of more steps, it is another, and the one before is kept.
    tuning.well("tune recipe.toml --steps 2", &[]);
    assert_eq!(fs::read_to_string(tuning.table()).unwrap(), table);
    fs::write(tuning.table(), &table).unwrap();
    let shown = tuning
        .well("tune recipe.toml --steps 2 --set data.max_length=12 --set train.batch_size=8", &[]);
    let kept = tuning.folder().join(NAME.replace(".txt", &format!(".{hash}.txt")));
    assert_eq!(fs::read_to_string(kept).unwrap(), table, "{shown}");
    assert!(shown.contains("the choices before are kept in"), "{shown}");
}

#[test]
fn what_cannot_be_tuned_says_why_and_writes_nothing() {
    let Some(tuning) = Tuning::new() else { return };
    let nowhere = tuning.place.path("nowhere").display().to_string();
    let file = tuning.place.path("recipe.toml").display().to_string();
    for (variable, value, code, words) in [
        (
            "PROSPECT_GEMM",
            "own",
            1,
            "error: there is nothing to tune, Prospect's own kernels compute: PROSPECT_GEMM is own\n  hint: unset PROSPECT_GEMM",
        ),
        ("PROSPECT_CUBLASLT", &nowhere, 2, "PROSPECT_GEMM is cublaslt, but cuBLASLt not found"),
        ("XDG_CACHE_HOME", &file, 1, "error: cannot write the table of choices: "),
        ("GPU_LOST_AT", "400", 1, "hint: the GPU stopped working"),
    ] {
        let output = tuning.run("tune recipe.toml", &[(variable, value)]);
        assert_eq!(output.status.code(), Some(code), "{variable}: {}", said(&output));
        assert!(said(&output).contains(words), "{variable}: {}", said(&output));
        assert!(!tuning.folder().exists() && !tuning.place.path("run").exists(), "{variable}");
    }
}
