//! `prospect plan`: what a run will take, before it runs.

mod table;

use ::data::template::Moment;
use ::train::error::{Error, Result};
use ::train::fit::bytes;
use ::train::gpus;
use ::train::inputs::Inputs;
use ::train::machine::Machine;
use ::train::recipe::{Bytes, Recipe};
use planner::{Change, Plan};

use crate::args;
use crate::ending::Done;
use crate::hub;
use crate::terminal::{on_stdout, print};
use crate::words::{clock, count, flop, things};

/// Ops with a smaller share of the work are left out of the table; JSON has all.
const SMALLEST_SHARE: f64 = 0.001;

/// Plans.
pub(crate) fn run(arguments: &args::Plan) -> Result<Done> {
    let gpu = arguments.gpu.as_deref().map(Gpu::of).transpose()?;
    let Some(recipe) = &arguments.recipe else {
        let Some(gpu) = gpu else { unreachable!("--table asks for --gpu") };
        return table::show(&gpu.machine(None), arguments.json);
    };
    let recipe = hub::fetched_to_plan(Recipe::read_without_files(recipe, &arguments.set)?)?;
    let machine = match &gpu {
        Some(gpu) => gpu.machine(recipe.train.memory_limit.map(|limit| limit.0)),
        None => Machine::choose(&recipe)?,
    };
    let plan = planner::plan(&Inputs::load_to_plan(recipe, Moment::now())?, &machine)?;
    if arguments.json {
        print(&crate::terminal::json(&plan));
        return Ok(Done::Well);
    }
    if gpu.is_some() {
        print(&format!("for     {}", machine.description));
    }
    memory(&plan);
    work(&plan);
    if !plan.fits {
        changes(&plan);
    }
    Ok(Done::Well)
}

/// A GPU to plan for: one of a name, or of a size.
struct Gpu {
    known: Option<gpus::Gpu>,
    bytes: u64,
}

impl Gpu {
    fn of(text: &str) -> Result<Gpu> {
        if let Ok(bytes) = text.parse::<Bytes>() {
            return Ok(Gpu { known: None, bytes: bytes.0 });
        }
        let Some(known) = gpus::find(text) else {
            return Err(Error::input(
                format!("--gpu {text} is neither a GPU that is known nor a size"),
                format!(
                    "write its memory, such as 24GiB, or one of {}",
                    gpus::GPUS.map(|gpu| gpu.name).join(", ")
                ),
            ));
        };
        let (major, minor) = known.capability;
        if known.capability < (8, 0) {
            return Err(Error::input(
                format!(
                    "--gpu {text}: a {} has compute capability {major}.{minor}, 8.0 is needed",
                    known.name
                ),
                "Prospect's kernels need an Ampere GPU (RTX 30, A100) or a newer one",
            ));
        }
        let bytes = (known.memory_gib * f64::from(1 << 30)) as u64;
        Ok(Gpu { known: Some(known), bytes })
    }

    fn machine(&self, memory_limit: Option<u64>) -> Machine {
        Machine::planned_gpu(memory_limit, self.known, self.bytes)
    }
}

fn memory(plan: &Plan) {
    let fits = match (plan.fits, plan.limit_bytes) {
        (true, Some(limit)) => format!("fits into {}", bytes(limit)),
        (true, None) => "no limit is known".to_owned(),
        (false, limit) => format!("does not fit into {}", bytes(limit.unwrap_or(0))),
    };
    let mark = if plan.fits { on_stdout().green().bold() } else { on_stdout().red().bold() };
    print(&format!(
        "memory  {} at its peak: {}",
        bytes(plan.peak_bytes as u64),
        mark.apply_to(fits)
    ));
    let peak = &plan.peak;
    for (name, part, what) in [
        ("weights", peak.weights, "the model's"),
        ("adapter", peak.adapter, "what is trained, and its gradient"),
        ("optimizer", peak.optimizer, "two moments of every trained parameter"),
        ("activations", peak.activations, "what a step keeps for backward"),
        ("workspace", peak.workspace, "buffers within an op"),
    ] {
        let share = part as f64 / plan.peak_bytes.max(1) as f64;
        let bar = "▇".repeat((share * 30.0).round() as usize);
        print(&format!(
            "  {name:<12} {:>10}  {:>3.0} %  {bar:<30}  {}",
            bytes(part as u64),
            100.0 * share,
            on_stdout().dim().apply_to(what)
        ));
    }
    if plan.host_bytes > 0 {
        print(&format!(
            "host    {} of the host's memory are pinned beside it",
            bytes(plan.host_bytes as u64)
        ));
    }
    print(&format!("policy  {}", plan.reason));
    if plan.made_up {
        print("data    not there: every example is taken to be as long as data.max_length allows");
    }
    if plan.longest_example > 0 && plan.limit_bytes.is_some() {
        print(&format!(
            "longest {} tokens in one example would fit, slowly",
            count(plan.longest_example)
        ));
    }
}

fn work(plan: &Plan) {
    print(&format!(
        "\nwork    {} over {} examples: {} rated tokens, {}",
        things(plan.steps, "step"),
        count(plan.examples),
        count(plan.rated_tokens),
        flop(plan.flops)
    ));
    print(&format!(
        "        {} parameters, {} of them trained",
        count(plan.model_parameters.max(plan.trained_parameters)),
        count(plan.trained_parameters)
    ));
    if let (Some(seconds), Some(gpu)) = (plan.seconds, &plan.gpu) {
        print(&format!(
            "time    about {} on the {gpu}, {} rated tokens a second: predicted from its figures, {}",
            clock(seconds),
            count((plan.rated_tokens as f64 / seconds) as usize),
            table::TRUST
        ));
    }
    let large = |flops: f64| flops >= SMALLEST_SHARE * plan.flops;
    for work in plan.ops.iter().filter(|work| large(work.flops)) {
        print(&format!(
            "  {:<26} {:>13}  {:>5.1} %  {:>12} calls  {:>10} moved",
            work.op,
            flop(work.flops),
            100.0 * work.flops / plan.flops.max(1.0),
            count(work.calls as usize),
            bytes(work.traffic_bytes as u64)
        ));
    }
}

fn changes(plan: &Plan) {
    let (fit, closest): (Vec<&Change>, Vec<&Change>) =
        plan.changes.iter().partition(|change| change.fits);
    if fit.is_empty() {
        print("\nnothing that can be changed in this recipe makes it fit");
    } else {
        print("\nchanges that make it fit:");
    }
    for change in fit {
        describe(change);
    }
    for change in closest {
        print("this is as far as it goes:");
        describe(change);
    }
}

fn describe(change: &Change) {
    let set: Vec<String> = change.set.iter().map(|set| format!("--set {set}")).collect();
    print(&format!(
        "  {}  {}",
        on_stdout().bold().apply_to(set.join(" ")),
        bytes(change.peak_bytes as u64)
    ));
    for cost in &change.cost {
        print(&format!("      {cost}"));
    }
}
