//! Installed distributions: the `*.dist-info` folders.
//!
//! "Recording installed projects" and "Core metadata" of the Python packaging specifications (PEP 376, 566, 610,
//! 627, 685); wheel tags by PEP 425.

use super::{Environment, Origin};
use crate::facts::{Kind, Machine, read_bytes, read_text};
use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{Requirement, VerbatimUrl};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A requirement as wheels declare it.
pub type Needs = Requirement<VerbatimUrl>;

/// An installed distribution.
#[derive(Clone, Debug)]
pub struct Dist {
    /// Its normalized name (`huggingface-hub`).
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Its `dist-info` folder.
    pub folder: PathBuf,
    /// Where it lies.
    pub origin: Origin,
    /// Which Python it asks for.
    pub python: Option<VersionSpecifiers>,
    /// What it requires.
    pub requires: Vec<Needs>,
    /// The extras it offers, normalized.
    pub extras: Vec<String>,
    /// The tags of its wheel.
    pub tags: Vec<String>,
    /// Who installed it.
    pub installer: Option<String>,
    /// The git repository and commit it came from, and the revision that was asked for.
    pub git: Option<Git>,
    /// The file it was installed from, where a URL was given.
    pub url: Option<String>,
}

/// `vcs_info` of `direct_url.json`.
#[derive(Clone, Debug)]
pub struct Git {
    /// The repository.
    pub url: String,
    /// The commit that was installed.
    pub commit: String,
    /// What was asked for; absent means whatever the default branch was that day.
    pub asked: Option<String>,
}

/// What a scan of the import folders found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The distributions Python would use, by folder order.
    pub dists: Vec<Dist>,
    /// Distributions hidden behind one of the same name in an earlier folder.
    pub shadowed: Vec<Dist>,
    /// Second `dist-info` folders of one project in one folder.
    pub twice: Vec<(String, Vec<String>)>,
    /// What pip leaves when it is stopped: folders whose name begins with `~`.
    pub leftovers: Vec<PathBuf>,
    /// `dist-info` folders without readable METADATA, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

const LONGEST_HEADER: usize = 1 << 20;

/// PEP 503: lower case, runs of `-_.` are one dash.
pub fn normal(name: &str) -> String {
    let mut out = String::new();
    for c in name.trim().chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

/// Reads every distribution of an environment.
pub fn scan(machine: &dyn Machine, environment: &Environment) -> Found {
    let mut found = Found::default();
    for site in &environment.sites {
        let mut here: Vec<Dist> = Vec::new();
        for entry in machine.list(&site.folder).unwrap_or_default() {
            let path = site.folder.join(&entry.name);
            if entry.name.starts_with('~') {
                found.leftovers.push(path);
                continue;
            }
            if !entry.name.ends_with(".dist-info") || entry.kind == Kind::File {
                continue;
            }
            match read(machine, &path, site.origin) {
                Ok(dist) => here.push(dist),
                Err(why) => found.unreadable.push((path, why)),
            }
        }
        here.sort_by(|a, b| a.name.cmp(&b.name).then(b.version.cmp(&a.version)));
        let mut index = 0;
        while index < here.len() {
            let same = here[index..].iter().take_while(|d| d.name == here[index].name).count();
            if same > 1 {
                let versions = here[index..index + same].iter().map(|d| d.version.to_string());
                found.twice.push((here[index].name.clone(), versions.collect()));
            }
            let dist = here[index].clone();
            match found.dists.iter().any(|d| d.name == dist.name) {
                true => found.shadowed.push(dist),
                false => found.dists.push(dist),
            }
            index += same;
        }
    }
    found
}

/// The header of METADATA: everything before the first empty line, where the long description begins.
fn header(machine: &dyn Machine, path: &Path) -> Result<String, String> {
    let file = machine.open(path).map_err(|e| e.to_string())?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut piece = [0u8; 8 << 10];
    while bytes.len() < LONGEST_HEADER {
        let got = file.read_at(bytes.len() as u64, &mut piece).map_err(|e| e.to_string())?;
        if got == 0 {
            break;
        }
        let from = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(&piece[..got]);
        let end = bytes[from..].windows(2).position(|w| w == b"\n\n");
        let end = end.or_else(|| bytes[from..].windows(4).position(|w| w == b"\r\n\r\n"));
        if let Some(end) = end {
            bytes.truncate(from + end);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read(machine: &dyn Machine, folder: &Path, origin: Origin) -> Result<Dist, String> {
    let text = header(machine, &folder.join("METADATA")).map_err(|e| format!("METADATA: {e}"))?;
    let all = |key: &str| -> Vec<String> {
        let values = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(key).then(|| value.trim().to_string())
        });
        values.take(5000).collect()
    };
    let one = |key: &str| all(key).into_iter().next();
    let name = one("Name").filter(|n| !n.is_empty()).ok_or("METADATA has no Name")?;
    if name.len() > 200 || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_. ".contains(c)) {
        return Err("METADATA has an impossible Name".into());
    }
    let written = one("Version").ok_or("METADATA has no Version")?;
    let version = Version::from_str(&written).map_err(|_| {
        format!("METADATA has an impossible Version '{}'", crate::table::clip(&written, 40))
    })?;
    let wheel = read_text(machine, &folder.join("WHEEL"), 64 << 10).unwrap_or_default();
    let tags = wheel.lines().filter_map(|l| l.strip_prefix("Tag:")).map(|t| t.trim().to_string());
    let installer =
        read_text(machine, &folder.join("INSTALLER"), 256).ok().map(|t| t.trim().to_string());
    let direct = read_bytes(machine, &folder.join("direct_url.json"), 64 << 10).ok();
    let direct: Option<serde_json::Value> = direct.and_then(|b| serde_json::from_slice(&b).ok());
    let word = |value: &serde_json::Value| value.as_str().map(String::from);
    let url = direct.as_ref().and_then(|d| word(&d["url"]));
    let git = direct.as_ref().and_then(|d| {
        let info = d.get("vcs_info")?;
        Some(Git {
            url: word(&d["url"])?,
            commit: word(&info["commit_id"])?,
            asked: word(&info["requested_revision"]),
        })
    });
    Ok(Dist {
        name: normal(&name),
        version,
        folder: folder.into(),
        origin,
        python: one("Requires-Python").and_then(|t| VersionSpecifiers::from_str(&t).ok()),
        requires: all("Requires-Dist").iter().filter_map(|line| needs(line)).collect(),
        extras: all("Provides-Extra").iter().map(|e| normal(e)).collect(),
        tags: tags.take(100).collect(),
        installer,
        git,
        url,
    })
}

/// A requirement line. One that no sane wheel writes is not handed to the parser, which recurses into parentheses.
pub fn needs(line: &str) -> Option<Needs> {
    let sane = line.len() < 4000 && line.matches('(').count() < 100;
    if sane { Needs::from_str(line).ok() } else { None }
}

/// The shared objects and package roots a RECORD lists, with their sizes, relative to the site folder. The rest of
/// RECORD, tens of thousands of files for torch, is not checked: these are what a stopped upgrade breaks.
pub fn recorded(machine: &dyn Machine, dist: &Dist) -> Vec<(PathBuf, Option<u64>)> {
    let Ok(bytes) = read_bytes(machine, &dist.folder.join("RECORD"), 16 << 20) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut files = Vec::new();
    for line in text.lines() {
        let mut fields = line.rsplitn(3, ',');
        let (size, _hash, path) = (fields.next(), fields.next(), fields.next());
        let Some(path) = path.map(|p| p.trim_matches('"')) else { continue };
        let root = path.ends_with("/__init__.py") && path.matches('/').count() == 1;
        if (is_shared_object(path) || root) && !path.starts_with('/') && !path.contains("..") {
            files.push((PathBuf::from(path), size.and_then(|s| s.trim().parse().ok())));
        }
    }
    files
}

/// Whether a file name is that of a shared object: `x.so`, `x.so.12`.
pub fn is_shared_object(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".so")
        || name.split_once(".so.").is_some_and(|(_, v)| v.starts_with(|c: char| c.is_ascii_digit()))
}
