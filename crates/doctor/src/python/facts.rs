//! The environment's facts, named for the rules.

use super::dist::{self, Dist, Found};
use super::{Environment, binaries, flash_attn, installed, layers, torch};
use crate::facts::{Gpu, Machine, read_bytes, read_text};
use crate::stack::index::Index;
use crate::table::{Scope, Table};
use pep440_rs::Version;
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

/// The packages whose presence in a foreign folder matters.
pub const STACK: &[&str] = &[
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "unsloth",
    "unsloth-zoo",
    "flash-attn",
    "xformers",
    "triton",
    "tokenizers",
    "huggingface-hub",
    "numpy",
    "pyarrow",
];

/// Adds everything about an environment to the table and returns its distributions.
pub fn gather(
    machine: &dyn Machine,
    environment: &Environment,
    gpus: &[Gpu],
    table: &mut Table,
) -> Found {
    let found = dist::scan(machine, environment);
    let all = &mut table.all;
    all.text(
        "environment",
        environment.prefix.display().to_string(),
        environment.prefix.display().to_string(),
    );
    all.text(
        "environment.manager",
        environment.manager.name(),
        environment.prefix.display().to_string(),
    );
    let interpreter = environment.interpreter.is_some()
        || environment.sites.iter().any(|s| s.folder == environment.prefix);
    all.flag(
        "environment.interpreter",
        interpreter,
        environment.prefix.join("bin/python").display().to_string(),
    );
    if let Some((version, path)) = &environment.python {
        all.version("python", &version.to_string(), path);
    }
    for dist in &found.dists {
        all.version(&dist.name, &dist.version.to_string(), metadata(dist));
    }
    all.number("packages", found.dists.len() as f64, environment.prefix.display().to_string());
    let torch_site = environment
        .sites
        .iter()
        .find(|s| crate::facts::exists(machine, &s.folder.join("torch/version.py")));
    let torch_site = torch_site.map(|s| s.folder.clone());
    if let Some(site) = &torch_site {
        torch_facts(machine, site, all);
    }
    torchvision(machine, environment, all);
    bitsandbytes(machine, environment, all);
    xformers(machine, environment, all);
    nvidia(&found, all);
    unsloth(&found, all);
    installed::cache(machine, environment, all);
    installed::installed(machine, environment, &found, table);
    layers::metadata(environment, &found, table);
    layers::bytes(machine, environment, &found, torch_site.as_deref(), gpus, table);
    flash_attn::facts(machine, environment, &mut table.all);
    installed::scripts(machine, environment, table);
    found
}

/// The METADATA file of a distribution.
pub(super) fn metadata(dist: &Dist) -> String {
    dist.folder.join("METADATA").display().to_string()
}

fn torch_facts(machine: &dyn Machine, site: &Path, all: &mut Scope) {
    let path = site.join("torch/version.py");
    let Ok(text) = read_text(machine, &path, 64 << 10) else { return };
    let shown = path.display().to_string();
    let said = torch::parse(&text);
    let Some(version) = said.version.as_ref().and_then(|v| Version::from_str(v).ok()) else {
        return;
    };
    let build = match (&said.cuda, &said.hip) {
        (Some(_), _) => "cuda",
        (None, Some(_)) => "rocm",
        (None, None) => "cpu",
    };
    all.text("torch.build", build, &shown);
    if let Some(cuda) = &said.cuda {
        all.version("torch.cuda", cuda, &shown);
    }
    all.version("torch.file", &version.to_string(), &shown);
    let local = version.to_string().split_once('+').map(|(_, local)| local.to_string());
    if let Some(local) = local {
        all.text("torch.local", local, &shown);
    }
}

/// `torchvision/version.py` has the build's local tag (`0.19.1+cu121`) where METADATA may not.
fn torchvision(machine: &dyn Machine, environment: &Environment, all: &mut Scope) {
    for site in &environment.sites {
        let path = site.folder.join("torchvision/version.py");
        let Ok(text) = read_text(machine, &path, 64 << 10) else { continue };
        let version = torch::parse(&text).version.unwrap_or_default();
        if let Some((_, local)) = version.split_once('+') {
            all.text("torchvision.local", local, path.display().to_string());
        }
        return;
    }
}

/// `BNB_CUDA_VERSION` overrides torch's CUDA version; from 0.50 on the nearest library of the same major does.
fn bitsandbytes(machine: &dyn Machine, environment: &Environment, all: &mut Scope) {
    let Some(site) = environment
        .sites
        .iter()
        .find(|s| crate::facts::is_folder(machine, &s.folder.join("bitsandbytes")))
    else {
        return;
    };
    let cudas = binaries::bitsandbytes_cudas(machine, &site.folder);
    let folder = site.folder.join("bitsandbytes").display().to_string();
    all.list(
        "bitsandbytes.cudas",
        cudas.iter().map(|(a, b)| format!("{a}.{b}")).collect(),
        &folder,
    );
    let forced = machine.variable("BNB_CUDA_VERSION").filter(|v| !v.is_empty());
    if let Some(forced) = &forced {
        all.text("bitsandbytes.forced", forced, "BNB_CUDA_VERSION");
    }
    let wanted = forced.or_else(|| all.get("torch.cuda").map(|f| f.shown().replace('.', "")));
    let Some((major, minor)) = wanted.and_then(|w| {
        let (a, b) = w.split_at_checked(w.len().checked_sub(1)?)?;
        Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?))
    }) else {
        return;
    };
    let nearest =
        crate::rules::expression::parse("bitsandbytes >= 0.50").is_ok_and(|e| e.holds(&[all]));
    let chosen = match cudas.contains(&(major, minor)) {
        true => Some((major, minor)),
        false if nearest => {
            cudas.iter().filter(|c| c.0 == major).min_by_key(|c| c.1.abs_diff(minor)).copied()
        }
        false => None,
    };
    all.flag("bitsandbytes.library", chosen.is_some(), &folder);
    if let Some((a, b)) = chosen {
        all.text("bitsandbytes.file", format!("libbitsandbytes_cuda{a}{b}.so"), folder);
    }
}

/// `cpp_lib.json`: the torch and CUDA that xformers' kernels were built for.
fn xformers(machine: &dyn Machine, environment: &Environment, all: &mut Scope) {
    for site in &environment.sites {
        let path = site.folder.join("xformers/cpp_lib.json");
        let Ok(bytes) = read_bytes(machine, &path, 256 << 10) else { continue };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) else { continue };
        let shown = path.display().to_string();
        if let Some(torch) = value["version"]["torch"].as_str() {
            all.version("xformers.torch", torch, &shown);
        }
        if let Some(cuda) = value["version"]["cuda"].as_u64() {
            all.version("xformers.cuda", &format!("{}.{}", cuda / 100, cuda % 100), &shown);
        }
        return;
    }
}

/// CUDA libraries of several majors side by side (`nvidia-cublas-cu12` and `-cu11`).
fn nvidia(found: &Found, all: &mut Scope) {
    let mut majors: BTreeMap<String, String> = BTreeMap::new();
    for dist in found.dists.iter().filter(|d| d.name.starts_with("nvidia-")) {
        if let Some((_, major)) = dist.name.rsplit_once("-cu").filter(|(_, m)| m.len() == 2) {
            majors.entry(major.into()).or_insert_with(|| metadata(dist));
        }
    }
    if let Some(path) = majors.values().next().cloned() {
        let torch = all.get("torch.cuda").map(|f| f.shown());
        let torch = torch.and_then(|t| t.split('.').next().map(String::from));
        let foreign = majors.keys().any(|m| torch.as_ref().is_some_and(|t| t != m));
        all.flag("nvidia.foreign", foreign, &path);
        all.list("nvidia.majors", majors.into_keys().map(|m| format!("cu{m}")).collect(), path);
    }
    let twins = ["triton", "pytorch-triton", "triton-windows", "pytorch-triton-rocm"];
    let there: Vec<String> =
        twins.iter().filter(|t| all.get(t).is_some()).map(|t| t.to_string()).collect();
    if there.len() > 1 {
        all.list("triton.twins", there, "site-packages");
    }
}

fn unsloth(found: &Found, all: &mut Scope) {
    let Some(unsloth) = found.dists.iter().find(|d| d.name == "unsloth") else { return };
    let base = unsloth.requires.iter().filter(|r| !r.to_string().contains("extra ==")).count();
    all.number("unsloth.requires", base as f64, metadata(unsloth));
    let others = found.dists.iter().map(|d| (d.name.as_str(), &d.version));
    if let Some(days) = Index::shipped().unsloth_days_behind(&unsloth.version, others) {
        all.number("unsloth.days_behind", days as f64, metadata(unsloth));
    }
    if let Some(zoo) = found.dists.iter().find(|d| d.name == "unsloth-zoo")
        && let Some(days) = Index::shipped().zoo_days_ahead(&unsloth.version, &zoo.version)
    {
        all.number("unsloth.zoo_days_ahead", days as f64, metadata(zoo));
    }
}
