//! How the environment was put together: half-finished and mixed installations, foreign folders, moving branches, and
//! what the project around it does with Unsloth.

use super::dist::{self, Found};
use super::facts::{STACK, metadata};
use super::{Environment, Manager, Origin};
use crate::facts::{Machine, read_text};
use crate::table::{Scope, Table};
use pep440_rs::Version;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Unsloth writes the versions a compiled trainer was made for into its first lines.
pub(super) fn cache(machine: &dyn Machine, environment: &Environment, all: &mut Scope) {
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
pub(super) fn installed(
    machine: &dyn Machine,
    environment: &Environment,
    found: &Found,
    table: &mut Table,
) {
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

/// Unsloth patches trl, transformers and peft, so it must be imported before them: the project's own scripts.
pub(super) fn scripts(machine: &dyn Machine, environment: &Environment, table: &mut Table) {
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
