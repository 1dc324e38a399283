//! Fitting a run into the memory: the run is run on the `plan` device, and the fastest policy whose peak fits is
//! taken.

mod search;

use engine::device::Device;
use engine::memory::arena::Bytes;
use engine::memory::ledger::Ledger;
use models::decoder::Keep;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use search::{Found, search};

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
    /// How many of the first blocks' inputs wait in the host's memory.
    pub host_layers: usize,
    /// Whether the embedding table lies in the host's memory.
    pub host_table: bool,
}

impl Policy {
    /// Everything on the device, all kept.
    pub fn all(token_budget: usize, layers: usize) -> Policy {
        Policy { token_budget, kept_layers: layers, host_layers: 0, host_table: false }
    }

    /// Whether the inputs of all blocks wait in the host's memory. Then a group that is split runs forward but once, see
    /// [`crate::step`].
    pub fn leaves_inputs(&self, layers: usize) -> bool {
        self.host_layers == layers && self.kept_layers == 0
    }

    /// What each block keeps. The last blocks keep most: theirs is free again when the first compute anew.
    pub fn keep(&self, layers: usize) -> Vec<Keep> {
        let keep = |layer| match layer {
            layer if layer + self.kept_layers >= layers => Keep::All,
            layer if layer < self.host_layers => Keep::Host,
            _ => Keep::Input,
        };
        (0..layers).map(keep).collect()
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
    /// The most bytes of the host's memory beside the device that are in use at one time.
    pub host_bytes: usize,
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
    let steps: Vec<usize> = (0..inputs.steps()).collect();
    // A part of the steps a task, each on a device of its own: the peak is the largest, the work is the sum.
    let part = steps.len().div_ceil(4 * rayon::current_num_threads()).max(16);
    let parts = steps.par_chunks(part);
    let parts: Vec<Result<Simulation>> =
        parts.map(|steps| walk(inputs, machine, policy, steps)).collect();
    let besides = walk_besides(inputs, machine, policy)?;
    parts.into_iter().try_fold(besides, |sum, part| Ok(sum.and(&part?)))
}

/// Runs some steps on `plan`.
fn walk(inputs: &Inputs, machine: &Machine, policy: Policy, steps: &[usize]) -> Result<Simulation> {
    let device = machine.plan();
    let mut session = Session::open(&device, inputs, &policy)?;
    let mut rated_tokens = 0;
    for index in steps {
        let packed = session.packed(*index);
        rated_tokens += tokens(&packed);
        session.step(*index, &packed)?;
    }
    Ok(Simulation { steps: steps.len(), rated_tokens, ..Simulation::of(&device, policy) })
}

/// Runs what a run does besides its steps: an evaluation, and the answers.
fn walk_besides(inputs: &Inputs, machine: &Machine, policy: Policy) -> Result<Simulation> {
    let device = machine.plan();
    let session = Session::open(&device, inputs, &policy)?;
    session.answers()?;
    session.evaluate()?;
    Ok(Simulation::of(&device, policy))
}

impl Simulation {
    /// What a plan's device wrote down.
    fn of(device: &Device, policy: Policy) -> Simulation {
        Simulation {
            policy,
            peak_bytes: device.peak_bytes(),
            by_category: device.peak_by_category(),
            host_bytes: device.host().peak_bytes(),
            ledger: device.ledger(),
            steps: 0,
            rated_tokens: 0,
        }
    }

    /// Both, one after the other.
    fn and(mut self, other: &Simulation) -> Simulation {
        if other.peak_bytes > self.peak_bytes {
            (self.peak_bytes, self.by_category) = (other.peak_bytes, other.by_category);
        }
        self.host_bytes = self.host_bytes.max(other.host_bytes);
        self.ledger.add(&other.ledger);
        self.steps += other.steps;
        self.rated_tokens += other.rated_tokens;
        self
    }
}

/// Prompt and completion tokens of a step's rated examples.
pub fn tokens(packed: &data::PackedStep) -> usize {
    packed.groups.iter().flat_map(|group| &group.examples).map(|example| example.tokens).sum()
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

/// Loads the model as the recipe starts it and measures the held-out data, in passes small enough for the memory.
pub fn evaluate(inputs: &Inputs, machine: &Machine) -> Result<Metrics> {
    let limit = machine.limit;
    let mut token_budget = inputs.recipe.train.token_budget.unwrap_or(EVALUATION_BUDGET);
    loop {
        let policy = Policy::all(token_budget, 0);
        let plan = machine.plan();
        Session::open(&plan, inputs, &policy)?.evaluate()?;
        let peak = plan.peak_bytes();
        if limit.is_none_or(|limit| peak as u64 <= limit) {
            let device = machine.device(peak, 0)?;
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
