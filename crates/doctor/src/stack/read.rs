//! Reading what somebody wants installed: a profile, requirements.txt, pyproject.toml or uv.lock.

use super::mend::Wanted;
use super::profiles;
use super::solve::range;
use crate::error::{Error, Result};
use crate::facts::{Machine, read_text};
use crate::python::dist::{Needs, needs, normal};
use pep440_rs::{Operator, Version};
use pep508_rs::VersionOrUrl;
use serde::Deserialize;
use std::path::Path;
use std::str::FromStr;

/// What is wanted, and remarks on lines that say something worrying or were not understood.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The packages.
    pub wanted: Vec<Wanted>,
    /// Remarks.
    pub remarks: Vec<String>,
    /// The Python it is for, where it says so.
    pub python: Option<String>,
}

#[derive(Deserialize)]
struct Project {
    project: Option<ProjectTable>,
}

#[derive(Deserialize)]
struct ProjectTable {
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct UvLock {
    #[serde(default)]
    package: Vec<UvPackage>,
}

#[derive(Deserialize)]
struct UvPackage {
    name: String,
    version: Option<String>,
}

/// Reads a profile by name or a file by path.
pub fn read(machine: &dyn Machine, what: &str) -> Result<Asked> {
    if let Ok(profile) = profiles::named(what) {
        let mut asked = lines(profile.lock(), what);
        asked.python = Some(profile.python);
        return Ok(asked);
    }
    let path = Path::new(what);
    let text = read_text(machine, path, 16 << 20).map_err(|error| {
        let names: Vec<String> = profiles::all().into_iter().map(|p| p.name).collect();
        Error::input(
            format!("'{what}' is neither a profile nor a readable file: {error}"),
            format!(
                "the profiles are {}; files are requirements.txt, pyproject.toml, uv.lock",
                names.join(", ")
            ),
        )
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let broken = |error: toml::de::Error| {
        Error::input(
            format!("'{what}' is not valid TOML: {}", error.message()),
            "mend the file; uv and pip refuse it too",
        )
    };
    if name.ends_with(".lock") {
        let lock: UvLock = toml::from_str(&text).map_err(broken)?;
        let pins = lock
            .package
            .iter()
            .filter_map(|p| Some(format!("{}=={}\n", p.name, p.version.as_ref()?)));
        return Ok(lines(&pins.collect::<String>(), what));
    }
    if name.ends_with(".toml") {
        let project: Project = toml::from_str(&text).map_err(broken)?;
        let all = project.project.map(|p| p.dependencies).unwrap_or_default();
        return Ok(lines(&all.join("\n"), what));
    }
    Ok(lines(&text, what))
}

/// Reads requirement lines.
pub fn lines(text: &str, source: &str) -> Asked {
    let mut asked = Asked::default();
    for (number, line) in text.lines().enumerate().take(20_000) {
        let line = line.split(" #").next().unwrap_or(line).split(" --hash").next().unwrap_or(line);
        let line = line.trim().trim_end_matches('\\').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('-') {
            if line.starts_with("-r") || line.starts_with("--requirement") || line.starts_with("-e")
            {
                asked.remarks.push(format!("{source}:{}: '{line}' is not followed", number + 1));
            }
            continue;
        }
        match needs(line) {
            Some(need) => {
                let git = line.contains("@ git+");
                if git && !line.rsplit_once("git+").is_some_and(|(_, url)| url.contains('@')) {
                    let name = normal(need.name.as_ref());
                    asked.remarks.push(format!(
                        "{source}:{}: {name} comes from a moving branch: it will bring other requirements tomorrow; name a release, or the commit after '@'",
                        number + 1
                    ));
                }
                add(&mut asked.wanted, &need);
            }
            None => asked.remarks.push(format!(
                "{source}:{}: '{}' is not understood",
                number + 1,
                crate::table::clip(line, 80)
            )),
        }
    }
    asked
}

fn add(wanted: &mut Vec<Wanted>, need: &Needs) {
    let name = normal(need.name.as_ref());
    let version = match &need.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(all)) => all
            .iter()
            .find(|s| matches!(s.operator(), Operator::Equal | Operator::ExactEqual))
            .map(|s| s.version().clone()),
        _ => None,
    };
    let range = range(need);
    let extras = need.extras.iter().map(|e| normal(e.as_ref()));
    match wanted.iter_mut().find(|w| w.name == name) {
        Some(have) => {
            have.range = have.range.intersection(&range);
            have.extras.extend(extras);
            have.version = have.version.take().or(version);
        }
        // A pin is given up as a whole; a range that is no pin always holds.
        None => {
            let range = if version.is_some() { super::solve::Range::full() } else { range };
            wanted.push(Wanted { name, extras: extras.collect(), version, range });
        }
    }
}

/// A Python version as a person writes it: `3.12` or `3.12.4`.
pub fn python(text: &str) -> Result<Version> {
    let wrong = || {
        Error::input(format!("'{text}' in --for-python is no Python version"), "write it as 3.12")
    };
    let version = Version::from_str(text).map_err(|_| wrong())?;
    if version.release().first() != Some(&3) || version.release().len() < 2 {
        Err(wrong())
    } else {
        Ok(version)
    }
}
