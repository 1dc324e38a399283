//! The smallest repair: the fewest of the wanted versions given up so that everything holds, found by giving up none,
//! then each one, each two and so on, and asking the solver each time.

use super::index::Index;
use super::solve::{Range, Root, Set, Solver, Truth};
use crate::error::{Error, Result};
use crate::rules::Rule;
use pep440_rs::Version;
use std::collections::BTreeSet;

/// What is wanted of one package.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The package.
    pub name: String,
    /// The extras asked for.
    pub extras: Vec<String>,
    /// The version wanted; none means any.
    pub version: Option<Version>,
    /// The versions others allow (packages outside the index that require this one).
    pub range: Range,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The package.
    pub name: String,
    /// What was wanted, as it was written.
    pub from: Option<String>,
    /// The version that does.
    pub to: Version,
    /// The extras given up.
    pub without: Vec<String>,
}

/// A repair.
#[derive(Clone, Debug)]
pub struct Repair {
    /// The wanted packages that change.
    pub changes: Vec<Change>,
    /// Packages nobody named whose newest version would break the set: caps to be held.
    pub caps: Vec<(String, Version)>,
    /// The whole set.
    pub set: Set,
    /// How many sets the solver was asked for.
    pub tried: usize,
}

/// More are not tried at once: by then it is another stack, and the nearest is taken for every package instead.
const MOST_GIVEN_UP: usize = 3;
const MOST_TRIES: usize = 4000;

/// Finds the smallest repair.
pub fn mend(
    index: &Index,
    rules: &[Rule],
    python: &Version,
    driver: Option<&Version>,
    wanted: &[Wanted],
) -> Result<Repair> {
    let no_python = || {
        Error::input(
            format!("no repair for Python {python}"),
            "give a version such as 3.12 with --for-python",
        )
    };
    let solver = Solver::new(index, python, Truth::all(rules, driver)).ok_or_else(no_python)?;
    let known: Vec<&Wanted> = wanted.iter().filter(|w| index.has(&w.name)).collect();
    let pins: Set = known
        .iter()
        .filter_map(|w| Some((w.name.clone(), w.version.clone()?.without_local())))
        .collect();
    // A version that was never released, or has no wheel for this Python, is given up from the start.
    let lost: BTreeSet<usize> = (0..known.len())
        .filter(|i| {
            let version = known[*i].version.as_ref();
            version.is_some_and(|v| {
                !index.release(&known[*i].name, v).is_some_and(|r| r.installs_on(python))
            })
        })
        .collect();
    let free: Vec<usize> = (0..known.len())
        .filter(|i| {
            !lost.contains(i) && (known[*i].version.is_some() || !known[*i].extras.is_empty())
        })
        .collect();
    let mut tried = 0;
    for size in 0..=MOST_GIVEN_UP.min(free.len()) {
        let mut best: Option<(usize, Set, BTreeSet<usize>)> = None;
        for some in choose(&free, size) {
            if tried >= MOST_TRIES {
                break;
            }
            tried += 1;
            let given: BTreeSet<usize> = some.into_iter().chain(lost.iter().copied()).collect();
            if let Some(set) = solver.fits(&roots(&known, &given), &pins) {
                let far = distance(index, &pins, &set);
                if best.as_ref().is_none_or(|b| far < b.0) {
                    best = Some((far, set, given));
                }
            }
        }
        if let Some((_, set, given)) = best {
            return Ok(repair(index, python, &known, &given, set, tried));
        }
    }
    let all: BTreeSet<usize> = (0..known.len()).collect();
    tried += 1;
    match solver.solve(&roots(&known, &all), &pins) {
        Ok(set) => Ok(repair(index, python, &known, &all, set, tried)),
        Err(why) => Err(Error::input(
            format!("no versions of these packages fit together for Python {python}:\n{}", why),
            "another Python (--for-python), a newer driver, or fewer packages",
        )),
    }
}

fn roots(known: &[&Wanted], given: &BTreeSet<usize>) -> Vec<Root> {
    let root = |(i, w): (usize, &&Wanted)| {
        let free = given.contains(&i);
        let range = match (&w.version, free) {
            (Some(version), false) => Range::singleton(version.clone().without_local()),
            _ => w.range.clone(),
        };
        Root {
            name: w.name.clone(),
            extras: if free { Vec::new() } else { w.extras.clone() },
            range,
        }
    };
    known.iter().enumerate().map(root).collect()
}

/// How far a set is from the wanted versions: releases between them, newer counted like older.
fn distance(index: &Index, pins: &Set, set: &Set) -> usize {
    let place = |name: &str, v: &Version| index.releases(name).partition_point(|r| r.version < *v);
    pins.iter()
        .filter_map(|(name, pin)| Some(place(name, pin).abs_diff(place(name, set.get(name)?))))
        .sum()
}

fn repair(
    index: &Index,
    python: &Version,
    known: &[&Wanted],
    given: &BTreeSet<usize>,
    set: Set,
    tried: usize,
) -> Repair {
    let mut changes = Vec::new();
    for (i, wanted) in known.iter().enumerate().filter(|(i, _)| given.contains(i)) {
        let Some(to) = set.get(&wanted.name) else { continue };
        let same = wanted.version.as_ref().is_some_and(|v| v.clone().without_local() == *to);
        if given.contains(&i) && (!same || !wanted.extras.is_empty()) {
            changes.push(Change {
                name: wanted.name.clone(),
                from: wanted.version.as_ref().map(Version::to_string),
                to: to.clone(),
                without: wanted.extras.clone(),
            });
        }
    }
    // What a plain resolver would choose for the others, the pins being these: where it chooses newer and the set
    // does not, the cap is part of the repair.
    let pinned: Vec<Root> = known
        .iter()
        .filter_map(|w| {
            let version = set.get(&w.name)?;
            Some(Root {
                name: w.name.clone(),
                extras: Vec::new(),
                range: Range::singleton(version.clone()),
            })
        })
        .collect();
    let plain = Solver::new(index, python, Truth::metadata())
        .and_then(|s| s.solve(&pinned, &Set::new()).ok());
    let named: BTreeSet<&str> = known.iter().map(|w| w.name.as_str()).collect();
    let caps = set.iter().filter(|(name, version)| {
        let newer = plain.as_ref().and_then(|p| p.get(*name)).is_some_and(|v| v > *version);
        !named.contains(name.as_str()) && newer
    });
    Repair { changes, caps: caps.map(|(n, v)| (n.clone(), v.clone())).collect(), set, tried }
}

/// Every choice of `size` among `items`, in order.
fn choose(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, first) in items.iter().enumerate() {
        for mut rest in choose(&items[i + 1..], size - 1) {
            rest.insert(0, *first);
            all.push(rest);
        }
    }
    all
}
