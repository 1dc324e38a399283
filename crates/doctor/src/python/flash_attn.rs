//! flash-attn before it is installed: the one prebuilt wheel that fits, or why none does and what a build would take.
//!
//! PyPI has sources alone; `setup.py` looks for a wheel of the release on GitHub whose name is put together of torch's
//! minor version, CUDA's major, the C++ ABI and Python, and compiles for as long as it takes where there is none.

use super::Environment;
use crate::facts::{Machine, exists};
use crate::stack::builds;
use crate::table::{Scope, Value};
use pep440_rs::Version;
use std::path::{Path, PathBuf};

/// Memory that one compiler job takes, in GiB, at the four threads that flash-attn's build gives nvcc.
const GIB_A_JOB: f64 = 9.0;

/// Adds the wheel's address or why there is none, and what a build would have here.
pub(super) fn facts(machine: &dyn Machine, environment: &Environment, all: &mut Scope) {
    let version = |name: &str| match all.get(name).map(|f| &f.value) {
        Some(Value::Version(version)) => Some(version.clone()),
        _ => None,
    };
    let (Some(torch), Some(cuda)) = (version("torch.file"), version("torch.cuda")) else { return };
    let (Some((python, _)), [major, minor, ..]) = (&environment.python, cuda.release()) else {
        return;
    };
    let cuda = (*major as u32, *minor as u32);
    let cxx11 = match all.get("torch.abi").map(|f| f.shown()).as_deref() {
        Some(abi) => abi == "cxx11",
        None => builds::torch_is_cxx11(&torch),
    };
    let glibc: Option<Version> = version("glibc");
    let path = "computed from torch/version.py";
    let plain = torch.clone().without_local();
    match builds::flash_attn_wheel(&plain, cuda, cxx11, python, glibc.as_ref()) {
        Ok(wheel) => all.text("flash-attn.wheel", wheel, path),
        Err(why) => all.text("flash-attn.no_wheel", why, path),
    }
    let nvcc = find(machine, "nvcc", &["CUDA_HOME", "CUDA_PATH"], &["/usr/local/cuda/bin"]);
    let own = environment.prefix.join("bin").display().to_string();
    let ninja = find(machine, "ninja", &[], &[&own]);
    for (name, found) in [("build.nvcc", nvcc), ("build.ninja", ninja)] {
        match found {
            Some(place) => all.text(name, place.display().to_string(), place.display().to_string()),
            None => all.text(name, "not found", "PATH"),
        }
    }
    let free = ["host.available_gib", "cgroup.limit_gib"].into_iter().filter_map(|name| match all
        .get(name)
        .map(|f| &f.value)
    {
        Some(Value::Number(gib)) => Some(*gib),
        _ => None,
    });
    let free = free.fold(f64::INFINITY, f64::min);
    if free.is_finite() {
        let cores = machine.processors() as f64 / 2.0;
        let jobs = (free / GIB_A_JOB).min(cores).floor().max(1.0);
        all.number("build.jobs", jobs, "memory at 9 GiB a job, half of the processors");
    }
}

/// A program: in the `bin` of what variables name, in `PATH`, in other folders.
fn find(
    machine: &dyn Machine,
    program: &str,
    variables: &[&str],
    folders: &[&str],
) -> Option<PathBuf> {
    let homes = variables.iter().filter_map(|name| machine.variable(name));
    let homes = homes.map(|home| Path::new(&home).join("bin"));
    let path = machine.variable("PATH").unwrap_or_default();
    let path: Vec<PathBuf> =
        path.split(':').filter(|p| p.starts_with('/')).map(PathBuf::from).collect();
    let others = folders.iter().map(PathBuf::from);
    homes.chain(path).chain(others).map(|f| f.join(program)).find(|p| exists(machine, p))
}
