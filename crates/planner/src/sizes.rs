//! What a model of a published shape takes to train, before there is a recipe, weights or data: so that a person can
//! know what fits a machine.
//!
//! Two examples of 512 and 512 tokens under [`RECIPE`], one in a pass, with the least memory there is; a recipe's own plan
//! is `prospect plan`.

use serde::Serialize;
use train::error::Result;
use train::fit::{self, Policy};
use train::inputs::Inputs;
use train::machine::Machine;
use train::recipe::Recipe;
use train::recipe::training::Device;

use crate::shapes::Shape;

/// Tokens of the prompt, and of the completion.
const TOKENS: usize = 512;

/// The shapes, the smallest first.
const NAMES: [&str; 8] = ["135m", "0.5b", "1b", "3b", "8b", "14b", "32b", "70b"];

/// What is trained.
const RECIPE: &str = r#"
[model]
path = "model"
dtype = "bf16"
quantization = "nf4"
[adapter]
r = 16
[data]
train = "feedback.jsonl"
[objective]
name = "kto"
[train]
batch_size = 2
"#;

/// What a published shape takes.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// The model that has this shape.
    pub name: &'static str,
    /// Its parameters.
    pub parameters: usize,
    /// Bytes at the peak on the CPU.
    pub cpu_bytes: usize,
    /// Bytes at the peak on a GPU, beside CUDA's own context.
    pub gpu_bytes: usize,
    /// Floating-point operations of a rated token on the CPU, a multiply-add counting as two.
    pub flops_per_rated_token: f64,
}

/// In these words the assumption is told beside every figure.
pub const ASSUMPTION: &str =
    "4-bit weights, LoRA r = 16, KTO on one example of 1,024 tokens at a time";

/// What each of the shapes takes.
pub fn sizes() -> Result<Vec<Size>> {
    NAMES.iter().filter_map(|name| Shape::find(name)).map(size).collect()
}

fn size(shape: Shape) -> Result<Size> {
    let inputs = Inputs::made_up(Recipe::of_text(RECIPE)?, shape.config()?, TOKENS, TOKENS)?;
    let on =
        |machine: &Machine| fit::simulate(&inputs, machine, Policy::least(&inputs, machine, 1));
    let cpu = on(&Machine::find(Device::Cpu, None)?)?;
    let gpu = on(&Machine::planned_gpu(None, None, 0))?;
    Ok(Size {
        name: shape.like,
        parameters: inputs.config.num_parameters(),
        cpu_bytes: cpu.peak_bytes,
        gpu_bytes: gpu.peak_bytes,
        flops_per_rated_token: cpu.ledger.total().flops / cpu.rated_tokens as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_with_the_model_and_8b_fits_a_card_of_8_gb() {
        let sizes = sizes().expect("the shapes are sound");
        assert_eq!(sizes.len(), NAMES.len());
        for pair in sizes.windows(2) {
            assert!(pair[0].cpu_bytes < pair[1].cpu_bytes && pair[0].gpu_bytes < pair[1].gpu_bytes);
        }
        let eight = sizes.iter().find(|size| size.name == "Llama 3.1 8B").expect("it is there");
        assert!((8.0e9..8.1e9).contains(&(eight.parameters as f64)), "{}", eight.parameters);
        // 4-bit linear layers 3.6 GB, the head in bf16 1.05 GB, adapter with gradient and moments 0.7 GB.
        assert!((5.3e9..8e9).contains(&(eight.gpu_bytes as f64)), "{}", eight.gpu_bytes);
        // 2 N forward of policy and reference rows, N again and N of gradients, by the rated tokens.
        let per_parameter = eight.flops_per_rated_token / 7.0e9;
        assert!((8.0..16.0).contains(&per_parameter), "{per_parameter}");
    }
}
