//! The environment's facts, named for the rules.

use super::binaries::{self, Library};
use super::dist::{self, Dist, Found};
use super::requirements::{self, Problem};
use super::{Environment, Manager, Origin, torch};
use crate::facts::{Gpu, Machine, read_bytes, read_text};
use crate::machine::capability;
use crate::stack::index::Index;
use crate::table::{Scope, Table};
use pep440_rs::Version;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    cache(machine, environment, all);
    installed(machine, environment, &found, table);
    metadata_layer(environment, &found, table);
    bytes_layer(machine, environment, &found, torch_site.as_deref(), gpus, table);
    scripts(machine, environment, table);
    found
}

fn metadata(dist: &Dist) -> String {
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

/// Unsloth writes the versions a compiled trainer was made for into its first lines.
fn cache(machine: &dyn Machine, environment: &Environment, all: &mut Scope) {
    let places = environment.project.iter().cloned().chain(machine.working_folder());
    for folder in places.map(|p| p.join("unsloth_compiled_cache")) {
        let Some(name) =
            crate::facts::names(machine, &folder).into_iter().find(|n| n.ends_with(".py"))
        else {
            continue;
        };
        let path = folder.join(name);
        let head = read_text(machine, &path, 1024).unwrap_or_default();
        if !head.contains("__UNSLOTH_VERSIONING__") {
            continue;
        }
        let mine = |name: &str| {
            all.get(name).is_none_or(|f| head.lines().take(8).any(|l| l.trim() == f.shown()))
        };
        let fits = mine("unsloth") && mine("transformers") && mine("trl");
        all.flag("unsloth.stale_cache", !fits, path.display().to_string());
    }
}

/// Half-finished and mixed installations.
fn installed(machine: &dyn Machine, environment: &Environment, found: &Found, table: &mut Table) {
    for (name, versions) in &found.twice {
        let mut scope = Scope::default();
        scope.text(
            "duplicate.name",
            name,
            format!("{}/{name}-*.dist-info", environment.prefix.display()),
        );
        scope.list(
            "duplicate.versions",
            versions.clone(),
            format!("{}/{name}-*.dist-info", environment.prefix.display()),
        );
        table.add("duplicate", scope);
    }
    for path in &found.leftovers {
        let mut scope = Scope::default();
        scope.text(
            "leftover",
            path.file_name().unwrap_or_default().to_string_lossy(),
            path.display().to_string(),
        );
        table.add("leftover", scope);
    }
    for (path, why) in &found.unreadable {
        let mut scope = Scope::default();
        scope.text(
            "unreadable.folder",
            path.file_name().unwrap_or_default().to_string_lossy(),
            path.display().to_string(),
        );
        scope.text("unreadable.why", why, path.display().to_string());
        table.add("unreadable", scope);
    }
    for dist in found.shadowed.iter().filter(|d| STACK.contains(&d.name.as_str())) {
        let winner = found.dists.iter().find(|d| d.name == dist.name);
        if let Some(winner) =
            winner.filter(|w| w.version != dist.version && w.origin != dist.origin)
        {
            let mut scope = Scope::default();
            scope.text("shadow.name", &dist.name, metadata(winner));
            scope.version("shadow.used", &winner.version.to_string(), metadata(winner));
            scope.version("shadow.hidden", &dist.version.to_string(), metadata(dist));
            let by = match winner.origin {
                Origin::User => "user",
                Origin::PythonPath => "PYTHONPATH",
                Origin::Own | Origin::Base => "environment",
            };
            scope.text("shadow.by", by, metadata(winner));
            scope.text(
                "shadow.folder",
                winner.folder.parent().unwrap_or(Path::new("")).display().to_string(),
                metadata(winner),
            );
            table.add("shadow", scope);
        }
    }
    for dist in &found.dists {
        let site = dist.folder.parent().unwrap_or(Path::new(""));
        for (file, size) in dist::recorded(machine, dist) {
            let path = site.join(&file);
            let about = machine.stat(&path);
            let problem = match (&about, size) {
                (Err(error), _) if error.kind() == std::io::ErrorKind::NotFound => "is missing",
                (Ok(stat), Some(size))
                    if stat.len != size && dist::is_shared_object(&file.to_string_lossy()) =>
                {
                    "has another size"
                }
                _ => continue,
            };
            let mut scope = Scope::default();
            scope.text(
                "incomplete.package",
                &dist.name,
                dist.folder.join("RECORD").display().to_string(),
            );
            scope.version("incomplete.version", &dist.version.to_string(), metadata(dist));
            scope.text(
                "incomplete.file",
                format!("{} {problem}", file.display()),
                path.display().to_string(),
            );
            table.add("incomplete", scope);
            break; // one per package tells enough
        }
        if let Some(git) = dist.git.as_ref().filter(|g| {
            g.asked.as_ref().is_none_or(|a| !g.commit.starts_with(a.as_str()) || a.len() < 7)
        }) {
            let mut scope = Scope::default();
            let path = dist.folder.join("direct_url.json").display().to_string();
            scope.text("git.package", &dist.name, &path);
            scope.text("git.url", &git.url, &path);
            scope.text("git.commit", &git.commit, &path);
            scope.text(
                "git.asked",
                git.asked.clone().unwrap_or("the default branch".into()),
                &path,
            );
            table.add("git", scope);
        }
    }
    if environment.manager == Manager::Conda {
        for (name, version, path) in &environment.conda {
            let Some(dist) = found.dists.iter().find(|d| d.name == dist::normal(name)) else {
                continue;
            };
            let by_pip = dist.installer.as_deref().is_some_and(|i| i == "pip" || i == "uv");
            if by_pip
                && Version::from_str(version)
                    .is_ok_and(|v| v.only_release() != dist.version.only_release())
            {
                let mut scope = Scope::default();
                scope.text("mixed.name", name, path);
                scope.text("mixed.conda", version, path);
                scope.version("mixed.pip", &dist.version.to_string(), metadata(dist));
                table.add("mixed", scope);
            }
        }
    }
}

fn metadata_layer(environment: &Environment, found: &Found, table: &mut Table) {
    let Some((python, _)) = &environment.python else { return };
    let Some(markers) = requirements::markers(python) else { return };
    for broken in requirements::broken(&found.dists, &markers) {
        let mut scope = Scope::default();
        let path = metadata(&broken.by);
        scope.text("requirement.by", format!("{} {}", broken.by.name, broken.by.version), &path);
        scope.text("requirement.needs", &broken.needs, &path);
        scope.text("requirement.name", &broken.name, &path);
        if let Some(version) = &broken.found {
            let target = found.dists.iter().find(|d| d.name == broken.name);
            scope.version(
                "requirement.found",
                &version.to_string(),
                target.map_or(path.clone(), metadata),
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
        let path = metadata(dist);
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

fn bytes_layer(
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

/// Unsloth patches trl, transformers and peft, so it must be imported before them: the project's own scripts.
fn scripts(machine: &dyn Machine, environment: &Environment, table: &mut Table) {
    let Some(project) = &environment.project else { return };
    let files: Vec<PathBuf> = crate::facts::names(machine, project)
        .into_iter()
        .filter(|n| n.ends_with(".py"))
        .take(50)
        .map(|n| project.join(n))
        .collect();
    for path in files {
        let text = read_text(machine, &path, 64 << 10).unwrap_or_default();
        let line_of = |names: &[&str]| {
            text.lines().position(|line| {
                let mut words = line.split([' ', '.', ',']);
                matches!(words.next(), Some("import" | "from"))
                    && words.next().is_some_and(|m| names.contains(&m))
            })
        };
        if let (Some(other), Some(unsloth)) =
            (line_of(&["trl", "transformers", "peft"]), line_of(&["unsloth"]))
            && other < unsloth
        {
            let mut scope = Scope::default();
            scope.text(
                "script.file",
                path.file_name().unwrap_or_default().to_string_lossy(),
                path.display().to_string(),
            );
            scope.number("script.line", unsloth as f64 + 1.0, path.display().to_string());
            scope.number("script.other", other as f64 + 1.0, path.display().to_string());
            table.add("script", scope);
        }
    }
}
