//! One diagnosis: facts gathered, rules asked.

use crate::facts::{Gpu, Machine};
use crate::finding::{Finding, Severity};
use crate::machine;
use crate::prospect::{self, Engine};
use crate::python::dist::Found;
use crate::python::{Environment, facts};
use crate::rules::{self, Rule};
use crate::table::Table;

/// Everything learned.
#[derive(Debug)]
pub struct Diagnosis {
    /// The facts.
    pub table: Table,
    /// The cards.
    pub gpus: Vec<Gpu>,
    /// The Python environment, if one was looked at.
    pub environment: Option<Environment>,
    /// Its distributions.
    pub found: Found,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What the engine told.
    pub engine: Engine,
}

/// Looks at a machine and, where given, at a Python environment.
pub fn diagnose(
    machine: &dyn Machine,
    environment: Option<Environment>,
    engine: Engine,
    rules: &[Rule],
) -> Diagnosis {
    let mut table = Table::default();
    let gpus = machine::gather(machine, &mut table);
    let found = match &environment {
        Some(environment) => facts::gather(machine, environment, &gpus, &mut table),
        None => Found::default(),
    };
    prospect::gather(machine, environment.as_ref(), &engine, &mut table);
    let findings = rules::findings(rules, &table);
    Diagnosis { table, gpus, environment, found, findings, engine }
}

impl Diagnosis {
    /// How many findings are errors, and how many warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.findings.iter().filter(|f| f.severity == Severity::Error).count();
        (errors, self.findings.len() - errors)
    }
}
