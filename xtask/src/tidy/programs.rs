//! Checks that other programs make: rustfmt, clippy, cargo-deny.

use super::Report;
use std::path::Path;
use std::process::{Command, Stdio};

/// Every file is as rustfmt writes it.
pub(super) fn formatting(root: &Path) -> Report {
    let mut report = Report::default();
    // With -l, the name of each file that would change stands in a line of its own.
    let run = cargo(root, &["fmt", "--all", "--check", "--", "-l"]);
    for file in run.text.lines().filter(|line| line.ends_with(".rs")) {
        let file = super::from_root(root, Path::new(file));
        report.finding(file, 1, "is not formatted", "cargo fmt --all");
    }
    if !run.success && report.findings.is_empty() {
        report.finding("Cargo.toml", 1, run.text, "mend what rustfmt cannot read");
    }
    report
}

/// Clippy has nothing to say, in tests and benches too.
pub(super) fn lints(root: &Path) -> Report {
    let mut report = Report::default();
    let run = cargo(
        root,
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--message-format=short",
            "--",
            "-Dwarnings",
        ],
    );
    for (file, line, problem) in run.text.lines().filter_map(diagnostic) {
        report.finding(file, line, problem, "cargo clippy --workspace --all-targets");
    }
    if !run.success && report.findings.is_empty() {
        report.finding("Cargo.toml", 1, run.text, "cargo clippy --workspace --all-targets");
    }
    report
}

/// A line `file:line:column: error: what` of a compiler.
fn diagnostic(line: &str) -> Option<(&str, usize, &str)> {
    let (place, problem) = line.split_once(": ")?;
    let mut parts = place.rsplitn(3, ':');
    let _column: usize = parts.next()?.parse().ok()?;
    let line = parts.next()?.parse().ok()?;
    Some((parts.next()?, line, problem))
}

/// Licences, bans and sources are as deny.toml wants them.
pub(super) fn deny(root: &Path) -> Report {
    let mut report = Report::default();
    let run = cargo_deny(root, &["licenses", "bans", "sources"]);
    if !run.success {
        report.finding("deny.toml", 1, run.text, deny_remedy(root));
    }
    report
}

/// Where the list of known vulnerabilities is.
const ADVISORIES: &str = "https://github.com/RustSec/advisory-db";

/// No dependency has a known vulnerability. Where the list cannot be reached, the check says aloud that
/// it was not made.
pub(super) fn advisories(root: &Path) -> Report {
    advisories_of(ADVISORIES, root)
}

fn advisories_of(list: &str, root: &Path) -> Report {
    let mut report = Report::default();
    // Asked first, since cargo-deny tries again for minutes.
    let reached =
        run(Command::new("git").args(["ls-remote", list, "HEAD"]).env("GIT_TERMINAL_PROMPT", "0"));
    if !reached.success {
        report
            .notes
            .push(format!("NOT CHECKED, the list of advisories is out of reach: {}", reached.text));
        return report;
    }
    let run = cargo_deny(root, &["advisories"]);
    if !run.success {
        report.finding("Cargo.lock", 1, run.text, deny_remedy(root));
    }
    report
}

fn cargo_deny(root: &Path, checks: &[&str]) -> Run {
    let mut arguments =
        vec!["deny", "--color=never", "--log-level=error", "check", "--hide-inclusion-graph"];
    arguments.extend(checks);
    cargo(root, &arguments)
}

fn deny_remedy(root: &Path) -> &'static str {
    if cargo(root, &["deny", "--version"]).success {
        "take another crate, or name the exception with its reason in deny.toml"
    } else {
        "cargo install --locked cargo-deny"
    }
}

/// What a program said, and whether it was content.
struct Run {
    success: bool,
    text: String,
}

/// Runs cargo in a repository.
fn cargo(root: &Path, arguments: &[&str]) -> Run {
    run(Command::new(crate::cargo()).args(arguments).current_dir(root))
}

fn run(command: &mut Command) -> Run {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr]
                .map(|text| String::from_utf8_lossy(&text).into_owned());
            Run { success: output.status.success(), text: text.concat() }
        }
        Err(error) => Run { success: false, text: format!("cannot start {command:?}: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{found, repository};
    use super::*;

    const MANIFEST: (&str, &str) = (
        "Cargo.toml",
        "[package]\nname = \"planted\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
    );

    #[test]
    fn a_file_that_is_not_formatted_is_found() {
        assert_eq!(found(formatting, &[MANIFEST, ("src/lib.rs", "fn f( ){}\n")]), ["src/lib.rs:1"]);
        assert!(found(formatting, &[MANIFEST, ("src/lib.rs", "fn f() {}\n")]).is_empty());
        assert_eq!(found(formatting, &[MANIFEST]), ["Cargo.toml:1"], "a package without code");
    }

    #[test]
    fn a_lint_is_found_with_its_line() {
        let code = "//! A room.\n\n/// Counts.\npub fn count(x: &[u8]) -> usize {\n    return x.len();\n}\n";
        assert_eq!(found(lints, &[MANIFEST, ("src/lib.rs", code)]), ["src/lib.rs:5"]);
    }

    #[test]
    fn a_package_without_a_licence_is_found() {
        let root = repository(&[
            MANIFEST,
            ("src/lib.rs", ""),
            ("deny.toml", "[licenses]\nallow = [\"MIT\"]\n"),
        ]);
        // Where cargo-deny is missing, that is what is found.
        let report = deny(root.path());
        assert_eq!(report.findings.len(), 1);
        let problem = &report.findings[0].problem;
        assert!(problem.contains("unlicensed") || problem.contains("no such command"), "{problem}");
    }

    #[test]
    fn advisories_out_of_reach_are_told_and_are_no_violation() {
        let report = advisories_of("/no/such/list", repository(&[MANIFEST]).path());
        assert!(report.findings.is_empty());
        assert!(report.notes[0].starts_with("NOT CHECKED"), "{:?}", report.notes);
    }
}
