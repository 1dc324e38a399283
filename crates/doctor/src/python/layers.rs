//! The two layers of truth that are computed: metadata (requirements, Pythons, tags) and bytes (the shared objects).

use super::Environment;
use super::binaries::{self, Library};
use super::dist::Found;
use super::facts::metadata as metadata_of;
use super::requirements::{self, Problem};
use crate::facts::{Gpu, Machine};
use crate::machine::capability;
use crate::table::{Scope, Table};
use std::collections::BTreeMap;
use std::path::Path;

/// Adds every requirement that does not hold and every package for another Python.
pub(super) fn metadata(environment: &Environment, found: &Found, table: &mut Table) {
    let Some((python, _)) = &environment.python else { return };
    let Some(markers) = requirements::markers(python) else { return };
    for broken in requirements::broken(&found.dists, &markers) {
        let mut scope = Scope::default();
        let path = metadata_of(&broken.by);
        scope.text("requirement.by", format!("{} {}", broken.by.name, broken.by.version), &path);
        scope.text("requirement.needs", &broken.needs, &path);
        scope.text("requirement.name", &broken.name, &path);
        if let Some(version) = &broken.found {
            let target = found.dists.iter().find(|d| d.name == broken.name);
            scope.version(
                "requirement.found",
                &version.to_string(),
                target.map_or(path.clone(), metadata_of),
            );
        }
        let problem = match broken.problem {
            Problem::Missing => "missing",
            Problem::Conflict => "conflict",
            Problem::NoExtra => "no-extra",
        };
        scope.text("requirement.problem", problem, &path);
        if let Some(extra) = &broken.extra {
            scope.text("requirement.extra", extra, &path);
        }
        table.add("requirement", scope);
    }
    for dist in &found.dists {
        let path = metadata_of(dist);
        let refuses = dist.python.as_ref().is_some_and(|p| !p.contains(python));
        let digits: String = python.release().iter().take(2).map(u64::to_string).collect();
        let fits = |tag: &String| {
            let own = format!("cp{digits}");
            let (interpreter, rest) = tag.split_once('-').unwrap_or((tag, ""));
            interpreter
                .split('.')
                .any(|i| i == own || i.starts_with("py") || rest.starts_with("abi3"))
        };
        let foreign = !dist.tags.is_empty() && !dist.tags.iter().any(fits);
        if refuses || foreign {
            let mut scope = Scope::default();
            scope.text("pythons.package", format!("{} {}", dist.name, dist.version), &path);
            scope.text("pythons.name", &dist.name, &path);
            scope.text(
                "pythons.asks",
                dist.python.as_ref().map_or(String::new(), |p| p.to_string()),
                &path,
            );
            scope.flag("pythons.refuses", refuses, &path);
            scope.flag("pythons.foreign", foreign, dist.folder.join("WHEEL").display().to_string());
            scope.list(
                "pythons.tags",
                dist.tags.iter().take(4).cloned().collect(),
                dist.folder.join("WHEEL").display().to_string(),
            );
            table.add("pythons", scope);
        }
    }
}

/// Adds every extension to torch and what is wrong with it, and torch's own architectures and ABI.
pub(super) fn bytes(
    machine: &dyn Machine,
    environment: &Environment,
    found: &Found,
    torch_site: Option<&Path>,
    gpus: &[Gpu],
    table: &mut Table,
) {
    let torch = torch_site.map(|site| binaries::torch(machine, site)).unwrap_or_default();
    let cards: Vec<(&Gpu, (u32, u32))> =
        gpus.iter().filter_map(|g| Some((g, capability(g)?))).collect();
    let all = &mut table.all;
    let folder = torch.folder.display().to_string();
    if torch.code != crate::elf::GpuCode::default() {
        all.list("torch.architectures", architectures(&torch.code), &folder);
        if !cards.is_empty() {
            let runs = cards.iter().all(|(_, (major, minor))| torch.code.runs_on(*major, *minor));
            all.flag("torch.no_code", !runs, &folder);
        }
    }
    if let Some(abi) = torch.abi {
        all.text("torch.abi", abi, folder);
    }
    let chosen = all.get("bitsandbytes.file").map(|f| f.shown());
    let mut known = BTreeMap::new();
    for library in binaries::extensions(machine, environment, &found.dists) {
        let name = library.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Of bitsandbytes' dozen libraries one is loaded; the others may be for any CUDA and any card.
        if name.starts_with("libbitsandbytes") && chosen.as_ref() != Some(&name) {
            continue;
        }
        let scope = extension(&library, &torch, &cards, &mut known);
        table.add("extension", scope);
    }
}

fn extension(
    library: &Library,
    torch: &binaries::Torch,
    cards: &[(&Gpu, (u32, u32))],
    known: &mut BTreeMap<String, bool>,
) -> Scope {
    let mut scope = Scope::default();
    let path = library.path.display().to_string();
    scope.text("extension.package", &library.package, &path);
    scope.text(
        "extension.file",
        library.path.file_name().unwrap_or_default().to_string_lossy(),
        &path,
    );
    if let Some(why) = library.malformed {
        scope.text("extension.malformed", why, &path);
    }
    if let Some((major, minor)) = library.glibc {
        scope.version("extension.glibc", &format!("{major}.{minor}"), &path);
    }
    if let Some(abi) = library.abi {
        scope.text("extension.abi", abi, &path);
    }
    let cudart = library.needed.iter().find_map(|n| n.strip_prefix("libcudart.so."));
    if let Some(major) = cudart.and_then(|v| v.split('.').next()) {
        scope.version("extension.cudart", major, &path);
    }
    if let Some(missing) = torch.lacks(&library.of_torch, known).filter(|m| !m.is_empty()) {
        scope.number("extension.undefined", missing.len() as f64, &path);
        scope.text("extension.symbol", crate::table::clip(&missing[0], 120), &path);
    }
    if library.code != crate::elf::GpuCode::default() {
        scope.list("extension.architectures", architectures(&library.code), &path);
        if let Some((gpu, _)) =
            cards.iter().find(|(_, (major, minor))| !library.code.runs_on(*major, *minor))
        {
            scope.text("extension.not_on", format!("{} ({})", gpu.name, gpu.compute), path);
        }
    }
    scope
}

fn architectures(code: &crate::elf::GpuCode) -> Vec<String> {
    let cubins = code.cubins.iter().map(|sm| format!("sm_{sm}"));
    cubins.chain(code.ptx.iter().map(|sm| format!("compute_{sm}"))).collect()
}
