//! Carrying a repair out through uv or pip, with a way back; and letting uv prove a set.

use super::solve::Set;
use crate::error::{Error, Result};
use crate::facts::Machine;
use crate::python::dist::{self, Dist};
use crate::python::{Environment, Manager, Origin};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The pins of a set as requirement lines.
pub fn pins<'a>(set: impl IntoIterator<Item = (&'a String, &'a pep440_rs::Version)>) -> String {
    set.into_iter().map(|(name, version)| format!("{name}=={version}\n")).collect()
}

/// What uv says of a set: None where uv is not installed.
pub fn prove(
    machine: &dyn Machine,
    set: &Set,
    python: &str,
) -> Option<std::result::Result<usize, String>> {
    let arguments = [
        "pip",
        "compile",
        "-",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--python-version",
        python,
        "--python-platform",
        "x86_64-manylinux_2_28",
    ];
    // flash-attn has no wheel on PyPI: its metadata would be built, which needs torch. It is installed by URL.
    let set: Set = set
        .iter()
        .filter(|(name, _)| *name != "flash-attn")
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    let ran = machine.run("uv", &arguments, &pins(&set)).ok()?;
    match ran.success {
        true => Some(Ok(ran.output.lines().filter(|l| l.contains("==")).count())),
        false => Some(Err(ran.error)),
    }
}

/// What was done.
#[derive(Debug)]
pub struct Applied {
    /// The command that was run.
    pub command: String,
    /// The command that goes back.
    pub back: String,
}

/// Installs the changed packages of a set into an environment. What all packages were is written beside it first, and
/// looked at afterwards: an installer that fails half-way leaves some packages changed and says so nowhere.
pub fn apply(
    machine: &dyn Machine,
    environment: &Environment,
    dists: &[Dist],
    changed: &Set,
) -> Result<Applied> {
    let interpreter = environment.interpreter.as_ref().ok_or_else(|| {
        Error::input(
            format!("'{}' has no Python to install with", environment.prefix.display()),
            "make the environment anew",
        )
    })?;
    let interpreter = interpreter.display().to_string();
    // Installed from a folder, a repository or an address: no index has it, so no pin brings it back.
    let own: BTreeMap<&String, &Dist> =
        dists.iter().filter(|d| d.origin == Origin::Own).map(|d| (&d.name, d)).collect();
    let pinned = own.values().filter(|d| d.git.is_none() && d.url.is_none());
    let before: Set = pinned.map(|d| (d.name.clone(), d.version.clone())).collect();
    let fresh: Vec<&str> =
        changed.keys().filter(|name| !own.contains_key(name)).map(String::as_str).collect();
    let mut text = pins(&before);
    let tag = before.get("torch").and_then(|v| Some(v.to_string().split_once('+')?.1.to_string()));
    if let Some(tag) = tag {
        text = format!("--extra-index-url https://download.pytorch.org/whl/{tag}\n{text}");
    }
    fresh.iter().for_each(|name| text.push_str(&format!("# {name} was not installed\n")));
    let file = (1..1000)
        .map(|n| environment.prefix.join(format!("prospect-before-{n}.txt")))
        .find(|p| !crate::facts::exists(machine, p));
    let file: PathBuf = file.ok_or_else(|| {
        Error::machine(
            format!("'{}' holds 999 old repairs", environment.prefix.display()),
            "remove its prospect-before-*.txt",
        )
    })?;
    machine.save(&file, &text).map_err(|error| {
        Error::machine(
            format!("the way back, '{}', cannot be written: {error}", file.display()),
            "nothing was changed; make the folder writable",
        )
    })?;
    let pins: Vec<String> =
        changed.iter().map(|(name, version)| format!("{name}=={version}")).collect();
    // The environment's own installer; uv where it has none.
    let uv = environment.manager == Manager::Uv || !own.keys().any(|name| *name == "pip");
    let (program, head): (&str, &[&str]) = match uv {
        true => ("uv", &["pip"]),
        false => (&interpreter, &["-m", "pip"]),
    };
    let of: &[&str] = if uv { &["--python", &interpreter] } else { &[] };
    let install: Vec<&str> = head.iter().chain(&["install"]).chain(of).copied().collect();
    let arguments: Vec<&str> =
        install.iter().copied().chain(pins.iter().map(String::as_str)).collect();
    let shell = |words: &[&str]| -> String {
        std::iter::once(&program).chain(words).map(|w| quoted(w)).collect::<Vec<_>>().join(" ")
    };
    let command = shell(&arguments);
    let shown = file.display().to_string();
    let again: Vec<&str> =
        install.iter().chain(&["--no-deps", "-r", shown.as_str()]).copied().collect();
    let mut back = shell(&again);
    if !fresh.is_empty() {
        let yes: &[&str] = if uv { &[] } else { &["-y"] };
        let remove = head.iter().chain(&["uninstall"]).chain(yes).chain(of).chain(&fresh);
        back = format!("{back} && {}", shell(&remove.copied().collect::<Vec<_>>()));
    }
    let ran = machine.run(program, &arguments, "").map_err(|error| {
        Error::machine(
            format!("'{program}' does not run: {error}"),
            format!("nothing was changed; by hand: {command}"),
        )
    })?;
    let now = dist::scan(machine, environment).dists;
    let is = |name: &String| now.iter().find(|d| d.name == *name).map(|d| d.version.clone());
    let done = changed
        .iter()
        .filter(|(name, version)| is(name).is_some_and(|now| now.without_local() == **version));
    let done = done.count();
    if ran.success && done == changed.len() {
        return Ok(Applied { command, back });
    }
    let moved = own.iter().filter(|(name, d)| is(name).as_ref() != Some(&d.version)).count();
    let state = match (moved, done) {
        (0, 0) => "no package was changed".to_string(),
        _ => format!(
            "{done} of {} packages are as wanted, {moved} differ from before",
            changed.len()
        ),
    };
    let why = if ran.success { "it says that all is well" } else { ran.error.trim_end() };
    Err(Error::machine(
        format!("'{command}' failed, and {state}:\n{why}"),
        format!("the way back: {back}"),
    ))
}

/// A word as a shell takes it whole.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/+-=:@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
