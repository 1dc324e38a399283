//! `--online`: releases newer than the shipped index, from PyPI's simple API (PEP 691, 700) and the metadata files
//! beside the wheels (PEP 658).

use super::index::{Index, Release, days};
use crate::error::{Error, Result};
use crate::python::dist::normal;
use pep440_rs::{Version, VersionSpecifiers};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::str::FromStr;

/// A page is read no further than this; torch's is under 1 MB.
const LARGEST_PAGE: u64 = 64 << 20;
/// Newer releases per package whose metadata is fetched; more means the index is too old to be worth mending.
const MOST_NEW: usize = 40;

#[derive(Deserialize)]
struct Project {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    url: String,
    #[serde(default, rename = "requires-python")]
    requires_python: Option<String>,
    #[serde(default, rename = "upload-time")]
    upload_time: Option<String>,
    #[serde(default)]
    yanked: serde_json::Value,
}

/// The index with everything newer that PyPI has; the second value counts what was added.
pub fn refresh(index: &Index) -> Result<(Index, usize)> {
    // The machine's own certificates: behind a company's proxy no others are good.
    let tls =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(std::time::Duration::from_secs(60)))
        .tls_config(tls)
        .build()
        .new_agent();
    let get = |url: &str| -> Result<String> {
        let failed = |error: ureq::Error| {
            Error::machine(format!("{url}: {error}"), "without --online the shipped index is used")
        };
        let mut answer = agent
            .get(url)
            .header("Accept", "application/vnd.pypi.simple.v1+json")
            .call()
            .map_err(failed)?;
        answer.body_mut().with_config().limit(LARGEST_PAGE).read_to_string().map_err(failed)
    };
    let mut newer = index.clone();
    let mut added = 0;
    let names: Vec<String> = index.names().map(String::from).collect();
    for name in &names {
        let page = get(&format!("https://pypi.org/simple/{name}/"))?;
        for (release, url) in releases(&page, name, index)? {
            let text = if url.ends_with(".whl") {
                get(&format!("{url}.metadata"))?
            } else {
                String::new()
            };
            newer.add(name, with_metadata(release, &text, index));
            added += 1;
        }
    }
    newer.date = "today".into();
    Ok((newer, added))
}

/// The final releases of a page that are newer than the index's newest, each with the file whose metadata counts.
fn releases(page: &str, name: &str, index: &Index) -> Result<Vec<(Release, String)>> {
    let project: Project = serde_json::from_str(page).map_err(|e| {
        Error::machine(
            format!("PyPI's page of {name} is not understood: {e}"),
            "without --online the shipped index is used",
        )
    })?;
    let newest = index.releases(name).last().map(|r| r.version.clone());
    let mut found: BTreeMap<Version, (Release, String)> = BTreeMap::new();
    for file in project.files {
        let yanked =
            !matches!(file.yanked, serde_json::Value::Null | serde_json::Value::Bool(false));
        let wheel = file.filename.ends_with(".whl");
        let usable = wheel
            && (file.filename.ends_with("-any.whl")
                || file.filename.contains("linux") && file.filename.contains("x86_64"));
        let Some(version) = version_of(&file.filename) else { continue };
        if yanked
            || !usable
            || version.any_prerelease()
            || newest.as_ref().is_some_and(|n| version <= *n)
        {
            continue;
        }
        let entry = found.entry(version.clone()).or_insert_with(|| {
            let release = Release {
                version,
                day: file.upload_time.as_deref().and_then(|t| days(t.get(..10)?)),
                python: file
                    .requires_python
                    .as_deref()
                    .and_then(|p| VersionSpecifiers::from_str(p).ok()),
                pythons: Vec::new(),
                extras: Vec::new(),
                requires: Vec::new(),
            };
            (release, file.url.clone())
        });
        entry.0.pythons.extend(pythons(&file.filename));
    }
    Ok(found.into_values().rev().take(MOST_NEW).collect())
}

/// `name-1.2.3-py3-none-any.whl` is version 1.2.3.
fn version_of(filename: &str) -> Option<Version> {
    Version::from_str(filename.split('-').nth(1)?).ok()
}

/// The Pythons a wheel's tag is good for.
fn pythons(filename: &str) -> Vec<String> {
    let tag = filename.rsplit('-').nth(2).unwrap_or("");
    let stable = filename.contains("-abi3-") || tag.contains("py3");
    (9..=20)
        .filter(|minor| stable || tag.split('.').any(|t| t == format!("cp3{minor}")))
        .map(|minor| format!("3.{minor}"))
        .collect()
}

fn with_metadata(mut release: Release, text: &str, index: &Index) -> Release {
    for line in text.lines().take_while(|l| !l.is_empty()) {
        if let Some(need) = line.strip_prefix("Requires-Dist: ") {
            let name: String = need
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
                .collect();
            if index.has(&normal(&name)) {
                release.requires.push(need.into());
            }
        } else if let Some(extra) = line.strip_prefix("Provides-Extra: ") {
            release.extras.push(normal(extra));
        }
    }
    release
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_the_newer_releases_alone() {
        let page = r#"{"files": [
            {"filename": "trl-0.7.0-py3-none-any.whl", "url": "https://x/a.whl"},
            {"filename": "trl-99.1.0-py3-none-any.whl", "url": "https://x/b.whl", "requires-python": ">=3.11",
             "upload-time": "2027-01-02T03:04:05Z"},
            {"filename": "trl-99.2.0-py3-none-any.whl", "url": "https://x/c.whl", "yanked": "broken"},
            {"filename": "trl-99.3.0rc1-py3-none-any.whl", "url": "https://x/d.whl"}]}"#;
        let index = Index::shipped();
        let found = releases(page, "trl", index).expect("understood");
        assert_eq!(found.len(), 1);
        let (release, url) = &found[0];
        assert_eq!(
            (release.version.to_string().as_str(), url.as_str()),
            ("99.1.0", "https://x/b.whl")
        );
        assert_eq!(release.day, days("2027-01-02"));
        let release = with_metadata(
            release.clone(),
            "Name: trl\nRequires-Dist: transformers>=5\nRequires-Dist: rich\n\nRequires-Dist: torch",
            index,
        );
        assert_eq!(
            release.requires,
            ["transformers>=5"],
            "only the index's packages, only the header"
        );
    }

    #[test]
    fn a_page_that_is_no_json_is_an_error() {
        assert!(releases("<html>", "trl", Index::shipped()).is_err());
    }
}
