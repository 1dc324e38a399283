//! What models of the usual sizes take on a GPU and how fast they train there, predicted without either.

use serde::Serialize;
use train::error::Result;
use train::fit::{self, Found, Policy};
use train::inputs::Inputs;
use train::machine::Machine;
use train::recipe::Recipe;

use crate::shapes::Shape;

/// The sizes that are shown.
const NAMES: [&str; 5] = ["3b", "7b", "13b", "20b", "32b"];

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The size.
    pub name: &'static str,
    /// Whose shape it is.
    pub like: &'static str,
    /// With flash attention; none where it does not fit.
    pub flash: Option<Prediction>,
    /// With standard attention.
    pub standard: Option<Prediction>,
    /// Bytes of the arena at the least, for examples of [`LONG`] tokens, one in a pass.
    pub least_bytes: usize,
}

/// A prediction.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Prediction {
    /// Bytes of the arena.
    pub bytes: usize,
    /// Rated tokens (prompt and completion) a second.
    pub tokens_per_second: f64,
}

/// Tokens of an example for the speed, half of them prompt.
pub const EXAMPLE: usize = 1024;
/// Tokens of an example for the least memory, half of them prompt.
pub const LONG: usize = 2048;

/// QLoRA KTO as the recipes have it.
fn recipe(attention: &str, batch_size: usize) -> Result<Recipe> {
    Recipe::of_text(&format!(
        r#"
[model]
path = "model"
dtype = "bf16"
quantization = "nf4"
[adapter]
r = 16
lora_alpha = 16
[data]
train = "feedback.jsonl"
max_length = {LONG}
[objective]
name = "kto"
[optimizer]
name = "adamw_8bit"
learning_rate = 5e-6
[train]
batch_size = {batch_size}
attention = "{attention}"
max_steps = 1
"#
    ))
}

/// All rows for a GPU.
pub fn of(machine: &Machine) -> Result<Vec<Row>> {
    NAMES.iter().filter_map(|name| Shape::find(name)).map(|shape| row(shape, machine)).collect()
}

fn row(shape: Shape, machine: &Machine) -> Result<Row> {
    let predict = |attention: &str| -> Result<Option<Prediction>> {
        let half = EXAMPLE / 2;
        let inputs = Inputs::made_up(recipe(attention, 8)?, shape.config()?, half, half)?;
        Ok(match fit::search(&inputs, machine)? {
            Found::TooLarge { .. } => None,
            Found::Fits(fit) => {
                let simulation = fit.simulation;
                let seconds = machine.figures().seconds(&simulation.ledger);
                Some(Prediction {
                    bytes: simulation.peak_bytes,
                    tokens_per_second: simulation.rated_tokens as f64 / seconds,
                })
            }
        })
    };
    let alone = Inputs::made_up(recipe("flash", 2)?, shape.config()?, LONG / 2, LONG / 2)?;
    let least = fit::simulate(&alone, machine, Policy::least(&alone, machine, 1))?;
    Ok(Row {
        name: shape.name,
        like: shape.like,
        flash: predict("flash")?,
        standard: predict("standard")?,
        least_bytes: least.peak_bytes,
    })
}
