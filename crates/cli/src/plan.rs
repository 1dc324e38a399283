//! `prospect plan`: what a run will take, before it runs.

use ::data::template::Moment;
use ::train::error::{Error, Result};
use ::train::fit::bytes;
use ::train::inputs::Inputs;
use ::train::machine::Machine;
use ::train::recipe::Recipe;
use planner::{Change, Plan};

use crate::args;
use crate::ending::Done;
use crate::hub;
use crate::terminal::{on_stdout, print};
use crate::words::{count, flop, things};

/// Ops with a smaller share of the work are left out of the table; JSON has all.
const SMALLEST_SHARE: f64 = 0.001;

/// Plans.
pub(crate) fn run(arguments: &args::Plan) -> Result<Done> {
    let recipe = hub::fetched(read(&arguments.recipe)?)?;
    let machine = Machine::choose(&recipe)?;
    let plan = planner::plan(&Inputs::load(recipe, Moment::now())?, &machine)?;
    if arguments.json {
        print(&crate::terminal::json(&plan));
        return Ok(Done::Well);
    }
    memory(&plan);
    work(&plan);
    if !plan.fits {
        changes(&plan);
    }
    Ok(Done::Well)
}

/// A recipe whose files must be there: the plan walks the run's own batches.
fn read(arguments: &args::RecipeArguments) -> Result<Recipe> {
    Recipe::read(&arguments.recipe, &arguments.set).map_err(|error| {
        if Recipe::read_without_files(&arguments.recipe, &arguments.set).is_err() {
            return error; // the recipe is wrong, not what it names
        }
        Error {
            hint: format!(
                "{}; a plan walks the run's own batches, so it needs the files",
                error.hint
            ),
            ..error
        }
    })
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
    print(&format!("policy  {}", plan.reason));
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
