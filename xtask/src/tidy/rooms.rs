//! Every op has its room: formula, reference on the CPU, proofs.

use super::{Report, from_root};
use std::path::Path;

/// Where the ops are.
const OPS: &str = "crates/engine/src/ops";
/// What each folder there holds.
const FILES: [(&str, &str); 3] = [
    ("mod.rs", "the formula, the shapes, what is saved, forward and backward"),
    ("cpu.rs", "the reference: a row function and its driver"),
    ("tests.rs", "the five proofs"),
];

/// Each folder of ops has its files.
pub(super) fn ops(root: &Path) -> Report {
    let mut report = Report::default();
    let Ok(entries) = std::fs::read_dir(root.join(OPS)) else { return report };
    let mut folders: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        for (name, purpose) in FILES.iter().filter(|(name, _)| !folder.join(name).is_file()) {
            let file = format!("{}/{name}", from_root(root, &folder));
            report.finding(file, 1, "the op's room lacks this file", format!("it holds {purpose}"));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    #[test]
    fn an_op_without_its_proofs_is_found() {
        let files = [
            ("crates/engine/src/ops/mod.rs", ""),
            ("crates/engine/src/ops/rope/mod.rs", ""),
            ("crates/engine/src/ops/rope/cpu.rs", ""),
            ("crates/engine/src/ops/rope/tests.rs", ""),
            ("crates/engine/src/ops/nf4/mod.rs", ""),
            ("crates/engine/src/ops/nf4/cpu.rs", ""),
        ];
        assert_eq!(found(ops, &files), ["crates/engine/src/ops/nf4/tests.rs:1"]);
    }
}
