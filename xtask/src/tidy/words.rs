//! What only one room may do, told by the words it takes.

use super::rust_code::{is_word, without_prose};
use super::{Report, files};
use std::path::Path;

/// `unsafe` is in engine, and in the one file that asks the driver's libraries.
pub(super) fn unsafety(root: &Path) -> Report {
    let remedy = "unsafe code belongs in engine, behind a safe function";
    let allowed = ["crates/engine/", "crates/doctor/src/facts/native.rs"];
    only_in(root, &allowed, &["unsafe", "unsafe_code"], remedy)
}

/// Only cli prints, and the tasks of the repository.
pub(super) fn printing(root: &Path) -> Report {
    let words =
        ["print!", "println!", "eprint!", "eprintln!", "dbg!", "print_stdout", "print_stderr"];
    let remedy = "return it, or emit an event; cli prints";
    // A test that needs a GPU says so where there is none, and a measurement shows its figures.
    let rooms = [
        "crates/cli/",
        "xtask/",
        "crates/engine/src/testing.rs",
        "crates/engine/src/ops/attention/tests/",
        "crates/engine/src/ops/matmul/tests/",
        "crates/data/src/speed.rs",
    ];
    only_in(root, &rooms, &words, remedy)
}

/// Finds each of `words` in the code of rooms that are not among `rooms`.
fn only_in(root: &Path, rooms: &[&str], words: &[&str], remedy: &str) -> Report {
    let mut report = Report::default();
    for (file, text) in files(root, &[".rs"]) {
        if rooms.iter().any(|room| file.starts_with(room)) {
            continue;
        }
        for (index, line) in without_prose(&text).lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                report.finding(
                    &file,
                    index + 1,
                    format!("`{word}` outside {}", rooms.join(" and ")),
                    remedy,
                );
            }
        }
    }
    report
}

/// Whether `word` occurs in `line` and is not part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_word) && (word.ends_with('!') || !after.is_some_and(is_word))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    #[test]
    fn unsafe_outside_engine_is_found() {
        let files = [
            ("crates/engine/src/mapped.rs", "let x = unsafe { f() };\n"),
            ("crates/data/src/a.rs", "// unsafe is a word\nlet x = unsafe { f() };\n"),
            ("crates/data/src/b.rs", "#![allow(unsafe_code)]\nlet unsafely = \"unsafe\";\n"),
        ];
        assert_eq!(found(unsafety, &files), ["crates/data/src/a.rs:2", "crates/data/src/b.rs:1"]);
    }

    #[test]
    fn printing_outside_cli_is_found() {
        let files = [
            ("crates/cli/src/main.rs", "println!();\n"),
            ("crates/train/src/a.rs", "\n    eprintln!(\"{x}\");\n"),
            ("crates/train/src/b.rs", "// println!()\nmy_println!();\nlet print = 1;\n"),
        ];
        assert_eq!(found(printing, &files), ["crates/train/src/a.rs:2"]);
    }
}
