//! `prospect stack mend`.

use super::doctor::{DoctorArgs, environment, machine};
use super::stack::{Target, index, version};
use crate::error::{Error, Result};
use crate::facts::Machine;
use crate::python::requirements::range_of_others;
use crate::python::{Environment, dist};
use crate::rules;
use crate::stack::index::Index;
use crate::stack::mend::{Repair, Wanted, mend};
use crate::stack::solve::{Range, Set};
use crate::stack::{apply, read};
use pep440_rs::Version;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

/// What an installed environment wants: every package of the index at its version, ranges from all the others.
fn installed(
    machine: &dyn Machine,
    environment: &Environment,
    index: &Index,
) -> (Vec<Wanted>, Vec<dist::Dist>) {
    let found = dist::scan(machine, environment);
    let python = environment.python.as_ref().map(|(v, _)| v.clone());
    let wanted = found.dists.iter().filter(|d| index.has(&d.name)).map(|d| {
        let others = found.dists.iter().filter(|o| !index.has(&o.name));
        let range =
            python.as_ref().map_or_else(Range::full, |p| range_of_others(others, &d.name, p));
        Wanted { name: d.name.clone(), extras: Vec::new(), version: Some(d.version.clone()), range }
    });
    (wanted.collect(), found.dists.clone())
}

/// Finds the smallest repair, prints it, and carries it out where asked to.
pub(super) fn run(
    what: Option<&str>,
    python: Option<&PathBuf>,
    apply_it: bool,
    prove: bool,
    target: &Target,
) -> Result<(String, u8)> {
    let machine = machine(&DoctorArgs::default())?;
    let machine = machine.as_ref();
    let (index, told) = index(target)?;
    let arguments = DoctorArgs { python: python.cloned(), ..DoctorArgs::default() };
    let environment = if what.is_some() { None } else { environment(&arguments, machine)? };
    let (wanted, dists, said, remarks, name) = match (what, &environment) {
        (Some(what), _) => {
            let asked = read::read(machine, what)?;
            (asked.wanted, Vec::new(), asked.python, asked.remarks, what.to_string())
        }
        (None, Some(environment)) => {
            let (wanted, dists) = installed(machine, environment, &index);
            let python = environment.python.as_ref().map(|(v, _)| v.to_string());
            (wanted, dists, python, Vec::new(), environment.prefix.display().to_string())
        }
        (None, None) => {
            return Err(Error::input(
                "nothing to mend: no set was given and no environment is active",
                "prospect stack mend requirements.txt, or --python PATH",
            ));
        }
    };
    let python = read::python(target.for_python.as_deref().or(said.as_deref()).unwrap_or("3.12"))?;
    let driver = match &target.driver {
        Some(driver) => Some(version(driver, "--driver")?),
        None => machine.nvidia().driver.and_then(|d| Version::from_str(&d).ok()),
    };
    let repair = mend(&index, &rules::shipped(), &python, driver.as_ref(), &wanted)?;
    let mut text = format!("{name} for Python {python} ({told}; {} sets tried)\n", repair.tried);
    remarks.iter().for_each(|r| _ = writeln!(text, "  ! {r}"));
    text.push_str(&difference(&repair));
    let changed: Set = match &environment {
        Some(_) => repair
            .set
            .iter()
            .filter(|(n, v)| {
                dists.iter().all(|d| d.name != **n || d.version.clone().without_local() != **v)
            })
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect(),
        None => repair.set.clone(),
    };
    let nothing = repair.changes.is_empty() && repair.caps.is_empty();
    if nothing && (environment.is_none() || changed.is_empty()) {
        text.push_str("Nothing to change.\n");
    }
    if prove {
        let short: Vec<String> = python.release().iter().take(2).map(u64::to_string).collect();
        match apply::prove(machine, &repair.set, &short.join(".")) {
            Some(Ok(count)) => {
                let apart = if repair.set.contains_key("flash-attn") {
                    " (flash-attn apart: PyPI has no wheel of it)"
                } else {
                    ""
                };
                let _ = writeln!(
                    text,
                    "Proved: uv resolves it on PyPI, {count} packages in all{apart}."
                );
            }
            Some(Err(why)) => _ = writeln!(text, "Not proved: uv refuses it:\n{}", why.trim_end()),
            None => text.push_str("Not proved: uv is not installed.\n"),
        }
    } else {
        text.push_str("Not proved by uv: --prove asks it, over the network.\n");
    }
    match &environment {
        Some(environment) if !changed.is_empty() && apply_it => {
            let done = apply::apply(machine, environment, &dists, &changed)?;
            let _ = writeln!(text, "done: {}\nback: {}", done.command, done.back);
        }
        Some(environment) if !changed.is_empty() => {
            let pins: Vec<String> = changed.iter().map(|(n, v)| format!("'{n}=={v}'")).collect();
            let prefix = environment.prefix.display();
            let _ = write!(
                text,
                "pip: {prefix}/bin/python -m pip install {0}\nuv:  uv pip install --python {prefix} {0}\nNothing was changed; --apply carries it out.\n",
                pins.join(" ")
            );
        }
        None if apply_it => {
            return Err(Error::input(
                "--apply needs an environment",
                "name it with --python PATH instead of a file",
            ));
        }
        None => {
            let _ = write!(
                text,
                "\nThe set, without packages that nothing here depends on the version of:\n{}",
                apply::pins(&repair.set)
            );
        }
        Some(_) => {}
    }
    Ok((text, 0))
}

fn difference(repair: &Repair) -> String {
    let mut text = String::new();
    for change in &repair.changes {
        let extras = if change.without.is_empty() {
            String::new()
        } else {
            format!("[{}]", change.without.join(","))
        };
        let from = change.from.as_ref().map_or(String::new(), |v| format!("=={v}"));
        let _ = writeln!(text, "  - {0}{extras}{from}\n  + {0}=={1}", change.name, change.to);
    }
    for (name, version) in &repair.caps {
        let _ =
            writeln!(text, "  + {name}=={version}   (nobody named it; a newer one breaks the set)");
    }
    text
}
