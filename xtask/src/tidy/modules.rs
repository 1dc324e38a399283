//! Every module says in its first line what it is, and is short enough to be read.

use super::{Report, files};
use std::path::Path;

/// From here on a file is told about.
const LONG: usize = 400;
/// From here on it is refused.
const TOO_LONG: usize = 600;

/// Every Rust file begins with `//!`.
pub(super) fn headers(root: &Path) -> Report {
    let mut report = Report::default();
    for (file, text) in files(root, &[".rs"]) {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        if first.strip_prefix("//!").is_none_or(|words| words.trim().is_empty()) {
            report.finding(
                file,
                1,
                "the module does not say what it is",
                "begin it with a line `//! What it is.`",
            );
        }
    }
    report
}

/// No file is longer than one sitting.
pub(super) fn lengths(root: &Path) -> Report {
    let mut report = Report::default();
    for (file, text) in files(root, &[".rs", ".cu", ".cuh"]) {
        let lines = text.lines().count();
        if lines > TOO_LONG {
            let remedy = format!("split it by purpose into rooms of less than {LONG}");
            report.finding(file, TOO_LONG + 1, format!("the file has {lines} lines"), remedy);
        } else if lines > LONG {
            report.notes.push(format!("{file} has {lines} lines, refused from {TOO_LONG} on"));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, repository};
    use super::*;

    #[test]
    fn a_module_without_a_header_is_found() {
        let files = [
            ("crates/a/src/lib.rs", "//! The room.\n"),
            ("crates/a/src/bare.rs", "fn f() {}\n"),
            ("crates/a/src/empty.rs", ""),
            ("crates/a/src/wordless.rs", "//!\n//! Late.\n"),
        ];
        let expected =
            ["crates/a/src/bare.rs:1", "crates/a/src/empty.rs:1", "crates/a/src/wordless.rs:1"];
        assert_eq!(found(headers, &files), expected);
    }

    #[test]
    fn a_long_file_is_told_and_a_longer_one_refused() {
        let (long, longer) = ("//\n".repeat(401), "//\n".repeat(601));
        let root = repository(&[("crates/a/long.rs", &long), ("crates/a/longer.cu", &longer)]);
        let report = lengths(root.path());
        assert_eq!(report.notes, ["crates/a/long.rs has 401 lines, refused from 600 on"]);
        assert_eq!(report.findings.len(), 1);
        assert_eq!(
            (report.findings[0].file.as_str(), report.findings[0].line),
            ("crates/a/longer.cu", 601)
        );
    }
}
