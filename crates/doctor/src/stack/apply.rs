//! Carrying a repair out through uv or pip, with a way back; and letting uv prove a set.

use super::solve::Set;
use crate::error::{Error, Result};
use crate::facts::Machine;
use crate::python::dist::Dist;
use crate::python::{Environment, Manager};
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

/// Installs the changed packages of a set into an environment. What they were is written beside it first.
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
    let before: Set = dists
        .iter()
        .filter(|d| changed.contains_key(&d.name))
        .map(|d| (d.name.clone(), d.version.clone()))
        .collect();
    let fresh: Vec<&String> = changed.keys().filter(|name| !before.contains_key(*name)).collect();
    let mut text = pins(&before);
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
    let uv = environment.manager == Manager::Uv
        || machine.run("uv", &["--version"], "").is_ok_and(|r| r.success);
    let (program, head): (&str, Vec<&str>) = match uv {
        true => ("uv", vec!["pip", "install", "--python", &interpreter]),
        false => (&interpreter, vec!["-m", "pip", "install"]),
    };
    let arguments: Vec<&str> =
        head.iter().copied().chain(pins.iter().map(String::as_str)).collect();
    let command = format!("{program} {}", arguments.join(" "));
    let back = format!("{program} {} -r {}", head.join(" "), file.display());
    let ran = machine.run(program, &arguments, "").map_err(|error| {
        Error::machine(
            format!("'{program}' does not run: {error}"),
            format!("nothing was changed; by hand: {command}"),
        )
    })?;
    match ran.success {
        true => Ok(Applied { command, back }),
        false => Err(Error::machine(
            format!("'{command}' failed:\n{}", ran.error.trim_end()),
            format!("the way back: {back}"),
        )),
    }
}
