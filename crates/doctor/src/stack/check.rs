//! Judging a set of requirements before anything is installed: does it resolve, to what, and does that run.

use super::builds;
use super::index::Index;
use super::mend::Wanted;
use super::solve::{Range, Root, Set, Solver, Truth};
use crate::facts::Gpu;
use crate::finding::Finding;
use crate::rules::{self, Rule};
use crate::table::{Scope, Table};
use pep440_rs::Version;

/// The verdict.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Pins that cannot be met by themselves: versions never released, or without a wheel for this Python.
    pub impossible: Vec<String>,
    /// Why nothing fits together.
    pub conflict: Option<String>,
    /// What a resolver would choose.
    pub set: Set,
    /// What is wrong with that.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether it can be installed and runs.
    pub fn fine(&self) -> bool {
        let error = |f: &Finding| f.severity == crate::finding::Severity::Error;
        self.impossible.is_empty() && self.conflict.is_none() && !self.findings.iter().any(error)
    }
}

/// Judges.
pub fn check(
    index: &Index,
    rules: &[Rule],
    python: &Version,
    driver: Option<&str>,
    gpus: &[Gpu],
    wanted: &[Wanted],
) -> Verdict {
    let mut verdict = Verdict::default();
    for w in wanted.iter().filter(|w| index.has(&w.name)) {
        let Some(version) = &w.version else { continue };
        match index.release(&w.name, version) {
            None => verdict.impossible.push(format!(
                "{}=={version} was never released{}",
                w.name,
                near(index, &w.name, version)
            )),
            Some(release) if !release.installs_on(python) => verdict.impossible.push(format!(
                "{}=={version} has no wheel for Python {python} (it has for {})",
                w.name,
                release.pythons.join(", ")
            )),
            Some(release) => {
                // Packages that never had an extra are those whose metadata the index does not carry.
                let knows = index.releases(&w.name).iter().any(|r| !r.extras.is_empty());
                for extra in w.extras.iter().filter(|e| knows && !release.extras.contains(e)) {
                    verdict.impossible.push(format!("{} {version} has no extra '{extra}'", w.name));
                }
            }
        }
    }
    if !verdict.impossible.is_empty() {
        return verdict;
    }
    let roots: Vec<Root> = wanted.iter().filter(|w| index.has(&w.name)).map(root).collect();
    let solved =
        Solver::new(index, python, Truth::metadata()).map(|s| s.solve(&roots, &Set::new()));
    match solved {
        Some(Ok(set)) => {
            verdict.findings = judge(index, rules, python, driver, gpus, &set, wanted);
            verdict.set = set;
        }
        Some(Err(why)) => verdict.conflict = Some(why),
        None => verdict.conflict = Some(format!("Python {python} is not known")),
    }
    verdict
}

fn root(w: &Wanted) -> Root {
    let range = match &w.version {
        Some(version) => Range::singleton(version.clone().without_local()),
        None => w.range.clone(),
    };
    Root { name: w.name.clone(), extras: w.extras.clone(), range }
}

fn near(index: &Index, name: &str, version: &Version) -> String {
    let releases = index.releases(name);
    let place = releases.partition_point(|r| r.version < *version);
    let around = releases[place.saturating_sub(1)..].iter().take(2).map(|r| r.version.to_string());
    let around: Vec<String> = around.collect();
    if around.is_empty() { String::new() } else { format!(" (near it: {})", around.join(", ")) }
}

/// Asks the rules of a set that is not installed yet: what the bytes will be is known from the builds.
pub fn judge(
    index: &Index,
    rules: &[Rule],
    python: &Version,
    driver: Option<&str>,
    gpus: &[Gpu],
    set: &Set,
    wanted: &[Wanted],
) -> Vec<Finding> {
    let mut table = Table::default();
    let all = &mut table.all;
    let outside = wanted
        .iter()
        .filter(|w| !index.has(&w.name))
        .filter_map(|w| Some((w.name.clone(), w.version.clone()?)));
    for (name, version) in set.clone().into_iter().chain(outside) {
        all.version(&name, &version.to_string(), "the resolved set");
    }
    all.version("python", &python.to_string(), "the resolved set");
    all.number("gpus", gpus.len() as f64, "--gpu");
    if let Some(driver) = driver {
        all.version("driver", driver, "--driver");
    }
    let wheel = "the wheel on PyPI";
    if let Some(torch) = set.get("torch")
        && let Some((major, minor)) = builds::torch_cuda(torch)
    {
        all.version("torch.cuda", &format!("{major}.{minor}"), wheel);
        all.text("torch.build", "cuda", wheel);
        if let Some(bitsandbytes) = set.get("bitsandbytes") {
            all.text("bitsandbytes.cudas", "its libraries", wheel);
            all.flag(
                "bitsandbytes.library",
                builds::bitsandbytes_has(bitsandbytes, (major, minor)),
                wheel,
            );
        }
    }
    if set.get("xformers").and_then(builds::xformers_torch).is_some() {
        all.version("xformers.torch", "2.10.0", wheel);
    }
    let release = |name: &str| set.get(name).and_then(|v| index.release(name, v));
    if let Some(unsloth) = release("unsloth") {
        let base = unsloth.requires.iter().filter(|r| !r.contains("extra ==")).count();
        all.number("unsloth.requires", base as f64, wheel);
        let others = set.iter().map(|(n, v)| (n.as_str(), v));
        if let Some(days) = index.unsloth_days_behind(&unsloth.version, others) {
            all.number("unsloth.days_behind", days as f64, "upload dates on PyPI");
        }
        if let Some(days) =
            set.get("unsloth-zoo").and_then(|zoo| index.zoo_days_ahead(&unsloth.version, zoo))
        {
            all.number("unsloth.zoo_days_ahead", days as f64, "upload dates on PyPI");
        }
    }
    for gpu in gpus {
        let mut scope = Scope::default();
        scope.text("gpu.name", &gpu.name, "--gpu");
        scope.version("gpu.compute", &gpu.compute, "--gpu");
        table.add("gpu", scope);
    }
    let findings = rules::findings(rules, &table);
    findings.into_iter().filter(|f| f.group == rules::Group::Python).collect()
}
