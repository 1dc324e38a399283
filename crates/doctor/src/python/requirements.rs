//! The metadata layer: every `Requires-Dist` and `Requires-Python` of the environment against what is installed,
//! markers evaluated for its own Python (PEP 508), extras that others ask for included.

use super::dist::{Dist, Needs, normal};
use pep440_rs::Version;
use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, VersionOrUrl};
use pubgrub::Ranges;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// What is wrong with one requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The required package is not there.
    Missing,
    /// It is there in a version that does not do.
    Conflict,
    /// It has no such extra.
    NoExtra,
}

/// A requirement that does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Who requires.
    pub by: Dist,
    /// The requirement, its marker left out.
    pub needs: String,
    /// The package required.
    pub name: String,
    /// The version that is installed.
    pub found: Option<Version>,
    /// What is wrong.
    pub problem: Problem,
    /// The extra through which it is required, if any.
    pub extra: Option<String>,
}

/// The marker environment of a Python on 64-bit Linux.
pub fn markers(python: &Version) -> Option<MarkerEnvironment> {
    let release = python.release();
    let (major, minor) = (release.first()?, release.get(1).unwrap_or(&0));
    let full = format!("{major}.{minor}.{}", release.get(2).unwrap_or(&0));
    let short = format!("{major}.{minor}");
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: "x86_64",
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &short,
        sys_platform: "linux",
    })
    .ok()
}

/// Checks every requirement of every distribution.
pub fn broken(dists: &[Dist], markers: &MarkerEnvironment) -> Vec<Broken> {
    let installed: BTreeMap<&str, &Dist> = dists.iter().map(|d| (d.name.as_str(), d)).collect();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    // (package, extra) pairs to look at: each package by itself, then every extra that somebody asks for.
    let mut todo: Vec<(&str, Option<String>)> =
        dists.iter().map(|d| (d.name.as_str(), None)).collect();
    todo.reverse();
    while let Some((name, extra)) = todo.pop() {
        if !seen.insert((name.to_string(), extra.clone())) {
            continue;
        }
        let Some(dist) = installed.get(name) else { continue };
        let asked: Vec<ExtraName> =
            extra.iter().filter_map(|e| ExtraName::from_str(e).ok()).collect();
        for needs in &dist.requires {
            let by_extra = extra.is_some();
            if !needs.evaluate_markers(markers, &asked)
                || (by_extra && needs.evaluate_markers(markers, &[]))
            {
                continue;
            }
            let other = normal(needs.name.as_ref());
            let Some(target) = installed.get(other.as_str()) else {
                found.push(report(dist, needs, None, Problem::Missing, &extra));
                continue;
            };
            if !satisfied(needs, &target.version) {
                found.push(report(dist, needs, Some(target), Problem::Conflict, &extra));
            }
            for wanted in needs.extras.iter().map(|e| normal(e.as_ref())) {
                if target.extras.contains(&wanted) {
                    todo.push((target.name.as_str(), Some(wanted)));
                } else {
                    found.push(report(dist, needs, Some(target), Problem::NoExtra, &Some(wanted)));
                }
            }
        }
    }
    found
}

/// Whether a version satisfies a requirement; one by URL is satisfied by whatever was installed.
pub fn satisfied(needs: &Needs, version: &Version) -> bool {
    match &needs.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => specifiers.contains(version),
        Some(VersionOrUrl::Url(_)) | None => true,
    }
}

/// The versions of a package that some distributions allow.
pub fn range_of_others<'a>(
    others: impl Iterator<Item = &'a Dist>,
    name: &str,
    python: &Version,
) -> Ranges<Version> {
    let Some(markers) = markers(python) else { return Ranges::full() };
    let about = others
        .flat_map(|d| &d.requires)
        .filter(|n| normal(n.name.as_ref()) == name && n.evaluate_markers(&markers, &[]));
    about.fold(Ranges::full(), |all, one| all.intersection(&crate::stack::solve::range(one)))
}

/// A requirement without its marker and extras: what is handed to pip.
pub fn plain(needs: &Needs) -> String {
    let name = normal(needs.name.as_ref());
    match &needs.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => {
            format!("{name}{specifiers}").replace(' ', "")
        }
        _ => name,
    }
}

fn report(
    by: &Dist,
    needs: &Needs,
    found: Option<&&Dist>,
    problem: Problem,
    extra: &Option<String>,
) -> Broken {
    Broken {
        by: by.clone(),
        needs: plain(needs),
        name: normal(needs.name.as_ref()),
        found: found.map(|d| d.version.clone()),
        problem,
        extra: extra.clone(),
    }
}
