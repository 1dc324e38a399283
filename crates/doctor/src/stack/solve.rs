//! Resolving a set of requirements over the index with PubGrub, as pip and uv would, and optionally under what
//! their metadata does not say: the rules, the builds, the driver.

use super::builds;
use super::index::{Index, Release};
use crate::finding::{Layer, Severity};
use crate::python::dist::{Needs, normal};
use crate::rules::Rule;
use crate::rules::expression::{Expression, Side};
use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};
use pep508_rs::{ExtraName, MarkerEnvironment, VersionOrUrl};
use pubgrub::{
    DefaultStringReporter, Dependencies, DependencyProvider, PackageResolutionStatistics,
    PubGrubError, Ranges, Reporter,
};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::rc::Rc;
use std::str::FromStr;

/// Versions a requirement allows.
pub type Range = Ranges<Version>;

/// A set of packages with one version each.
pub type Set = BTreeMap<String, Version>;

/// What is asked of a package.
#[derive(Clone, Debug)]
pub struct Root {
    /// The package.
    pub name: String,
    /// The extras asked for.
    pub extras: Vec<String>,
    /// The versions allowed.
    pub range: Range,
}

/// What a solution must satisfy besides the metadata.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Pairs that break: where the first package is in its range, the second must not be in its own.
    breaks: Vec<(String, Range, String, Range)>,
    /// Whether to hold to what wheels are built for.
    builds: bool,
    /// The newest CUDA major the driver runs.
    cuda_major: Option<u32>,
}

impl Truth {
    /// Metadata alone: what pip and uv see.
    pub fn metadata() -> Truth {
        Truth::default()
    }

    /// All three layers, for a driver where one is known.
    pub fn all(rules: &[Rule], driver: Option<&Version>) -> Truth {
        let breaks =
            rules.iter().filter(|r| r.layer == Layer::Rules && r.severity == Severity::Error);
        let too_old = |least: &str| {
            driver.zip(Version::from_str(least).ok()).is_some_and(|(d, least)| *d < least)
        };
        let cuda_major = match () {
            () if driver.is_none() => None,
            () if too_old("525.60.13") => Some(11),
            () if too_old("580") => Some(12),
            () => Some(13),
        };
        Truth {
            breaks: breaks.filter_map(|r| pair(&r.expression)).collect(),
            builds: true,
            cuda_major,
        }
    }
}

/// Reads a rule of the form `a < .. and a >= .. and b > ..` as a pair that breaks. The first package named is the
/// one that requires the other, by its metadata or by use.
fn pair(expression: &Expression) -> Option<(String, Range, String, Range)> {
    let Expression::All(parts) = expression else { return None };
    let mut ranges: Vec<(String, Range)> = Vec::new();
    for part in parts {
        let Expression::Compare(name, comparison, Side::Literal(text)) = part else { return None };
        let specifier =
            VersionSpecifier::from_version(comparison.operator()?, Version::from_str(text).ok()?)
                .ok()?;
        let range = Range::from(specifier);
        match ranges.iter_mut().find(|(n, _)| n == name) {
            Some((_, have)) => *have = have.intersection(&range),
            None => ranges.push((name.clone(), range)),
        }
    }
    let [(a, ra), (b, rb)] = <[(String, Range); 2]>::try_from(ranges).ok()?;
    Some((a, ra, b, rb))
}

/// A resolver over an index for one Python.
pub struct Solver<'a> {
    index: &'a Index,
    python: Version,
    markers: MarkerEnvironment,
    truth: Truth,
    /// What a package at a version depends on: the same for every question, and asked thousands of times.
    edges: RefCell<HashMap<(String, Version), Edges>>,
    /// The places of a package's possible releases in the index.
    places: RefCell<HashMap<String, Rc<Vec<usize>>>>,
}

type Edges = Rc<Vec<(String, Range)>>;

impl<'a> Solver<'a> {
    /// A resolver. None where the Python version makes no sense.
    pub fn new(index: &'a Index, python: &Version, truth: Truth) -> Option<Solver<'a>> {
        let markers = crate::python::requirements::markers(python)?;
        Some(Solver {
            index,
            python: python.clone(),
            markers,
            truth,
            edges: RefCell::default(),
            places: RefCell::default(),
        })
    }

    /// Resolves. `wanted` are versions to keep where possible; where one must give way, the nearest is taken.
    /// Packages without a wanted version get the newest that fits. The error is PubGrub's explanation.
    pub fn solve(&self, roots: &[Root], wanted: &Set) -> Result<Set, String> {
        match self.resolve(roots, wanted) {
            Ok(set) => Ok(set),
            Err(error) => match *error {
                PubGrubError::NoSolution(mut tree) => {
                    tree.collapse_no_versions();
                    Err(DefaultStringReporter::report(&tree))
                }
                other => Err(other.to_string()),
            },
        }
    }

    /// Resolves without an explanation, whose making can cost more than the search.
    pub fn fits(&self, roots: &[Root], wanted: &Set) -> Option<Set> {
        self.resolve(roots, wanted).ok()
    }

    fn resolve<'s>(
        &'s self,
        roots: &'s [Root],
        wanted: &'s Set,
    ) -> Result<Set, Box<PubGrubError<Provider<'s, 'a>>>> {
        let provider = Provider { solver: self, roots, wanted };
        let solution =
            pubgrub::resolve(&provider, ROOT.to_string(), Version::new([0])).map_err(Box::new)?;
        Ok(solution.into_iter().filter(|(name, _)| name != ROOT && !name.contains('[')).collect())
    }

    /// The releases of a package that may be chosen, oldest first.
    fn possible_places(&self, name: &str) -> Rc<Vec<usize>> {
        if let Some(known) = self.places.borrow().get(name) {
            return Rc::clone(known);
        }
        let releases = self.index.releases(name);
        let places = Rc::new(
            (0..releases.len()).filter(|i| self.possible(name, &releases[*i])).collect::<Vec<_>>(),
        );
        self.places.borrow_mut().insert(name.into(), Rc::clone(&places));
        places
    }

    /// What a package, or an extra of it, depends on. None where the index has no such release.
    fn edges(&self, package: &str, version: &Version) -> Option<Edges> {
        let key = (package.to_string(), version.clone());
        if let Some(known) = self.edges.borrow().get(&key) {
            return Some(Rc::clone(known));
        }
        let (name, extra) = split(package);
        let release = self.index.release(name, version)?;
        let mut edges: BTreeMap<String, Range> = BTreeMap::new();
        let mut add = |name: &str, range: Range| {
            let have = edges.entry(name.into()).or_insert_with(Range::full);
            *have = have.intersection(&range);
        };
        let asked: Vec<ExtraName> =
            extra.iter().filter_map(|e| ExtraName::from_str(e).ok()).collect();
        if extra.is_some() {
            add(name, Range::singleton(version.clone()));
        }
        for need in release.needs() {
            let other = normal(need.name.as_ref());
            let active = need.evaluate_markers(&self.markers, &asked);
            let already = extra.is_some() && need.evaluate_markers(&self.markers, &[]);
            if !active || already || !self.index.has(&other) {
                continue;
            }
            let range = range(&need);
            // `unsloth[huggingface]` required by unsloth itself: its own extra, of this very version.
            let range = if other == name {
                range.intersection(&Range::singleton(version.clone()))
            } else {
                range
            };
            add(&other, range.clone());
            for wanted in &need.extras {
                add(&format!("{other}[{}]", normal(wanted.as_ref())), range.clone());
            }
        }
        if extra.is_none() {
            self.hidden(name, release, &mut add);
        }
        let edges: Edges = Rc::new(edges.into_iter().collect());
        self.edges.borrow_mut().insert(key, Rc::clone(&edges));
        Some(edges)
    }

    /// Whether a release may be chosen at all.
    fn possible(&self, name: &str, release: &Release) -> bool {
        if !release.installs_on(&self.python) {
            return false;
        }
        if let ("torch", Some(most)) = (name, self.truth.cuda_major)
            && builds::torch_cuda(&release.version).is_some_and(|cuda| cuda.0 > most)
        {
            return false;
        }
        // An Unsloth that declares nothing fits everything and runs with nothing.
        !(self.truth.builds
            && name == "unsloth"
            && release.requires.iter().all(|r| r.contains("extra ==")))
    }

    /// What the wheels of a release need beyond its metadata.
    fn hidden(&self, name: &str, release: &Release, add: &mut dyn FnMut(&str, Range)) {
        for (a, in_a, b, in_b) in &self.truth.breaks {
            if a == name && in_a.contains(&release.version) && self.index.has(b) {
                add(b, in_b.complement());
            }
        }
        if !self.truth.builds {
            return;
        }
        let only = |name: &str, fits: &dyn Fn(&Release) -> bool| {
            let fitting = self
                .index
                .releases(name)
                .iter()
                .filter(|r| fits(r))
                .map(|r| Range::singleton(r.version.clone()));
            fitting.fold(Range::empty(), |all, one| all.union(&one))
        };
        match name {
            "bitsandbytes" => {
                let fits = |torch: &Release| {
                    builds::torch_cuda(&torch.version)
                        .is_some_and(|c| builds::bitsandbytes_has(&release.version, c))
                };
                add("torch", only("torch", &fits));
            }
            "xformers" => {
                let specifier = builds::xformers_torch(&release.version);
                if let Some(Ok(specifier)) = specifier.map(VersionSpecifiers::from_str) {
                    add("torch", Range::from(specifier));
                }
            }
            "flash-attn" => {
                if let Ok(specifiers) =
                    VersionSpecifiers::from_str(builds::flash_attn_torch(&release.version))
                {
                    add("torch", Range::from(specifiers));
                }
            }
            "unsloth" => {
                let Some(day) = release.day else { return };
                let until = |name: &str, last: i64| {
                    only(name, &|r: &Release| r.day.is_none_or(|d| d <= last))
                };
                // Unsloth patches the classes of these: releases long after it are not what it knows.
                for other in ["transformers", "trl"] {
                    add(other, until(other, day + 120));
                }
                // Its other half is released with it, and declares no upper bound.
                if release.requires.iter().any(|r| r.starts_with("unsloth_zoo")) {
                    add("unsloth-zoo", until("unsloth-zoo", day + 60));
                }
            }
            _ => {}
        }
    }
}

const ROOT: &str = "your requirements";

struct Provider<'s, 'a> {
    solver: &'s Solver<'a>,
    roots: &'s [Root],
    wanted: &'s Set,
}

fn split(package: &str) -> (&str, Option<&str>) {
    match package.strip_suffix(']').and_then(|p| p.split_once('[')) {
        Some((name, extra)) => (name, Some(extra)),
        None => (package, None),
    }
}

impl Provider<'_, '_> {
    fn candidates(&self, name: &str, range: &Range) -> Vec<(usize, &Version)> {
        let releases = self.solver.index.releases(name);
        let places = self.solver.possible_places(name);
        places
            .iter()
            .map(|i| (*i, &releases[*i].version))
            .filter(|(_, v)| range.contains(v))
            .collect()
    }
}

impl DependencyProvider for Provider<'_, '_> {
    type P = String;
    type V = Version;
    type VS = Range;
    type Priority = (u32, Reverse<usize>, Reverse<String>);
    type M = String;
    type Err = Infallible;

    fn prioritize(
        &self,
        package: &String,
        range: &Range,
        conflicts: &PackageResolutionStatistics,
    ) -> Self::Priority {
        let (name, _) = split(package);
        let count = if package == ROOT { 1 } else { self.candidates(name, range).len() };
        // The name breaks ties, so that the same question always has the same answer.
        (conflicts.conflict_count(), Reverse(count), Reverse(package.clone()))
    }

    fn choose_version(
        &self,
        package: &String,
        range: &Range,
    ) -> Result<Option<Version>, Infallible> {
        if package == ROOT {
            return Ok(Some(Version::new([0])));
        }
        let (name, _) = split(package);
        let candidates = self.candidates(name, range);
        let Some(wanted) = self.wanted.get(name) else {
            return Ok(candidates.last().map(|(_, v)| (*v).clone()));
        };
        let releases = self.solver.index.releases(name);
        let place = releases.partition_point(|r| r.version < *wanted);
        let nearest = candidates
            .into_iter()
            .min_by_key(|(i, v)| (*v != wanted, i.abs_diff(place), Reverse(*i)));
        Ok(nearest.map(|(_, v)| v.clone()))
    }

    fn get_dependencies(
        &self,
        package: &String,
        version: &Version,
    ) -> Result<Dependencies<String, Range, String>, Infallible> {
        if package == ROOT {
            let mut needs: BTreeMap<String, Range> = BTreeMap::new();
            for root in self.roots {
                let extras = root.extras.iter().map(|extra| format!("{}[{extra}]", root.name));
                for name in std::iter::once(root.name.clone()).chain(extras) {
                    let have = needs.entry(name).or_insert_with(Range::full);
                    *have = have.intersection(&root.range);
                }
            }
            return Ok(Dependencies::Available(needs.into_iter().collect()));
        }
        Ok(match self.solver.edges(package, version) {
            Some(edges) => Dependencies::Available(edges.iter().cloned().collect()),
            None => Dependencies::Unavailable("it is not in the index".into()),
        })
    }
}

/// The versions a requirement allows. `==2.4.1` also means `2.4.1+cu121`: local tags are left out everywhere here.
pub fn range(needs: &Needs) -> Range {
    match &needs.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => {
            specifiers.iter().fold(Range::full(), |all, one| {
                let plain = match one.operator() {
                    Operator::Equal | Operator::ExactEqual => {
                        Range::singleton(one.version().clone().without_local())
                    }
                    _ => Range::from(one.clone()),
                };
                all.intersection(&plain)
            })
        }
        _ => Range::full(),
    }
}
