//! What the doctor sees and what it cannot, as the page docs/doctor.md: made of `checks.toml` and the rules themselves.

use super::{Group, Rule};
use crate::finding::{Layer, Severity};
use serde::Deserialize;
use std::fmt::Write;

const TEXT: &str = include_str!("checks.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    issue: Vec<Check>,
    check: Vec<Check>,
}

/// A failure that is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    what: String,
    rules: Vec<String>,
    elsewhere: Option<String>,
    unseen: Option<String>,
}

/// The page, or what is wrong with the table it is made of.
pub fn markdown(rules: &[Rule]) -> Result<String, String> {
    let file: File = toml::from_str(TEXT).map_err(|error| error.to_string())?;
    for check in file.issue.iter().chain(&file.check) {
        for name in &check.rules {
            if rules.iter().all(|rule| rule.id != *name) {
                return Err(format!(
                    "'{}' names the rule '{name}', which is not there",
                    check.what
                ));
            }
        }
    }
    let mut text = String::from(
        "<!-- Made of crates/doctor/src/rules/checks.toml and rules.toml: \
         UPDATE_EXPECT=1 cargo test -p prospect-doctor --test checks -->\n\n\
         # What `prospect doctor` sees\n\n\
         It runs no Python and imports nothing, so it works on an environment that cannot be imported, and does not see what \
         shows only there. `prospect doctor --explain RULE` tells a rule's condition, source and mend.\n",
    );
    table(&mut text, "The summary's five issues", &file.issue);
    table(&mut text, "Further failures", &file.check);
    let _ = write!(text, "\n## All rules\n\n{} rules.\n\n", rules.len());
    text.push_str("| rule | part | layer | severity | says |\n|---|---|---|---|---|\n");
    for rule in rules {
        let group = match rule.group {
            Group::Machine => "machine",
            Group::Prospect => "Prospect",
            Group::Python => "Python",
        };
        let layer = match rule.layer {
            Layer::Machine => "machine",
            Layer::Bytes => "bytes",
            Layer::Metadata => "metadata",
            Layer::Rules => "rules",
        };
        let severity = if rule.severity == Severity::Error { "error" } else { "warning" };
        let what = rule.what.replace('|', "\\|");
        let _ = writeln!(text, "| `{}` | {group} | {layer} | {severity} | {what} |", rule.id);
    }
    Ok(text)
}

fn table(text: &mut String, head: &str, checks: &[Check]) {
    let _ = write!(
        text,
        "\n## {head}\n\n| | failure | seen by | not seen without running Python |\n|---|---|---|---|\n"
    );
    for (number, check) in checks.iter().enumerate() {
        let mut seen: Vec<String> = check.rules.iter().map(|rule| format!("`{rule}`")).collect();
        seen.extend(check.elsewhere.clone());
        let unseen = check.unseen.as_deref().unwrap_or("-");
        let seen = seen.join(", ");
        let _ = writeln!(text, "| {} | {} | {seen} | {unseen} |", number + 1, check.what);
    }
}
