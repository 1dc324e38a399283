//! Every environment of `fixtures/doctor` gets exactly the findings planted in it, and the healthy ones none.

use doctor::diagnosis::{Diagnosis, diagnose};
use doctor::facts::described::{Described, Description};
use doctor::prospect::Engine;
use doctor::python::locate;
use doctor::rules;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    expect: Vec<String>,
    python: Option<PathBuf>,
    machine: Description,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/doctor")
}

fn cases() -> BTreeMap<String, Case> {
    let mut cases = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).expect("the fixtures are there").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path().join("case.toml")) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        let case = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}/case.toml: {e}"));
        cases.insert(name, case);
    }
    cases
}

fn look(name: &str, case: &Case) -> Diagnosis {
    let machine = Described::new(folder().join(name).join("root"), case.machine.clone());
    let environment = case
        .python
        .as_ref()
        .map(|path| locate::given(&machine, path).unwrap_or_else(|e| panic!("{name}: {e}")));
    diagnose(&machine, environment, Engine::default(), &rules::shipped())
}

#[test]
fn every_planted_fault_is_found_and_nothing_else() {
    let cases = cases();
    let mut wrong = String::new();
    let (mut planted, mut healthy) = (0, 0);
    for (name, case) in &cases {
        let diagnosis = look(name, case);
        let found: BTreeSet<&str> = diagnosis.findings.iter().map(|f| f.rule.as_str()).collect();
        let expected: BTreeSet<&str> = case.expect.iter().map(String::as_str).collect();
        planted += expected.len();
        healthy += usize::from(expected.is_empty());
        if found != expected {
            let titles: Vec<&str> = diagnosis.findings.iter().map(|f| f.title.as_str()).collect();
            wrong.push_str(&format!(
                "{name}: expected {expected:?}, found {found:?}\n  {titles:?}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(
        cases.len() >= 60 && planted >= 60 && healthy >= 30,
        "{} cases, {planted} planted, {healthy} healthy",
        cases.len()
    );
}

#[test]
fn every_rule_has_an_environment_where_it_fires_and_a_near_one_where_it_does_not() {
    let cases = cases();
    for rule in rules::read(rules::TEXT).expect("the rules read") {
        if rule.id == "self-test-failed" || rule.id == "prospect-cuda-fails" {
            continue; // they come from the engine, not from an environment; tests/commands.rs has it
        }
        let fires = cases.get(&rule.id).unwrap_or_else(|| panic!("no fixture for {}", rule.id));
        assert!(fires.expect.contains(&rule.id), "{} does not expect itself", rule.id);
        let near = cases
            .get(&format!("{}.near", rule.id))
            .unwrap_or_else(|| panic!("no near fixture for {}", rule.id));
        assert!(!near.expect.contains(&rule.id), "{}.near expects it", rule.id);
    }
}

#[test]
fn every_finding_shows_its_evidence_and_one_command_for_each_installer() {
    for (name, case) in cases() {
        for finding in look(&name, &case).findings {
            assert!(!finding.evidence.is_empty(), "{name}: {} shows nothing", finding.rule);
            for evidence in &finding.evidence {
                assert!(
                    !evidence.path.is_empty() && !evidence.value.is_empty(),
                    "{name}: {evidence:?}"
                );
            }
            for text in [
                &finding.title,
                &finding.why,
                &finding.mend.pip,
                &finding.mend.uv,
                &finding.mend.conda,
            ] {
                assert!(
                    !text.is_empty() && !text.contains('?'),
                    "{name}: {} leaves a fact unfilled: {text}",
                    finding.rule
                );
            }
        }
    }
}

#[test]
fn a_diagnosis_says_the_same_twice() {
    for (name, case) in cases().iter().take(20) {
        assert_eq!(look(name, case).findings, look(name, case).findings, "{name}");
    }
}
