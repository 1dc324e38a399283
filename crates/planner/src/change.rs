//! The smallest changes of a recipe that make its run fit: each kind of change alone, from its mildest form on; and
//! where none is enough alone, all of them together, the cheapest first.

use models::weights::stored_form;
use serde::Serialize;
use train::error::Result;
use train::fit::{self, Found};
use train::inputs::Inputs;
use train::machine::Machine;
use train::recipe::Recipe;
use train::recipe::adapter::Adapter;
use train::recipe::model::{Dtype, Quantization};
use train::recipe::optimizer::OptimizerName;

/// A change, what it costs, and what the run takes with it.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// As for `--set`.
    pub set: Vec<String>,
    /// What is given up.
    pub cost: Vec<String>,
    /// Whether the run fits then.
    pub fits: bool,
    /// The most it holds at one time then.
    pub peak_bytes: usize,
}

/// The kinds of changes, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TokenBudget,
    Adapter,
    Adamw8bit,
    Bf16,
    Nf4,
    Rank,
    MaxLength,
}

const KINDS: [Kind; 7] = [
    Kind::TokenBudget,
    Kind::Adapter,
    Kind::Adamw8bit,
    Kind::Bf16,
    Kind::Nf4,
    Kind::Rank,
    Kind::MaxLength,
];

/// Passes are not made smaller than this: a token has to stand somewhere.
const SMALLEST_BUDGET: usize = 32;

/// Examples are not cut shorter than this.
const SHORTEST: usize = 32;

impl Kind {
    /// Makes the change in its mildest form that goes farther than `recipe` does; none where there is no such.
    fn apply(self, recipe: &mut Recipe, inputs: &Inputs) -> Option<String> {
        match self {
            Kind::TokenBudget => {
                let longest = 2 * inputs.report.tokens.max * recipe.train.batch_size;
                let now = recipe.train.token_budget.unwrap_or(longest.min(512));
                let less = now / 2;
                (less >= SMALLEST_BUDGET).then(|| {
                    recipe.train.token_budget = Some(less);
                    format!("train.token_budget={less}")
                })
            }
            Kind::Adapter => recipe.adapter.is_none().then(|| {
                recipe.adapter = Some(Adapter {
                    r: Some(16),
                    lora_alpha: Some(32.0),
                    use_rslora: Some(false),
                    ..Adapter::default()
                });
                "adapter.r=16".to_owned()
            }),
            Kind::Adamw8bit => (recipe.optimizer.name == OptimizerName::Adamw).then(|| {
                recipe.optimizer.name = OptimizerName::Adamw8bit;
                "optimizer.name=adamw_8bit".to_owned()
            }),
            // In full fine-tuning the weights are held in f32 whatever they are stored in.
            Kind::Bf16 => {
                (recipe.adapter.is_some() && recipe.model.dtype == Dtype::F32).then(|| {
                    recipe.model.dtype = Dtype::Bf16;
                    "model.dtype=bf16".to_owned()
                })
            }
            Kind::Nf4 => {
                // What is stored quantized stays as it is stored.
                let wider = inputs.checkpoint.as_ref().and_then(stored_form).is_none()
                    && matches!(recipe.model.quantization, Quantization::None | Quantization::Int8);
                (recipe.adapter.is_some() && wider).then(|| {
                    recipe.model.quantization = Quantization::Nf4;
                    "model.quantization=nf4".to_owned()
                })
            }
            Kind::Rank => {
                let adapter =
                    recipe.adapter.as_mut().filter(|adapter| adapter.init_from.is_none())?;
                let less = adapter.r? / 2;
                (less >= 1).then(|| {
                    adapter.r = Some(less);
                    format!("adapter.r={less}")
                })
            }
            Kind::MaxLength => {
                let less = recipe.data.max_length.min(inputs.report.tokens.max + 1) / 2;
                (less >= SHORTEST).then(|| {
                    recipe.data.max_length = less;
                    format!("data.max_length={less}")
                })
            }
        }
    }

    /// What it costs, the recipe being changed to what `now` was loaded from.
    fn cost(self, before: &Inputs, now: &Inputs) -> String {
        match self {
            Kind::TokenBudget => "more and smaller passes: slower, the loss is the same".to_owned(),
            Kind::Adapter => {
                "trains low-rank matrices beside the weights, not the weights".to_owned()
            }
            Kind::Adamw8bit => "optimizer states rounded to 8 bits".to_owned(),
            Kind::Bf16 => "weights rounded to 8 bits of precision".to_owned(),
            Kind::Nf4 => "weights in 4 bits: a small loss of accuracy, and slower".to_owned(),
            Kind::Rank => "the adapter can express less".to_owned(),
            Kind::MaxLength => {
                let cut = |inputs: &Inputs| inputs.report.cut_completions.count;
                let dropped = |inputs: &Inputs| inputs.report.records - inputs.report.examples;
                format!(
                    "{} more completions are cut, {} more rows dropped, of {}",
                    cut(now).saturating_sub(cut(before)),
                    dropped(now).saturating_sub(dropped(before)),
                    now.report.records
                )
            }
        }
    }
}

/// Changes that make the run fit into `limit` bytes; where there are none, how far all of them together go.
pub(crate) fn that_fit(inputs: &Inputs, machine: &Machine, limit: u64) -> Result<Vec<Change>> {
    let mut alone = Vec::new();
    for kind in KINDS {
        alone.extend(enough(&[kind], inputs, machine, limit)?.filter(|change| change.fits));
    }
    if alone.is_empty() {
        alone.extend(enough(&KINDS, inputs, machine, limit)?);
    }
    Ok(alone)
}

/// Goes through `kinds`, each as far as it goes, until the run fits; none if there is nothing to change.
fn enough(
    kinds: &[Kind],
    inputs: &Inputs,
    machine: &Machine,
    limit: u64,
) -> Result<Option<Change>> {
    let mut recipe = inputs.recipe.clone();
    let machine = machine.with_limit(limit);
    let mut change: Option<Change> = None;
    let (mut set, mut cost): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for kind in kinds {
        let mut first = true;
        while let Some(key) = kind.apply(&mut recipe, inputs) {
            // A recipe that can no longer be run (every row dropped, say) is the end of this kind.
            let Ok(changed) = inputs.changed(recipe.clone()) else { break };
            let words = kind.cost(inputs, &changed);
            if !first {
                set.pop();
                cost.pop();
            }
            first = false;
            set.push(key);
            cost.push(words);
            let (fits, peak_bytes) = match fit::search(&changed, &machine)? {
                Found::Fits(fit) => (true, fit.simulation.peak_bytes),
                Found::TooLarge { least, .. } => (false, least.peak_bytes),
            };
            change = Some(Change { set: set.clone(), cost: cost.clone(), fits, peak_bytes });
            if fits {
                return Ok(change);
            }
        }
    }
    Ok(change)
}
