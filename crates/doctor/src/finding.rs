//! A finding: what is wrong, what shows it, why it matters and the one command that mends it.

use crate::rules::Group;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It costs speed, safety or a feature.
    Warning,
    /// Training does not work.
    Error,
}

/// The layer of truth a finding comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Driver, kernel, devices, memory.
    Machine,
    /// The files themselves: architectures, symbols, libraries.
    Bytes,
    /// What packages declare.
    Metadata,
    /// Known breaks that neither shows.
    Rules,
}

/// What shows a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The file or library it was read from.
    pub path: String,
    /// What it says.
    pub value: String,
}

/// One command, for each installer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// With pip.
    pub pip: String,
    /// With uv.
    pub uv: String,
    /// With conda.
    pub conda: String,
}

/// A finding; it serializes as `--json` promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's stable name.
    pub rule: String,
    /// The part of the report; told by the rule, so JSON leaves it out.
    #[serde(skip)]
    pub group: Group,
    /// How bad it is.
    pub severity: Severity,
    /// Where we know it from.
    pub layer: Layer,
    /// What is wrong, in one line.
    pub title: String,
    /// What shows it.
    pub evidence: Vec<Evidence>,
    /// Why it matters.
    pub why: String,
    /// What mends it.
    pub mend: Mend,
}
