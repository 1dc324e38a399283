//! What the `plan` device writes down: floating-point operations and bytes moved, by op.

use std::collections::BTreeMap;

/// The work of one op over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Calls of the op.
    pub calls: u64,
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes read and written, each operand once.
    pub traffic: f64,
}

/// Work by op name.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    ops: BTreeMap<&'static str, Work>,
}

impl Ledger {
    /// Adds one call of `op`.
    pub fn book(&mut self, op: &'static str, flops: f64, traffic: f64) {
        let work = self.ops.entry(op).or_default();
        work.calls += 1;
        work.flops += flops;
        work.traffic += traffic;
    }

    /// Adds what another one wrote down.
    pub fn add(&mut self, other: &Ledger) {
        for (op, work) in &other.ops {
            let sum = self.ops.entry(op).or_default();
            sum.calls += work.calls;
            sum.flops += work.flops;
            sum.traffic += work.traffic;
        }
    }

    /// Every op that was called, by name.
    pub fn ops(&self) -> &BTreeMap<&'static str, Work> {
        &self.ops
    }

    /// The sum over all ops.
    pub fn total(&self) -> Work {
        self.ops.values().fold(Work::default(), |sum, work| Work {
            calls: sum.calls + work.calls,
            flops: sum.flops + work.flops,
            traffic: sum.traffic + work.traffic,
        })
    }
}
