//! The profiles: dated locks that a resolver accepted, with what they correct and the security floor they meet.

use crate::error::{Error, Result};
use pep440_rs::Version;
use serde::Deserialize;
use std::str::FromStr;

const TEXT: &str = include_str!("profiles.toml");

macro_rules! locks {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../../data/locks/", $name)))),*] };
}

static LOCKS: &[(&str, &str)] = locks![
    "e1-transformers-kept.txt",
    "e2-trl-kept.txt",
    "e3-experimental.txt",
    "e4-torch26-bnb047.txt",
    "now-cuda128-py310.txt",
    "now-cuda128-py312.txt",
    "now-cuda128-py312-no-unsloth.txt",
    "now-cuda13-py312.txt",
    "now-cuda13-py312-no-unsloth.txt",
    "p1-no-unsloth.txt",
    "p2-production.txt",
    "p3-lowest.txt",
    "p4-healthier.txt",
];

/// A profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    lock: String,
    /// The Python it was resolved for.
    pub python: String,
    /// The driver its torch needs.
    pub driver: String,
    /// The CUDA version of its torch.
    pub cuda: String,
    /// The day it was resolved for.
    pub date: String,
    /// What it is, in one line.
    pub title: String,
    /// What it changes of the research summary.
    pub corrects: String,
    /// The security floor it meets.
    pub security: String,
    /// The prebuilt flash-attn wheel that fits.
    pub flash_attn: Option<String>,
}

#[derive(Deserialize)]
struct File {
    profile: Vec<Profile>,
}

/// Every profile.
pub fn all() -> Vec<Profile> {
    toml::from_str::<File>(TEXT).map(|f| f.profile).unwrap_or_default()
}

/// The profile of a name.
pub fn named(name: &str) -> Result<Profile> {
    let all = all();
    let names: Vec<String> = all.iter().map(|p| p.name.clone()).collect();
    all.into_iter().find(|p| p.name == name).ok_or_else(|| {
        Error::input(
            format!("unknown profile '{name}'"),
            format!("the profiles are {}", names.join(", ")),
        )
    })
}

impl Profile {
    /// The lock as text: one `name==version` a line.
    pub fn lock(&self) -> &'static str {
        LOCKS.iter().find(|(name, _)| *name == self.lock).map_or("", |(_, text)| text)
    }

    /// The lock's packages.
    pub fn packages(&self) -> Vec<(String, Version)> {
        let lines = self.lock().lines().filter_map(|line| line.split_once("=="));
        lines
            .filter_map(|(name, version)| {
                Some((name.to_string(), Version::from_str(version.trim()).ok()?))
            })
            .collect()
    }

    /// The version of one package.
    pub fn version(&self, name: &str) -> Option<Version> {
        self.packages().into_iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }
}
