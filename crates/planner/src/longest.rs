//! The longest example that would fit.

use train::error::Result;
use train::fit::{self, Policy};
use train::inputs::Inputs;
use train::machine::Machine;
use train::recipe::Recipe;
use train::recipe::training::Train;

/// Found to this many tokens.
const STEP: usize = 256;

/// Tokens of the longest example, half prompt, half completion, that fits alone in its pass when memory is all that
/// counts; 0 if none does.
pub(crate) fn example(inputs: &Inputs, machine: &Machine) -> Result<usize> {
    let Some(limit) = machine.limit else { return Ok(inputs.config.max_position_embeddings) };
    let fits = |tokens: usize| -> Result<bool> {
        let mut recipe: Recipe = inputs.recipe.clone();
        let batch_size = if recipe.objective.name.needs_kl() { 2 } else { 1 };
        recipe.train = Train {
            batch_size,
            gradient_accumulation_steps: 1,
            token_budget: Some(1),
            ..recipe.train
        };
        recipe.data.max_length = tokens;
        let config = inputs.config.clone();
        let alone = Inputs::made_up(recipe, config, tokens / 2, tokens - tokens / 2)?;
        let policy = Policy::least(&alone, machine, 1);
        Ok(fit::simulate(&alone, machine, policy)?.peak_bytes as u64 <= limit)
    };
    let most = inputs.config.max_position_embeddings / STEP;
    if most == 0 || !fits(STEP)? {
        return Ok(0);
    }
    if fits(most * STEP)? {
        return Ok(most * STEP);
    }
    let (mut low, mut high) = (1, most);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if fits(middle * STEP)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(low * STEP)
}
