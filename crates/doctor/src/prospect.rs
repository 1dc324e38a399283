//! Prospect's own needs: CUDA usable, kernels compiled by the driver, cuBLASLt and NCCL found, and what the CPU of this
//! machine trains. The engine itself is asked by the program, which hands the answers in; of a machine that is only
//! described, files tell where the libraries lie.

use crate::facts::{Machine, exists, names};
use crate::python::Environment;
use crate::table::{Scope, Table, Value};
use std::path::{Path, PathBuf};

const ENGINE: &str = "Prospect's engine";
const PLANNER: &str = "Prospect's planner";
const GIB: f64 = (1u64 << 30) as f64;

/// What the program knows that has the engine and the planner.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// The GPU opened by the engine, or why it could not be, though a driver shows one; none where there is no GPU.
    pub gpu: Option<Result<Opened, String>>,
    /// What models of published shapes take, the smallest first.
    pub sizes: Vec<Size>,
    /// Under what assumption the sizes hold, in words.
    pub assumption: String,
    /// Floating-point operations a second of this CPU's matrix products, measured just now.
    pub cpu_flops: Option<f64>,
    /// The results of `--self-test`.
    pub self_tests: Vec<SelfTest>,
}

/// A GPU that the engine opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// How long driver, context and library took, in seconds.
    pub open_seconds: f64,
    /// Files of kernels that the driver compiled, and kernels in them.
    pub modules: usize,
    /// Kernels in them.
    pub kernels: usize,
    /// How long that took, in seconds, or why the driver refused.
    pub compiled: Result<f64, String>,
    /// cuBLASLt's version and file, or why Prospect's own products are taken.
    pub cublaslt: Result<(String, String), String>,
    /// Every place it is looked for, in order, with what is there.
    pub places: Vec<(String, String)>,
    /// NCCL's version and file, or where it was looked for; none where there is one GPU.
    pub nccl: Option<Result<(String, String), String>>,
}

/// What a model of a published shape takes.
#[derive(Clone, Debug)]
pub struct Size {
    /// The model.
    pub name: String,
    /// Its parameters, in billions.
    pub billions: f64,
    /// Memory it takes on the CPU, in GiB.
    pub cpu_gib: f64,
    /// Memory it takes on a GPU, in GiB, CUDA's own context aside.
    pub gpu_gib: f64,
    /// Floating-point operations of a rated token.
    pub flops_per_token: f64,
}

/// The result of one component's self-test.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// What was tested and on what, such as `gemm (CPU)`.
    pub component: String,
    /// Whether it agrees with its reference.
    pub passed: bool,
    /// The difference from the reference, or why the test could not run.
    pub error: String,
    /// Its speed in words, such as `612 TFLOP/s`, where it was measured.
    pub speed: Option<String>,
    /// Its speed as a share of the card's figure, 0 to 1, where the card is known.
    pub share_of_peak: Option<f64>,
}

/// CUDA's context and cuBLASLt hold about this much of a GPU's memory beside what a plan counts.
const CONTEXT_GIB: f64 = 0.8;
/// A plan may take this share of what a host has available.
const SHARE: f64 = 0.9;

/// Adds what Prospect would use on this machine.
pub fn gather(
    machine: &dyn Machine,
    environment: Option<&Environment>,
    engine: &Engine,
    table: &mut Table,
) {
    match &engine.gpu {
        Some(Ok(opened)) => add_opened(opened, &mut table.all),
        Some(Err(why)) => table.all.text("engine.error", why, ENGINE),
        None => libraries(machine, environment, &mut table.all),
    }
    add_sizes(engine, &mut table.all);
    for test in &engine.self_tests {
        let path = "prospect doctor --self-test";
        let mut scope = Scope::default();
        scope.text("self-test.component", &test.component, path);
        scope.flag("self-test.passed", test.passed, path);
        scope.text("self-test.error", &test.error, path);
        if let Some(speed) = &test.speed {
            scope.text("self-test.speed", speed, path);
        }
        if let Some(share) = test.share_of_peak {
            scope.number("self-test.percent_of_peak", share * 100.0, path);
        }
        table.add("self-test", scope);
    }
}

fn add_opened(opened: &Opened, all: &mut Scope) {
    all.number("engine.open_ms", opened.open_seconds * 1e3, ENGINE);
    match &opened.compiled {
        Ok(seconds) => {
            all.number("engine.modules", opened.modules as f64, ENGINE);
            all.number("engine.kernels", opened.kernels as f64, ENGINE);
            all.number("engine.compile_ms", seconds * 1e3, ENGINE);
        }
        Err(why) => all.text("engine.error", why, ENGINE),
    }
    let libraries = [("cublaslt", Some(&opened.cublaslt)), ("nccl", opened.nccl.as_ref())];
    for (name, found) in libraries {
        match found {
            Some(Ok((version, path))) => {
                all.text(name, path, path);
                all.text(&format!("{name}.version"), version, path);
            }
            Some(Err(why)) => all.text(&format!("{name}.missing"), why, ENGINE),
            None => {}
        }
    }
    let told = opened.places.iter().map(|(place, says)| format!("{place}: {says}"));
    all.list("cublaslt.places", told.collect(), ENGINE);
}

fn number(all: &Scope, name: &str) -> Option<f64> {
    match all.get(name).map(|f| &f.value) {
        Some(Value::Number(n)) => Some(*n),
        _ => None,
    }
}

fn add_sizes(engine: &Engine, all: &mut Scope) {
    let available = number(all, "host.available_gib")
        .map(|m| number(all, "cgroup.limit_gib").map_or(m, |limit| m.min(limit)));
    let fits = |size: &&Size| available.is_some_and(|gib| size.cpu_gib <= SHARE * gib);
    if let Some(largest) = engine.sizes.iter().rev().find(fits) {
        all.text("cpu.largest", &largest.name, PLANNER);
        all.number("cpu.largest_billions", largest.billions, PLANNER);
        all.number("cpu.largest_gib", largest.cpu_gib, PLANNER);
    }
    if let Some(flops) = engine.cpu_flops.filter(|_| !engine.sizes.is_empty()) {
        all.number("cpu.gflops", flops / 1e9, "a matrix product, measured now");
        let speeds =
            engine.sizes.iter().filter(fits).map(|size| {
                format!("{} {}", size.name, about(flops / size.flops_per_token.max(1.0)))
            });
        all.list("cpu.tokens_per_second", speeds.collect(), PLANNER);
    }
    let mut cards: Vec<String> = Vec::new();
    let mut last = "";
    for gb in [8.0, 12.0, 16.0, 24.0, 80.0] {
        let size = engine.sizes.iter().rev().find(|size| size.gpu_gib <= gb - CONTEXT_GIB);
        if let Some(size) = size.filter(|size| size.name != last) {
            cards.push(format!("{gb:.0} GB {}", size.name));
            last = &size.name;
        }
    }
    if !cards.is_empty() {
        all.list("gpu.trains", cards, PLANNER);
        all.text("sizes.assumption", &engine.assumption, PLANNER);
    }
}

/// A rate without false precision: one digit, two where it is large.
fn about(rate: f64) -> String {
    match rate {
        r if r >= 100.0 => format!("{:.0}", (r / 10.0).round() * 10.0),
        r if r >= 1.0 => format!("{r:.0}"),
        r if r < 0.1 => "under 0.1".into(),
        r => format!("{r:.1}"),
    }
}

/// What a model takes, as text that a person reads: `14.8 GiB`.
pub fn gib(bytes: usize) -> f64 {
    bytes as f64 / GIB
}

fn libraries(machine: &dyn Machine, environment: Option<&Environment>, all: &mut Scope) {
    let thirteen =
        crate::rules::expression::parse("driver.cuda >= 13").is_ok_and(|e| e.holds(&[&*all]));
    for (fact, stem, majors) in [
        ("cublaslt", "libcublasLt.so.", if thirteen { &["13", "12"][..] } else { &["12"][..] }),
        ("nccl", "libnccl.so.", &["2"][..]),
    ] {
        if let Some(path) = library(machine, environment, stem, majors) {
            all.text(fact, path.display().to_string(), path.display().to_string());
        }
    }
}

/// Where Prospect's loader would find a CUDA library: Prospect's cache, the loader's path, a CUDA toolkit, conda, the
/// wheels of a Python environment.
fn library(
    machine: &dyn Machine,
    environment: Option<&Environment>,
    stem: &str,
    majors: &[&str],
) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let cache = machine
        .variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| machine.variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
    folders.extend(cache.map(|cache| cache.join("prospect/lib")));
    let paths = machine.variable("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(paths.split(':').filter(|p| p.starts_with('/')).map(PathBuf::from));
    folders
        .extend(["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib"].map(PathBuf::from));
    for name in
        names(machine, Path::new("/usr/local")).into_iter().filter(|n| n.starts_with("cuda"))
    {
        folders.push(Path::new("/usr/local").join(name).join("lib64"));
    }
    if let Some(prefix) = machine.variable("CONDA_PREFIX") {
        folders.push(PathBuf::from(prefix).join("lib"));
    }
    for site in environment.iter().flat_map(|e| &e.sites) {
        folders.extend(
            ["cublas", "cu13", "nccl"].map(|n| site.folder.join("nvidia").join(n).join("lib")),
        );
    }
    majors.iter().find_map(|major| {
        let file = format!("{stem}{major}");
        folders.iter().map(|f| f.join(&file)).find(|p| exists(machine, p))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        let size = |name: &str, billions: f64| Size {
            name: name.into(),
            billions,
            cpu_gib: billions,
            gpu_gib: billions * 0.9,
            flops_per_token: 8e9 * billions,
        };
        Engine {
            sizes: vec![size("tiny", 0.5), size("middle", 8.0), size("large", 30.0)],
            assumption: "one at a time".into(),
            cpu_flops: Some(80e9),
            ..Engine::default()
        }
    }

    #[test]
    fn the_largest_model_is_the_last_whose_plan_fits_what_is_available() {
        for (available, limit, largest) in
            [(9.0, None, Some("middle")), (9.0, Some(4.0), Some("tiny")), (0.5, None, None)]
        {
            let mut all = Scope::default();
            all.number("host.available_gib", available, "x");
            if let Some(limit) = limit {
                all.number("cgroup.limit_gib", limit, "x");
            }
            add_sizes(&engine(), &mut all);
            assert_eq!(all.get("cpu.largest").map(|f| f.shown()).as_deref(), largest);
            let cards = all.get("gpu.trains").map(|f| f.shown()).unwrap_or_default();
            assert!(cards == "8 GB middle 80 GB large", "{cards}");
        }
    }

    #[test]
    fn a_speed_is_told_of_what_fits_alone() {
        let mut all = Scope::default();
        all.number("host.available_gib", 9.0, "x");
        add_sizes(&engine(), &mut all);
        let told = all.get("cpu.tokens_per_second").map(|f| f.shown());
        assert_eq!(told.as_deref(), Some("tiny 20 middle 1"));
    }
}
