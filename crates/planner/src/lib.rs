//! What a run will take, before it runs: its memory by purpose, its work by op, and where it does not fit, the
//! smallest changes that would.
//!
//! The numbers are not estimates: the run itself runs on the `plan` device, step by step, and its peak there is its
//! peak on the CPU to the byte.

mod change;
mod longest;
pub mod shapes;
pub mod sizes;
pub mod table;

use engine::device::{Device, Kind};
use engine::memory::arena::Category;
use models::lora::Adapter;
use serde::Serialize;
use train::error::Result;
use train::fit::{self, Found, Simulation};
use train::inputs::Inputs;
use train::machine::Machine;

pub use change::Change;

/// A run that has not run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Whether it fits into `limit_bytes`.
    pub fits: bool,
    /// What the run may take: the recipe's `memory_limit`, or most of what the host has available.
    pub limit_bytes: Option<u64>,
    /// The most it holds at one time; where it does not fit, at the least.
    pub peak_bytes: usize,
    /// What the bytes of the peak are for.
    pub peak: Peak,
    /// The most tokens in one pass.
    pub token_budget: usize,
    /// Blocks that keep what backward reads; the others compute it again.
    pub kept_layers: usize,
    /// Blocks of the model.
    pub layers: usize,
    /// Blocks whose inputs wait in the host's memory.
    pub host_layers: usize,
    /// Whether the embedding table lies in the host's memory.
    pub host_table: bool,
    /// The most bytes of the host's memory that are pinned for these.
    pub host_bytes: usize,
    /// Why this policy.
    pub reason: String,
    /// Parameters of the model.
    pub model_parameters: usize,
    /// Parameters that are trained.
    pub trained_parameters: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Examples of an epoch.
    pub examples: usize,
    /// Prompt and completion tokens of the rated examples, over the whole run.
    pub rated_tokens: usize,
    /// Floating-point operations of the whole run, one evaluation and the answers before training included.
    pub flops: f64,
    /// Seconds of the steps, predicted from the GPU's figures; none for a GPU that is not known, and for the CPU.
    pub seconds: Option<f64>,
    /// The GPU whose figures these are.
    pub gpu: Option<String>,
    /// Tokens of the longest example that would fit, alone in its pass; 0 if none does.
    pub longest_example: usize,
    /// Whether the examples are made up, as long as `data.max_length` allows, because the data is not there.
    pub made_up: bool,
    /// The work by op, the largest first.
    pub ops: Vec<Work>,
    /// Changes that make it fit, where it does not.
    pub changes: Vec<Change>,
}

/// Bytes at the peak by purpose.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peak {
    /// Weights of the base model.
    pub weights: usize,
    /// Trained parameters and their gradients.
    pub adapter: usize,
    /// Optimizer states.
    pub optimizer: usize,
    /// What a step keeps between forward and backward.
    pub activations: usize,
    /// Buffers that live within an op or a layer.
    pub workspace: usize,
}

/// The work of one op over the run.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    /// Its name.
    pub op: String,
    /// Calls.
    pub calls: u64,
    /// Floating-point operations; a multiply-add counts as two.
    pub flops: f64,
    /// Bytes read and written.
    pub traffic_bytes: f64,
}

/// Plans the run of `inputs`.
pub fn plan(inputs: &Inputs, machine: &Machine) -> Result<Plan> {
    match fit::search(inputs, machine)? {
        Found::Fits(fit) => {
            describe(inputs, machine, &fit.simulation, fit.limit, fit.reason, Vec::new())
        }
        Found::TooLarge { least, limit } => {
            let changes = change::that_fit(inputs, machine, limit)?;
            let reason = "the least there is; it does not fit".to_owned();
            let plan = describe(inputs, machine, &least, Some(limit), reason, changes)?;
            Ok(Plan { fits: false, ..plan })
        }
    }
}

fn describe(
    inputs: &Inputs,
    machine: &Machine,
    simulation: &Simulation,
    limit_bytes: Option<u64>,
    reason: String,
    changes: Vec<Change>,
) -> Result<Plan> {
    let bytes = |category: Category| simulation.by_category[category as usize];
    let mut ops: Vec<Work> = simulation
        .ledger
        .ops()
        .iter()
        .map(|(op, work)| Work {
            op: (*op).to_owned(),
            calls: work.calls,
            flops: work.flops,
            traffic_bytes: work.traffic,
        })
        .collect();
    ops.sort_by(|a, b| b.flops.total_cmp(&a.flops));
    let model_parameters = inputs.config.num_parameters();
    let trained_parameters = match &inputs.lora {
        None => model_parameters,
        Some(lora) => {
            Adapter::zeros(&Device::plan_for(Kind::Cpu), &inputs.config, lora)?.num_parameters()
        }
    };
    Ok(Plan {
        fits: true,
        limit_bytes,
        peak_bytes: simulation.peak_bytes,
        peak: Peak {
            weights: bytes(Category::Weights),
            adapter: bytes(Category::Adapter),
            optimizer: bytes(Category::Optimizer),
            activations: bytes(Category::Activations),
            workspace: bytes(Category::Workspace),
        },
        token_budget: simulation.policy.token_budget,
        kept_layers: simulation.policy.kept_layers.min(inputs.config.num_hidden_layers),
        layers: inputs.config.num_hidden_layers,
        host_layers: simulation.policy.host_layers,
        host_table: simulation.policy.host_table,
        host_bytes: simulation.host_bytes,
        reason,
        model_parameters,
        trained_parameters,
        steps: simulation.steps,
        examples: inputs.report.examples,
        rated_tokens: simulation.rated_tokens,
        flops: simulation.ledger.total().flops,
        seconds: machine.gpu().map(|gpu| gpu.seconds(&simulation.ledger)),
        gpu: machine.gpu().map(|gpu| gpu.name.to_owned()),
        longest_example: longest::example(inputs, machine)?,
        made_up: inputs.are_made_up(),
        ops,
        changes,
    })
}
