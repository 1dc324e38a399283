//! Prospect's own needs: CUDA usable, cuBLASLt and NCCL found, or what the CPU of this machine can do.

use crate::facts::{Machine, exists, names};
use crate::python::Environment;
use crate::table::Table;
use std::path::{Path, PathBuf};

/// Adds what Prospect would use on this machine.
pub fn gather(machine: &dyn Machine, environment: Option<&Environment>, table: &mut Table) {
    let thirteen =
        crate::rules::expression::parse("driver.cuda >= 13").is_ok_and(|e| e.holds(&[&table.all]));
    for (fact, stem, majors) in [
        ("cublaslt", "libcublasLt.so.", if thirteen { &["13", "12"][..] } else { &["12"][..] }),
        ("nccl", "libnccl.so.", &["2"][..]),
    ] {
        if let Some(path) = library(machine, environment, stem, majors) {
            table.all.text(fact, path.display().to_string(), path.display().to_string());
        }
    }
    let all = &mut table.all;
    let gib = |name: &str| match all.get(name).map(|f| &f.value) {
        Some(crate::table::Value::Number(n)) => Some(*n),
        _ => None,
    };
    let memory = gib("host.available_gib");
    let memory = memory.map(|m| gib("cgroup.limit_gib").map_or(m, |limit| m.min(limit)));
    if let Some(memory) = memory {
        all.number("cpu.largest_b", largest_on_cpu(memory), "computed");
    }
}

/// The largest model, in billions of parameters, that trains on the CPU in this much memory: NF4 weights at 0.516
/// bytes a parameter, embeddings, adapter and activations of one sequence of 1,024 tokens, taken together as 0.9
/// bytes a parameter, and 1.5 GiB for everything else.
fn largest_on_cpu(available_gib: f64) -> f64 {
    let bytes = (available_gib - 1.5).max(0.0) * (1u64 << 30) as f64;
    let billions = bytes / 0.9 / 1e9;
    // Sizes people publish: the answer is one of them, not a figure with false precision.
    [70.0, 32.0, 14.0, 8.0, 4.0, 3.0, 1.5, 0.6, 0.3, 0.1]
        .into_iter()
        .find(|s| *s <= billions)
        .unwrap_or(0.0)
}

/// Where Prospect's loader would find a CUDA library: beside the program's environment override, the loader's path,
/// a CUDA toolkit, conda, the wheels of a Python environment.
fn library(
    machine: &dyn Machine,
    environment: Option<&Environment>,
    stem: &str,
    majors: &[&str],
) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
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
