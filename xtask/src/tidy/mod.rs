//! `cargo xtask tidy`: what holds for the repository as a whole, checked.
//!
//! A check is a function from the root of a repository to a [`Report`]. Each has a test that plants a
//! violation in a temporary folder and sees it found.

mod documents;
mod edges;
mod modules;
mod programs;
mod rooms;
mod rust_code;
mod words;

use std::path::{Path, PathBuf};

/// A check of the repository at a root.
type Check = fn(&Path) -> Report;

/// The checks in the order they run: the quick ones first, so that a slip shows at once.
const CHECKS: &[(&str, Check)] = &[
    ("every module says what it is", modules::headers),
    ("files are short", modules::lengths),
    ("op rooms are complete", rooms::ops),
    ("rooms depend on what they may", edges::edges),
    ("unsafe code is in engine alone", words::unsafety),
    ("only cli prints", words::printing),
    ("formatting", programs::formatting),
    ("lints", programs::lints),
    ("licences, bans and sources", programs::deny),
    ("advisories", programs::advisories),
    ("generated documents are fresh", documents::fresh),
];

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Violations; the repository is tidy without.
    findings: Vec<Finding>,
    /// What is worth saying and no violation.
    notes: Vec<String>,
}

/// One violation.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The file, from the root.
    file: String,
    line: usize,
    problem: String,
    /// What to do.
    remedy: String,
}

impl Report {
    fn finding(
        &mut self,
        file: impl Into<String>,
        line: usize,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.findings.push(Finding {
            file: file.into(),
            line,
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }
}

/// Runs every check and prints a line for each.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut failed = 0;
    for (name, check) in CHECKS {
        let report = check(root);
        failed += usize::from(!report.findings.is_empty());
        print!("{}", describe(name, &report));
    }
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of {} checks failed", CHECKS.len())),
    }
}

/// A check's line, and below it a line or two for each finding.
fn describe(name: &str, report: &Report) -> String {
    let verdict = if report.findings.is_empty() { "ok    " } else { "FAILED" };
    let mut text = format!("{verdict}  {name}\n");
    for note in &report.notes {
        text += &format!("        {}\n", note.trim_end().replace('\n', "\n        "));
    }
    for Finding { file, line, problem, remedy } in &report.findings {
        text +=
            &format!("        {file}:{line}: {}\n", problem.trim_end().replace('\n', "\n        "));
        text += &format!("          hint: {remedy}\n");
    }
    text
}

/// Every file of the rooms whose name ends in one of `endings`, with its text, in order.
fn files(root: &Path, endings: &[&str]) -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> = vec![root.join("crates"), root.join("xtask")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "target" {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending))
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((from_root(root, &path), text));
            }
        }
    }
    found.sort();
    found
}

/// A path as it is told: from the root, with slashes.
fn from_root(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A repository with these files.
    pub(super) fn repository(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    /// The places of what a check finds in a repository with these files.
    pub(super) fn found(check: Check, files: &[(&str, &str)]) -> Vec<String> {
        let report = check(repository(files).path());
        report.findings.iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect()
    }

    #[test]
    fn a_finding_is_told_with_its_place_and_a_hint() {
        let mut report = Report::default();
        report.notes.push("a note".to_owned());
        report.finding("crates/a/src/lib.rs", 3, "a problem", "a remedy");
        assert_eq!(
            describe("a check", &report),
            "FAILED  a check\n        a note\n        crates/a/src/lib.rs:3: a problem\n          hint: a remedy\n"
        );
        assert_eq!(describe("a check", &Report::default()), "ok      a check\n");
    }

    #[test]
    fn files_are_found_in_every_room_and_not_in_target() {
        let root = repository(&[
            ("crates/a/src/deep/x.rs", ""),
            ("xtask/src/main.rs", ""),
            ("crates/a/target/y.rs", ""),
            ("z.rs", ""),
        ]);
        let names: Vec<String> =
            files(root.path(), &[".rs"]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["crates/a/src/deep/x.rs", "xtask/src/main.rs"]);
    }
}
