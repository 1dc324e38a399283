//! The rules: what breaks a training machine or its Python stack, as data in `rules.toml`.
//!
//! A rule fires where its `when` holds over the facts; with `each`, once for every GPU, library, requirement and
//! so on of which it holds. `{name}` in its texts is replaced by the fact of that name.

pub mod checks;
pub mod expression;

use crate::finding::{Evidence, Finding, Layer, Mend, Severity};
use crate::table::{Fact, Scope, Table};
use expression::Expression;
use serde::Deserialize;

/// The rules as they are shipped.
pub const TEXT: &str = include_str!("rules.toml");

/// The part of the report a finding stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// GPU, driver, memory, disk.
    Machine,
    /// Prospect itself.
    Prospect,
    /// The Python environment.
    Python,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its stable name.
    pub id: String,
    /// The part of the report.
    pub group: Group,
    /// Which of the layers of truth it reads.
    pub layer: Layer,
    /// How bad it is.
    pub severity: Severity,
    /// The kind of thing it is asked of, one by one.
    pub each: Option<String>,
    /// The title of its finding.
    pub what: String,
    /// When it fires, as written.
    pub when: String,
    /// When it fires.
    pub expression: Expression,
    /// The facts it shows.
    pub evidence: Vec<String>,
    /// Why it matters.
    pub why: String,
    /// Where we know it from.
    pub source: String,
    /// One command for each installer.
    pub mend: Mend,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    group: Group,
    layer: Layer,
    severity: Severity,
    each: Option<String>,
    what: String,
    when: String,
    evidence: Vec<String>,
    why: String,
    source: String,
    mend: WrittenMend,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenMend {
    Same(String),
    Each { pip: String, uv: String, conda: String },
}

/// Reads rules; the error names the rule and what is wrong with it.
pub fn read(text: &str) -> Result<Vec<Rule>, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    let mut rules: Vec<Rule> = Vec::new();
    for written in file.rule {
        let expression =
            expression::parse(&written.when).map_err(|e| format!("rule '{}': {e}", written.id))?;
        if rules.iter().any(|r| r.id == written.id) {
            return Err(format!("rule '{}' is there twice", written.id));
        }
        let mend = match written.mend {
            WrittenMend::Same(one) => Mend { pip: one.clone(), uv: one.clone(), conda: one },
            WrittenMend::Each { pip, uv, conda } => Mend { pip, uv, conda },
        };
        rules.push(Rule {
            id: written.id,
            group: written.group,
            layer: written.layer,
            severity: written.severity,
            each: written.each,
            what: written.what,
            when: written.when,
            expression,
            evidence: written.evidence,
            why: written.why,
            source: written.source,
            mend,
        });
    }
    Ok(rules)
}

/// The shipped rules; a test reads them, so they always do.
pub fn shipped() -> Vec<Rule> {
    read(TEXT).unwrap_or_default()
}

/// Every finding of the rules over the facts, errors first, in the order of the file.
pub fn findings(rules: &[Rule], table: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in rules {
        match &rule.each {
            None => found.extend(fire(rule, &[&table.all])),
            Some(kind) => {
                let things = table.each.get(kind.as_str()).map(Vec::as_slice).unwrap_or_default();
                found.extend(things.iter().filter_map(|thing| fire(rule, &[thing, &table.all])));
            }
        }
    }
    found.sort_by_key(|f| (f.group, std::cmp::Reverse(f.severity)));
    found
}

fn fire(rule: &Rule, scopes: &[&Scope]) -> Option<Finding> {
    if !rule.expression.holds(scopes) {
        return None;
    }
    let fact = |name: &str| -> Option<&Fact> { scopes.iter().find_map(|s| s.get(name)) };
    let evidence = rule.evidence.iter().filter_map(|name| {
        fact(name)
            .map(|f| Evidence { path: f.path.clone(), value: format!("{name} {}", f.shown()) })
    });
    let plain = |f: &Fact| f.shown();
    let fill_text = |text: &str| fill(text, &fact, &plain);
    let fill_command = |text: &str| fill(text, &fact, &|f| for_a_shell(&f.shown()));
    Some(Finding {
        rule: rule.id.clone(),
        group: rule.group,
        severity: rule.severity,
        layer: rule.layer,
        title: fill_text(&rule.what),
        evidence: evidence.collect(),
        why: fill_text(&rule.why),
        mend: Mend {
            pip: fill_command(&rule.mend.pip),
            uv: fill_command(&rule.mend.uv),
            conda: fill_command(&rule.mend.conda),
        },
    })
}

/// Replaces each `{name}` by its fact; an unknown one by `?`.
fn fill<'f>(
    text: &str,
    fact: &dyn Fn(&str) -> Option<&'f Fact>,
    show: &dyn Fn(&Fact) -> String,
) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let Some(length) = rest[start..].find('}') else { break };
        out.push_str(&rest[..start]);
        out.push_str(&fact(&rest[start + 1..start + length]).map_or("?".into(), show));
        rest = &rest[start + length + 1..];
    }
    out + rest
}

/// A value fit for a command that a person will paste: a name or path from a hostile file must not become one.
fn for_a_shell(value: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || "._/+-=<>!~,:@[] *".contains(c);
    if value.chars().all(harmless) { value.into() } else { "'?'".into() }
}
