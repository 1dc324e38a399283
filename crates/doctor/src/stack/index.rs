//! The shipped index: what the packages of the stack require, version by version, on a day. Made by
//! `data/make_index.py`; `--online` brings it up to date (see [`super::online`]).

use crate::python::dist::{Needs, needs};
use pep440_rs::{Version, VersionSpecifiers};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::str::FromStr;
use std::sync::OnceLock;

static SHIPPED: &[u8] = include_bytes!("../../data/index.json.gz");

/// The index.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// The day it was made.
    pub date: String,
    packages: BTreeMap<String, Vec<Release>>,
}

/// One release of a package.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// The day it was uploaded, in days since 1970.
    pub day: Option<i64>,
    /// The Python it asks for.
    pub python: Option<VersionSpecifiers>,
    /// The Pythons that have an installable wheel, such as `3.10`.
    pub pythons: Vec<String>,
    /// Its extras.
    pub extras: Vec<String>,
    /// What it requires of the packages in the index, as written.
    pub requires: Vec<String>,
}

#[derive(Deserialize)]
struct Written {
    date: String,
    packages: BTreeMap<String, WrittenPackage>,
}

#[derive(Deserialize)]
struct WrittenPackage {
    sets: Vec<WrittenSet>,
    versions: Vec<(String, String, usize, Vec<String>)>,
}

#[derive(Deserialize)]
struct WrittenSet {
    python: String,
    extras: Vec<String>,
    requires: Vec<String>,
}

impl Index {
    /// The index that came with this program.
    pub fn shipped() -> &'static Index {
        static INDEX: OnceLock<Index> = OnceLock::new();
        INDEX.get_or_init(|| {
            let mut text = String::new();
            let read = flate2::read::GzDecoder::new(SHIPPED).read_to_string(&mut text);
            read.ok()
                .and_then(|_| serde_json::from_str(&text).ok())
                .map(Index::from_written)
                .unwrap_or_default()
        })
    }

    fn from_written(written: Written) -> Index {
        let mut packages = BTreeMap::new();
        for (name, package) in written.packages {
            let releases =
                package.versions.into_iter().filter_map(|(version, day, set, pythons)| {
                    let set = package.sets.get(set)?;
                    Some(Release {
                        version: Version::from_str(&version).ok()?,
                        day: days(&day),
                        python: VersionSpecifiers::from_str(&set.python).ok(),
                        pythons,
                        extras: set.extras.iter().map(|e| crate::python::dist::normal(e)).collect(),
                        requires: set.requires.clone(),
                    })
                });
            let mut releases: Vec<Release> = releases.collect();
            releases.sort_by(|a, b| a.version.cmp(&b.version));
            packages.insert(name, releases);
        }
        Index { date: written.date, packages }
    }

    /// Whether it knows a package.
    pub fn has(&self, name: &str) -> bool {
        self.packages.contains_key(name)
    }

    /// The releases of a package, oldest first.
    pub fn releases(&self, name: &str) -> &[Release] {
        self.packages.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// One release.
    pub fn release(&self, name: &str, version: &Version) -> Option<&Release> {
        let version = version.clone().without_local();
        self.releases(name).iter().find(|r| r.version == version)
    }

    /// The day a release was uploaded, in days since 1970.
    pub fn day(&self, name: &str, version: &Version) -> Option<i64> {
        self.release(name, version)?.day
    }

    /// How many days an Unsloth is older than the transformers or trl beside it, whichever came out later.
    pub fn unsloth_days_behind<'v>(
        &self,
        unsloth: &Version,
        others: impl Iterator<Item = (&'v str, &'v Version)>,
    ) -> Option<i64> {
        let ours = self.day("unsloth", unsloth)?;
        let theirs = others
            .filter(|(name, _)| ["transformers", "trl"].contains(name))
            .filter_map(|(name, v)| self.day(name, v));
        Some(theirs.max()? - ours)
    }

    /// How many days an unsloth_zoo is newer than the Unsloth it belongs to.
    pub fn zoo_days_ahead(&self, unsloth: &Version, zoo: &Version) -> Option<i64> {
        Some(self.day("unsloth-zoo", zoo)? - self.day("unsloth", unsloth)?)
    }

    /// Every package.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str)
    }

    /// Adds a release that is newer than the index.
    pub fn add(&mut self, name: &str, release: Release) {
        let releases = self.packages.entry(name.into()).or_default();
        if releases.iter().all(|r| r.version != release.version) {
            releases.push(release);
            releases.sort_by(|a, b| a.version.cmp(&b.version));
        }
    }

    /// How many releases it holds.
    pub fn count(&self) -> usize {
        self.packages.values().map(Vec::len).sum()
    }
}

impl Release {
    /// Its requirements, parsed.
    pub fn needs(&self) -> Vec<Needs> {
        self.requires.iter().filter_map(|line| needs(line)).collect()
    }

    /// Whether it can be installed for a Python (`3.10`): its own word, and a wheel that fits. A source
    /// distribution counts where there is no wheel at all.
    pub fn installs_on(&self, python: &Version) -> bool {
        let short: Vec<String> = python.release().iter().take(2).map(u64::to_string).collect();
        let wheel = self.pythons.is_empty() || self.pythons.contains(&short.join("."));
        wheel && self.python.as_ref().is_none_or(|p| p.contains(python))
    }
}

/// Days since 1970 of a date such as `2024-10-31` (proleptic Gregorian calendar, counted from 1 March).
pub fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(|p| p.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    Some(
        365 * year + year.div_euclid(4) - year.div_euclid(100)
            + year.div_euclid(400)
            + (153 * month + 2) / 5
            + day
            - 1
            - 719_468,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_1970() {
        assert_eq!(days("1970-01-01"), Some(0));
        assert_eq!(days("2000-03-01"), Some(11_017));
        assert_eq!(days("2024-10-31"), Some(20_027));
        assert_eq!(days("soon"), None);
    }

    #[test]
    fn the_shipped_index_reads_and_knows_the_stack() {
        let index = Index::shipped();
        let trl = Version::from_str("0.11.4").expect("a version");
        let release = index.release("trl", &trl).expect("trl 0.11.4 is in the index");
        assert!(release.requires.iter().any(|r| r.starts_with("transformers")));
        assert!(index.day("trl", &trl).is_some(), "upload dates are there");
        assert!(index.count() > 500);
    }
}
