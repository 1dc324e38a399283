//! One diagnosis: facts gathered, rules asked.

use crate::facts::{Gpu, Machine};
use crate::finding::{Finding, Severity};
use crate::python::dist::Found;
use crate::python::{Environment, facts};
use crate::rules::{self, Rule};
use crate::table::{Scope, Table};
use crate::{machine, prospect};

/// The result of one component's self-test, handed in by the program that has the engine.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// What was tested, such as `gemm`.
    pub component: String,
    /// Whether it agrees with its reference.
    pub passed: bool,
    /// The difference from the reference, or why the test could not run.
    pub error: String,
    /// Its speed as a share of the card's figure, 0 to 1, where it was measured.
    pub share_of_peak: Option<f64>,
}

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
    /// The self-test's results.
    pub self_tests: Vec<SelfTest>,
}

/// Looks at a machine and, where given, at a Python environment.
pub fn diagnose(
    machine: &dyn Machine,
    environment: Option<Environment>,
    self_tests: Vec<SelfTest>,
    rules: &[Rule],
) -> Diagnosis {
    let mut table = Table::default();
    let gpus = machine::gather(machine, &mut table);
    let found = match &environment {
        Some(environment) => facts::gather(machine, environment, &gpus, &mut table),
        None => Found::default(),
    };
    prospect::gather(machine, environment.as_ref(), &mut table);
    for test in &self_tests {
        let mut scope = Scope::default();
        scope.text("self-test.component", &test.component, "prospect doctor --self-test");
        scope.flag("self-test.passed", test.passed, "prospect doctor --self-test");
        scope.text("self-test.error", &test.error, "prospect doctor --self-test");
        if let Some(share) = test.share_of_peak {
            scope.number("self-test.percent_of_peak", share * 100.0, "prospect doctor --self-test");
        }
        table.add("self-test", scope);
    }
    let findings = rules::findings(rules, &table);
    Diagnosis { table, gpus, environment, found, findings, self_tests }
}

impl Diagnosis {
    /// How many findings are errors, and how many warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.findings.iter().filter(|f| f.severity == Severity::Error).count();
        (errors, self.findings.len() - errors)
    }
}
