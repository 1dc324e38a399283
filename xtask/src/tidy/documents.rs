//! Generated documents are what they would be generated as now.

use super::Report;
use crate::docs::{Document, documents};
use std::path::Path;

/// Every generated document is fresh.
pub(super) fn fresh(root: &Path) -> Report {
    match documents(root) {
        Ok(documents) => compare(root, &documents),
        Err(problem) => {
            let mut report = Report::default();
            report.finding("docs", 1, problem, "mend the program, then cargo xtask docs");
            report
        }
    }
}

fn compare(root: &Path, documents: &[Document]) -> Report {
    let mut report = Report::default();
    for Document { path, text } in documents {
        match std::fs::read_to_string(root.join(path)) {
            Err(error) => report.finding(*path, 1, error.to_string(), "cargo xtask docs"),
            Ok(written) if written != *text => {
                let same = written
                    .lines()
                    .zip(text.lines())
                    .take_while(|(written, fresh)| written == fresh)
                    .count();
                report.finding(
                    *path,
                    same + 1,
                    "is older than what it is made from",
                    "cargo xtask docs",
                );
            }
            Ok(_) => {}
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::super::tests::repository;
    use super::*;

    #[test]
    fn a_stale_and_a_missing_document_are_found() {
        let root = repository(&[("docs/a.md", "one\ntwo\n"), ("docs/b.md", "one\nthree\n")]);
        let document = |path| Document { path, text: "one\ntwo\n".to_owned() };
        let report = compare(
            root.path(),
            &[document("docs/a.md"), document("docs/b.md"), document("docs/c.md")],
        );
        let places: Vec<String> = report
            .findings
            .iter()
            .map(|finding| format!("{}:{}", finding.file, finding.line))
            .collect();
        assert_eq!(places, ["docs/b.md:2", "docs/c.md:1"]);
    }
}
