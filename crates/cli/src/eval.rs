//! `prospect eval`: the metrics of held-out data.

use ::data::template::Moment;
use ::train::error::Result;
use ::train::fit;
use ::train::inputs::Inputs;
use ::train::machine::Machine;
use ::train::recipe::adapter::Adapter;
use serde_json::{Map, json};

use crate::args;
use crate::ending::Done;
use crate::hub;
use crate::terminal::{json as to_json, print, say};
use crate::threads;
use crate::words::number;

/// Measures.
pub(crate) fn run(arguments: &args::Eval) -> Result<Done> {
    let mut recipe = hub::recipe(&arguments.recipe)?;
    threads::start(&recipe.train)?;
    recipe.generate = None;
    if recipe.data.eval.is_empty() {
        say(
            "note: the recipe has no held-out data (data.eval), so this measures what training learns from",
        );
        recipe.data.measure_train();
    }
    match &arguments.adapter {
        // Rank, scale and modules are those of the adapter, whatever the recipe trains.
        Some(folder) => {
            recipe.adapter =
                Some(Adapter { init_from: Some(folder.clone()), ..Adapter::default() });
        }
        None => say("note: without --adapter this measures the model as training starts with it"),
    }
    let machine = Machine::choose(&recipe)?;
    let inputs = Inputs::load(recipe, Moment::now())?;
    let metrics = fit::evaluate(&inputs, &machine)?;
    if arguments.json {
        let object: Map<String, serde_json::Value> =
            metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        print(&to_json(&object));
        return Ok(Done::Well);
    }
    let width = metrics.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in &metrics {
        print(&format!("{name:<width$}  {}", number(*value)));
    }
    Ok(Done::Well)
}
