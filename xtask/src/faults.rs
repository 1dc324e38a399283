//! `cargo xtask faults`: every fault and every hostile input, where `cargo test` takes a share of the faults, and
//! the counts.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a suite counted: injected or given, and survived.
type Count = (String, usize, usize);

pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut counts = suite(root, "faults", &["--test-threads=1"])?;
    counts.extend(suite(root, "program", &["hostile"])?);
    println!("\n| fault | injected | survived |\n|---|---|---|");
    for (what, injected, survived) in &counts {
        println!("| {what} | {injected} | {survived} |");
    }
    let sum = |of: fn(&Count) -> usize| counts.iter().map(of).sum::<usize>();
    println!("| all | {} | {} |", sum(|count| count.1), sum(|count| count.2));
    Ok(())
}

/// Runs the tests of a suite and shows what they say as they say it.
fn suite(root: &Path, test: &str, arguments: &[&str]) -> Result<Vec<Count>, String> {
    let mut command = Command::new(crate::cargo());
    command.current_dir(root).env("PROSPECT_FAULTS", "full");
    command.args(["test", "--package", "prospect", "--test", test, "--", "--nocapture"]);
    let mut child = command
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    let mut counts = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            counts.extend(count(&line));
        }
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(counts) } else { Err(format!("the suite '{test}' failed")) }
}

/// `what: 12 injected, 12 survived`, perhaps behind the test's name.
fn count(line: &str) -> Option<Count> {
    let (what, rest) = line.rsplit_once(": ")?;
    let what = what.rsplit_once(" ... ").map_or(what, |(_, what)| what);
    let (injected, survived) = rest.strip_suffix(" survived")?.split_once(" injected, ")?;
    Some((what.to_owned(), injected.parse().ok()?, survived.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_what_the_suites_say() {
        let expected = Some(("full disk".to_owned(), 12, 11));
        assert_eq!(count("full disk: 12 injected, 11 survived"), expected);
        assert_eq!(count("test disk::a ... full disk: 12 injected, 11 survived"), expected);
        assert_eq!(count("test disk::a ... ok"), None);
    }
}
