//! docs/doctor.md says what the rules and the table of checks say; `UPDATE_EXPECT=1` writes it anew.

use doctor::rules::{checks, shipped};
use std::path::Path;

#[test]
fn the_page_on_what_is_seen_is_what_the_rules_see() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/doctor.md");
    let page = checks::markdown(&shipped()).expect("the table is sound");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, &page).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/doctor.md is old: run this test with UPDATE_EXPECT=1");
}

#[test]
fn all_five_issues_and_27_checks_are_in_it() {
    let page = checks::markdown(&shipped()).expect("the table is sound");
    let rows = |head: &str| {
        let part = page.split(head).nth(1).expect("the table").split("\n## ").next();
        part.unwrap_or_default().lines().filter(|line| line.starts_with("| ")).count() - 1
    };
    assert_eq!((rows("five issues\n"), rows("Further failures\n")), (5, 27));
}
