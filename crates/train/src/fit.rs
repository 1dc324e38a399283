//! Fitting a run into the memory: the run is run on the `plan` device, and the fastest policy whose peak fits is
//! taken.

use engine::memory::arena::Bytes;
use engine::memory::ledger::Ledger;
use models::decoder::Keep;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::Metrics;
use crate::inputs::Inputs;
use crate::machine::Machine;
use crate::session::Session;

/// What the planner chose. The result of a run depends on it, so it is written down and a resumed run keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The most tokens in one pass.
    pub token_budget: usize,
    /// How many of the last blocks keep all that backward reads; the others keep their input and compute the rest
    /// again.
    pub kept_layers: usize,
}

impl Policy {
    /// What each block keeps. The last blocks keep most: theirs is free again when the first compute anew.
    pub fn keep(&self, layers: usize) -> Vec<Keep> {
        (0..layers)
            .map(|layer| if layer + self.kept_layers >= layers { Keep::All } else { Keep::Input })
            .collect()
    }
}

/// What a run takes under a policy.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The policy.
    pub policy: Policy,
    /// The most bytes of the arena that are in use at one time.
    pub peak_bytes: usize,
    /// What they are for.
    pub by_category: Bytes,
    /// Operations and traffic of the whole run.
    pub ledger: Ledger,
    /// Optimizer steps.
    pub steps: usize,
    /// Prompt and completion tokens of the rated examples.
    pub rated_tokens: usize,
}

/// A policy that fits.
#[derive(Clone, Debug)]
pub struct Fit {
    /// What the run takes.
    pub simulation: Simulation,
    /// Bytes the run may take; none where the host does not say.
    pub limit: Option<u64>,
    /// Why this policy.
    pub reason: String,
}

/// Runs the whole run on `plan`: every step, an evaluation, and the answers.
pub fn simulate(inputs: &Inputs, machine: &Machine, policy: Policy) -> Result<Simulation> {
    let device = machine.plan();
    let mut session = Session::open(&device, inputs, &policy)?;
    let mut rated_tokens = 0;
    session.answers()?;
    for index in 0..session.steps() {
        let packed = session.packed(index);
        rated_tokens += tokens(&packed);
        session.step(index, &packed)?;
    }
    session.evaluate()?;
    Ok(Simulation {
        policy,
        peak_bytes: device.peak_bytes(),
        by_category: device.peak_by_category(),
        ledger: device.ledger(),
        steps: session.steps(),
        rated_tokens,
    })
}

/// Prompt and completion tokens of a step's rated examples.
pub fn tokens(packed: &data::PackedStep) -> usize {
    packed.groups.iter().flat_map(|group| &group.examples).map(|example| example.tokens).sum()
}

/// What [`search`] found.
pub enum Found {
    /// The fastest policy that fits.
    Fits(Fit),
    /// None fits: the one that takes least, and what may be taken.
    TooLarge {
        /// What the run takes at the least.
        least: Simulation,
        /// What it may take.
        limit: u64,
    },
}

/// The fastest policy that fits the memory, or an error that says how much is missing.
pub fn fit(inputs: &Inputs, machine: &Machine) -> Result<Fit> {
    match search(inputs, machine)? {
        Found::Fits(fit) => Ok(fit),
        Found::TooLarge { least, limit } => {
            let needs = format!(
                "this run needs {} at the least, {} is allowed",
                bytes(least.peak_bytes as u64),
                bytes(limit)
            );
            let changes = "`prospect plan` with this recipe names the smallest changes that fit";
            Err(match &machine.others_hold {
                None => Error::machine(needs, changes),
                Some(taken) => Error::machine(
                    format!("{needs}: {taken}"),
                    format!("close the other programs on the GPU (see `nvidia-smi`); {changes}"),
                ),
            })
        }
    }
}

/// The fastest policy that fits the memory: everything kept; else as many blocks as fit keep everything; else
/// smaller passes.
pub fn search(inputs: &Inputs, machine: &Machine) -> Result<Found> {
    let limit = machine.limit;
    let fits =
        |simulation: &Simulation| limit.is_none_or(|limit| simulation.peak_bytes as u64 <= limit);
    let layers = inputs.config.num_hidden_layers;
    let written = inputs.recipe.train.token_budget;
    let mut token_budget = written.unwrap_or_else(|| largest_group(inputs));
    loop {
        let all = simulate(inputs, machine, Policy { token_budget, kept_layers: layers })?;
        if fits(&all) {
            let reason = match (written, token_budget == largest_group(inputs)) {
                (None, true) => {
                    "a whole group in one pass, everything backward reads is kept".to_owned()
                }
                _ => {
                    format!("{token_budget} tokens in one pass, everything backward reads is kept")
                }
            };
            return Ok(Found::Fits(Fit { simulation: all, limit, reason }));
        }
        let mut least = simulate(inputs, machine, Policy { token_budget, kept_layers: 0 })?;
        if fits(&least) {
            // The peak grows with the number of kept blocks: bisect.
            let (mut low, mut high) = (0, layers);
            while high - low > 1 {
                let middle = (low + high) / 2;
                let simulation =
                    simulate(inputs, machine, Policy { token_budget, kept_layers: middle })?;
                if fits(&simulation) {
                    (low, least) = (middle, simulation);
                } else {
                    high = middle;
                }
            }
            let reason = format!(
                "{token_budget} tokens in one pass; {low} of {layers} blocks keep what backward reads, the others compute it again: keeping all would take {}",
                bytes(all.peak_bytes as u64)
            );
            return Ok(Found::Fits(Fit { simulation: least, limit, reason }));
        }
        if written.is_some() || token_budget <= SMALLEST_BUDGET {
            return Ok(Found::TooLarge { least, limit: limit.unwrap_or(0) });
        }
        token_budget = (token_budget / 2).max(SMALLEST_BUDGET);
    }
}

/// Loads the model as the recipe starts it and measures the held-out data, in passes small enough for the memory.
pub fn evaluate(inputs: &Inputs, machine: &Machine) -> Result<Metrics> {
    let limit = machine.limit;
    let mut token_budget = inputs.recipe.train.token_budget.unwrap_or(EVALUATION_BUDGET);
    loop {
        let policy = Policy { token_budget, kept_layers: 0 };
        let plan = machine.plan();
        Session::open(&plan, inputs, &policy)?.evaluate()?;
        let peak = plan.peak_bytes();
        if limit.is_none_or(|limit| peak as u64 <= limit) {
            let device = machine.device(peak)?;
            let metrics = Session::open(&device, inputs, &policy)?.evaluate()?;
            return Ok(metrics.unwrap_or_default());
        }
        if token_budget <= SMALLEST_BUDGET {
            return Err(Error::machine(
                format!(
                    "measuring needs {} at the least, {} is allowed",
                    bytes(peak as u64),
                    bytes(limit.unwrap_or(0))
                ),
                "lower data.max_length, or take model.quantization = \"nf4\" or dtype = \"bf16\"",
            ));
        }
        token_budget = (token_budget / 2).max(SMALLEST_BUDGET);
    }
}

/// Tokens of a pass without gradient: enough that all cores have work.
const EVALUATION_BUDGET: usize = 4096;

/// Passes are not made smaller than this: a single example is longer as a rule.
const SMALLEST_BUDGET: usize = 256;

/// Tokens of the run's largest group, packed: with so many in one pass no group is split.
fn largest_group(inputs: &Inputs) -> usize {
    let mut batching = inputs.batching(usize::MAX);
    let per_epoch = inputs.dataset.steps_per_epoch(&batching).max(1);
    let epochs = inputs.steps().div_ceil(per_epoch) as u64;
    batching.gradient_accumulation_steps = 1;
    let rows = (0..epochs).map(|number| {
        let epoch = inputs.dataset.epoch(&batching, number);
        let largest =
            |index| epoch.step(index).micro_batches.iter().map(data::MicroBatch::rows).max();
        (0..epoch.steps()).filter_map(largest).max().unwrap_or(0)
    });
    rows.max().unwrap_or(0).max(SMALLEST_BUDGET)
}

/// A size as a person reads it.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}
