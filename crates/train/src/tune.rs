//! Measured choice of cuBLASLt's algorithms: some steps of a recipe, in which every product that is met for the first
//! time is computed by each of the heuristic's answers in turn. The fastest go into a table that runs on this GPU take
//! from then on. Nothing else is written: what the steps made of the adapter is thrown away.

use data::template::Moment;
use engine::cuda::gemm::{Measured, Written};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::fit;
use crate::inputs::Inputs;
use crate::machine::Machine;
use crate::recipe::Recipe;
use crate::session::Session;

/// How many answers of the heuristic are tried for each product.
const CANDIDATES: usize = 16;

/// What was measured.
pub struct Tuned {
    /// Steps that were done.
    pub steps: usize,
    /// Every product that was met, in that order.
    pub products: Vec<Measured>,
    /// The table.
    pub written: Written,
}

impl Tuned {
    /// Microseconds of a step's products with the heuristic's first answers, and with those that were chosen.
    pub fn of_a_step(&self) -> (f64, f64) {
        let sum = |time: fn(&Measured) -> f64| {
            let all = self.products.iter().map(|product| product.met as f64 * time(product));
            all.sum::<f64>() / self.steps as f64
        };
        (sum(|product| product.first), sum(|product| product.chosen))
    }
}

/// Does the first `steps` steps of a recipe, or all if it has fewer, and writes the table.
pub fn tune(recipe: Recipe, steps: usize, tell: &mut dyn FnMut(Event<'_>)) -> Result<Tuned> {
    let machine = Machine::choose(&recipe)?;
    let Some(cuda) = machine.cuda() else {
        return Err(Error::input(
            format!("there is nothing to tune: {}", machine.description),
            "tune where the run will be: on a machine with an NVIDIA GPU, without train.device = \"cpu\"",
        ));
    };
    let gemm = cuda.gemm();
    gemm.library().map_err(without_library)?;
    tell(Event::Note(machine.description.clone()));
    let inputs = Inputs::load(recipe, Moment::now())?;
    let fit = fit::fit(&inputs, &machine)?;
    tell(Event::Planned(&fit));
    let device = machine.device(fit.simulation.peak_bytes, fit.simulation.host_bytes)?;
    let mut session = Session::open(&device, &inputs, &fit.simulation.policy)?;
    // Only now: what the adapter's start asked for is not of a step.
    gemm.tune(CANDIDATES).map_err(without_library)?;
    let steps = steps.min(session.steps());
    for index in 0..steps {
        let packed = session.packed(index);
        session.step(index, &packed)?;
        tell(Event::Note(format!(
            "step {} of {steps}: {} products measured so far",
            index + 1,
            gemm.measured().len()
        )));
    }
    let products = gemm.measured();
    if products.iter().all(|product| product.candidates == 0) {
        return Err(Error::machine(
            "cuBLASLt has no algorithm for any product of this run",
            "nothing is lost: Prospect's own kernels compute them",
        ));
    }
    let written = gemm.write_choices().map_err(|error| {
        Error::machine(
            format!("cannot write the table of choices: {error}"),
            "it belongs into Prospect's folder in $XDG_CACHE_HOME or ~/.cache: see that it can be written to",
        )
    })?;
    Ok(Tuned { steps, products, written })
}

/// Why cuBLASLt computes nothing, as an error.
fn without_library(reason: &str) -> Error {
    let (reason, hint) = reason.split_once("\n  hint: ").unwrap_or((
        reason,
        "unset PROSPECT_GEMM, and see what `prospect doctor` says of cuBLASLt",
    ));
    Error::machine(
        format!("there is nothing to tune, Prospect's own kernels compute: {reason}"),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::cuda::gemm::Layout;

    #[test]
    fn a_step_weighs_each_product_by_how_often_it_was_met() {
        let product = |met, first, chosen| Measured {
            layout: Layout::Forward,
            rows: 256,
            m: 8,
            k: 8,
            wide: false,
            add: false,
            candidates: 2,
            candidate: 1,
            first,
            chosen,
            met,
        };
        let written = Written { path: "table.txt".into(), kept: None };
        let products = vec![product(8, 10.0, 9.0), product(2, 100.0, 50.0)];
        let tuned = Tuned { steps: 2, products, written };
        assert_eq!(tuned.of_a_step(), (140.0, 86.0));
    }

    #[test]
    fn the_reason_a_library_is_not_there_keeps_its_own_hint() {
        let missing = without_library("cuBLASLt not found; looked in\n  /x: no y\n  hint: get it");
        assert_eq!(
            missing.to_string(),
            "there is nothing to tune, Prospect's own kernels compute: cuBLASLt not found; looked in\n  /x: no y\n  hint: get it"
        );
        let own = without_library("PROSPECT_GEMM is own");
        assert!(own.to_string().ends_with("PROSPECT_GEMM is own\n  hint: unset PROSPECT_GEMM, and see what `prospect doctor` says of cuBLASLt"));
    }
}
