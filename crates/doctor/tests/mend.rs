//! The smallest repairs of the research summary's stacks, and what is said of them before anything is installed.

use doctor::rules;
use doctor::stack::index::Index;
use doctor::stack::mend::{Repair, mend};
use doctor::stack::{check, read};
use pep440_rs::Version;
use std::str::FromStr;

const PRODUCTION: &str = "torch==2.4.1\ntransformers==4.45.2\ntrl==0.11.4\nbitsandbytes==0.43.0\npeft==0.7.0\naccelerate==0.27.0\ndatasets==2.14.0\n";
const EXPERIMENTAL: &str = "torch==2.5.1\ntransformers==4.51.3\ntrl==0.21.0\nbitsandbytes==0.45.3\npeft==0.14.0\naccelerate==1.4.0\ndatasets==3.3.2\n";

fn v(text: &str) -> Version {
    Version::from_str(text).expect("a version")
}

fn repair(lines: &str, driver: Option<&str>) -> Repair {
    let asked = read::lines(lines, "test");
    let driver = driver.map(v);
    mend(Index::shipped(), &rules::shipped(), &v("3.10"), driver.as_ref(), &asked.wanted)
        .expect("there is a repair")
}

fn judged(repair: &Repair) -> Vec<String> {
    let findings =
        check::judge(Index::shipped(), &rules::shipped(), &v("3.10"), None, &[], &repair.set, &[]);
    let errors = findings.into_iter().filter(|f| f.severity == doctor::finding::Severity::Error);
    errors.map(|f| f.title).collect()
}

#[test]
fn production_keeps_every_pin_under_three_caps() {
    let repair = repair(PRODUCTION, None);
    assert!(repair.changes.len() <= 1, "P1 changes one pin: {:?}", repair.changes);
    assert!(judged(&repair).is_empty(), "{:?}", judged(&repair));
    assert!(repair.set["numpy"] < v("2") && repair.set["pyarrow"] < v("21"));
}

#[test]
fn production_with_unsloth_is_no_further_than_p2() {
    let repair =
        repair(&format!("{PRODUCTION}unsloth[cu121-ampere-torch240]\nflash-attn==2.5.9\n"), None);
    // P2 changes bitsandbytes, peft, accelerate, datasets, the extra, and flash-attn.
    assert!(repair.changes.len() <= 6, "{:#?}", repair.changes);
    assert_eq!(repair.set["transformers"], v("4.45.2"));
    assert!(judged(&repair).is_empty(), "{:?}", judged(&repair));
}

#[test]
fn experimental_changes_trl_alone() {
    let repair = repair(EXPERIMENTAL, None);
    assert_eq!(repair.changes.len(), 1, "E1 changes one pin: {:#?}", repair.changes);
    assert!(judged(&repair).is_empty(), "{:?}", judged(&repair));
}

#[test]
fn experimental_with_unsloth_is_no_further_than_e3() {
    let repair =
        repair(&format!("{EXPERIMENTAL}unsloth[cu124-ampere-torch250]\nflash-attn==2.5.9\n"), None);
    // E3 changes trl, datasets, the extra, and flash-attn.
    assert!(repair.changes.len() <= 4, "{:#?}", repair.changes);
    assert!(judged(&repair).is_empty(), "{:?}", judged(&repair));
}

#[test]
fn a_set_that_holds_is_left_alone() {
    let repair = repair("torch==2.10.0\ntransformers==5.17.0\ntrl==1.14.2\npeft==0.21.2\n", None);
    assert!(repair.changes.is_empty(), "{:?}", repair.changes);
}

#[test]
fn an_old_driver_gets_a_torch_it_runs() {
    let lines = "torch==2.14.1\ntransformers==5.17.0\ntrl==1.14.2\n";
    assert!(repair(lines, Some("580.65.06")).changes.is_empty());
    let old = repair(lines, Some("535.183.01"));
    assert_eq!(old.changes.len(), 1);
    assert_eq!(old.set["torch"], v("2.10.0"), "the last with CUDA 12 on PyPI, and the nearest");
}

#[test]
fn an_unpinned_unsloth_is_not_taken_from_another_year() {
    let lines = "unsloth\ntransformers==5.17.0\ntorch==2.10.0\n";
    let repair = repair(lines, None);
    assert!(repair.set["unsloth"] >= v("2026.9"), "{}", repair.set["unsloth"]);
}

#[test]
fn what_a_resolver_accepts_and_breaks_is_said_before_installing() {
    let asked = read::lines(PRODUCTION, "test");
    let verdict =
        check::check(Index::shipped(), &rules::shipped(), &v("3.10"), None, &[], &asked.wanted);
    assert!(
        verdict.conflict.is_none() && verdict.impossible.is_empty(),
        "a resolver accepts it: {:?}",
        verdict.conflict
    );
    let ids: Vec<&str> = verdict.findings.iter().map(|f| f.rule.as_str()).collect();
    assert!(ids.contains(&"datasets-pyarrow") && ids.contains(&"datasets-numpy-2"), "{ids:?}");
    assert!(!verdict.fine());
}

#[test]
fn what_cannot_be_is_said_with_what_is_near() {
    let says = |lines: &str| {
        let asked = read::lines(lines, "test");
        let verdict =
            check::check(Index::shipped(), &rules::shipped(), &v("3.10"), None, &[], &asked.wanted);
        (verdict.impossible.join("\n"), verdict.conflict.unwrap_or_default())
    };
    assert!(says("flash-attn==2.5.9").0.contains("2.5.9.post1"), "{:?}", says("flash-attn==2.5.9"));
    assert!(says(EXPERIMENTAL).1.contains("trl"), "{:?}", says(EXPERIMENTAL));
    assert!(says("unsloth[cu124-ampere-torch250]==2024.9.post3").0.contains("no extra"));
    assert!(says("torch==2.15.0").0.contains("no wheel for Python 3.10"));
}

#[test]
fn requirement_files_are_read_as_people_write_them() {
    let text = "# a comment\n-r other.txt\ntorch==2.4.1 --hash=sha256:00 \\\n    --hash=sha256:11\n\
                unsloth[x] @ git+https://github.com/unslothai/unsloth.git\npeft>=0.7 # why\n???\n";
    let asked = read::lines(text, "requirements.txt");
    let names: Vec<&str> = asked.wanted.iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["torch", "unsloth", "peft"]);
    let remarks = asked.remarks.join("\n");
    for word in ["requirements.txt:2", "moving branch", "not understood"] {
        assert!(remarks.contains(word), "{remarks}");
    }
}
