//! `--explain RULE`: everything a rule is, in words.

use crate::finding::{Layer, Severity};
use crate::rules::Rule;
use std::fmt::Write;

/// Explains a rule.
pub fn explain(rule: &Rule) -> String {
    let layer = match rule.layer {
        Layer::Machine => "the machine (driver, kernel, devices)",
        Layer::Bytes => "bytes (the files themselves)",
        Layer::Metadata => "metadata (what packages declare)",
        Layer::Rules => "rules (known breaks that neither bytes nor metadata show)",
    };
    let severity = match rule.severity {
        Severity::Error => "error: training does not work",
        Severity::Warning => "warning: it costs speed, safety or a feature",
    };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("rule", &rule.id);
    line("severity", severity);
    line("layer", layer);
    line("says", &rule.what);
    line("when", &rule.when);
    if let Some(each) = &rule.each {
        line("asked of", &format!("each {each}"));
    }
    line("shows", &rule.evidence.join(", "));
    line("why", &rule.why);
    line("source", &rule.source);
    line("pip", &rule.mend.pip);
    if rule.mend.uv != rule.mend.pip || rule.mend.conda != rule.mend.pip {
        line("uv", &rule.mend.uv);
        line("conda", &rule.mend.conda);
    }
    text
}
