//! What a model of a published shape takes to train, before there is a recipe, weights or data: so that a person can
//! know what fits a machine.
//!
//! One pass runs on the `plan` device: a prompt of 512 tokens, a rated completion of 512 and a mismatched one of 512
//! (the KL term), the reference's rows along, every block computed again in backward; weights in NF4 with quantized
//! scales, embeddings in bf16, LoRA r = 16 on all linear layers, AdamW in f32. That is KTO with the least memory this
//! length can do with; a recipe's own plan is `prospect plan`. A test holds it against the plan of a recipe.

use engine::device::{Device, Kind};
use engine::ops::adamw::{Rule, State};
use engine::ops::attention::Segment;
use models::config::ModelConfig;
use models::decoder::{self, Keep, Model, Pass, RowGroup};
use models::head;
use models::lora::{Adapter, LoraConfig, Targets};
use models::trained::Gradients;
use models::weights::{self, Quantization, Storage};
use serde::Serialize;
use train::error::Result;

/// Tokens of the prompt, and of each completion.
const TOKENS: usize = 512;

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

/// hidden, intermediate, blocks, heads, KV heads, words, head tied to the embeddings.
type Shape = [usize; 6];

/// Shapes from the `config.json` on Hugging Face, the smallest first.
const SHAPES: [(&str, Shape, bool); 8] = [
    ("SmolLM2-135M", [576, 1536, 30, 9, 3, 49_152], true),
    ("Qwen2.5-0.5B", [896, 4864, 24, 14, 2, 151_936], true),
    ("Llama-3.2-1B", [2048, 8192, 16, 32, 8, 128_256], true),
    ("Llama-3.2-3B", [3072, 8192, 28, 24, 8, 128_256], true),
    ("Llama-3.1-8B", [4096, 14_336, 32, 32, 8, 128_256], false),
    ("Qwen2.5-14B", [5120, 13_824, 48, 40, 8, 152_064], false),
    ("Qwen2.5-32B", [5120, 27_648, 64, 40, 8, 152_064], false),
    ("Llama-3.1-70B", [8192, 28_672, 80, 64, 8, 128_256], false),
];

/// What each of the shapes takes.
pub fn sizes() -> Result<Vec<Size>> {
    SHAPES.iter().map(|(name, shape, tied)| size(name, *shape, *tied)).collect()
}

fn size(name: &'static str, shape: Shape, tied: bool) -> Result<Size> {
    let [hidden, intermediate, layers, heads, kv_heads, words] = shape;
    let config = ModelConfig::from_json(&format!(
        r#"{{"model_type": "llama", "hidden_size": {hidden}, "intermediate_size": {intermediate},
        "num_hidden_layers": {layers}, "num_attention_heads": {heads}, "num_key_value_heads": {kv_heads},
        "vocab_size": {words}, "tie_word_embeddings": {tied}, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072, "rope_theta": 5e5, "eos_token_id": 2}}"#
    ))?;
    let (cpu, gpu) = (Device::plan_for(Kind::Cpu), Device::plan_for(Kind::Cuda));
    for device in [&cpu, &gpu] {
        pass(device, &config, TOKENS, TOKENS)?;
    }
    Ok(Size {
        name,
        parameters: config.num_parameters(),
        cpu_bytes: cpu.peak_bytes(),
        gpu_bytes: gpu.peak_bytes(),
        flops_per_rated_token: cpu.ledger().total().flops / (2 * TOKENS) as f64,
    })
}

/// One KTO pass over one example, forward and backward, with everything that lives through a run beside it.
fn pass(device: &Device, config: &ModelConfig, prompt: usize, completion: usize) -> Result<()> {
    let quantization = Quantization::Nf4 { double_quant: true };
    let weights = weights::load(device, config, None, quantization, Storage::Bf16)?;
    let model = Model::new(device, config.clone(), weights, prompt + completion)?;
    let lora = LoraConfig {
        r: 16,
        lora_alpha: 32.0,
        use_rslora: false,
        lora_dropout: 0.0,
        target_modules: Targets::AllLinear,
    };
    let mut policy = Adapter::zeros(device, config, &lora)?;
    let mut gradients = Adapter::zeros(device, config, &lora)?;
    let states: Vec<State> = policy
        .tensors_mut()
        .iter()
        .map(|(_, tensor)| State::new(device, Rule::Torch, tensor.shape().len()))
        .collect::<std::result::Result<_, _>>()?;
    let rows = prompt + 2 * completion;
    let child = |base: usize, start: usize| Segment {
        query_start: start,
        key_start: start,
        len: completion,
        parent_start: base,
        parent_len: prompt,
        position0: prompt,
    };
    let mut segments = Vec::new();
    let mut items = Vec::new();
    for base in [0, rows] {
        let whole = Segment {
            len: prompt,
            parent_start: 0,
            parent_len: 0,
            position0: 0,
            ..child(base, base)
        };
        let starts = [base + prompt, base + prompt + completion];
        segments.push(whole);
        for start in starts {
            segments.push(child(base, start));
            let scored = std::iter::once(base + prompt - 1).chain(start..start + completion - 1);
            items.extend(scored.map(|row| (row as u32, 0u32)));
        }
    }
    let zeros = vec![0u32; 2 * rows];
    let (ids, positions) = (device.upload(&zeros)?, device.upload(&zeros)?);
    let grad_rows = prompt + completion;
    let pass = |groups| Pass {
        tokens: ids.view(),
        positions: positions.view(),
        segments: segments.clone(),
        groups,
        grad_rows,
        dropout: None,
    };
    let keep = vec![Keep::Input; config.num_hidden_layers];
    let groups = vec![
        RowGroup { rows: 0..rows, adapter: Some(&policy) },
        RowGroup { rows: rows..2 * rows, adapter: None },
    ];
    let (mut hidden, kept) = decoder::forward(&model, &pass(groups), &keep)?.into_parts();
    let scored = head::forward(&model, hidden.view(), &items, grad_rows)?;
    let mut dhidden = hidden.slice_mut(0..grad_rows);
    let mut to = Gradients::Adapter(&mut gradients);
    head::backward(&model, &scored, &vec![0.0; items.len()], dhidden.reborrow(), &mut to)?;
    drop(scored);
    let backward = pass(vec![RowGroup { rows: 0..rows, adapter: Some(&policy) }]);
    decoder::backward(&model, &backward, kept, dhidden, &mut to)?;
    drop(states);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use train::fit::{Policy, simulate};
    use train::inputs::{Inputs, Moment};
    use train::machine::Machine;
    use train::recipe::Recipe;

    use super::*;

    /// Two examples of a recipe in one pass take what one example of their tokens together takes.
    #[test]
    fn the_pass_takes_what_a_recipe_of_the_same_tokens_takes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = std::env::temp_dir().join(format!("prospect-sizes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let row = |prompt: &str, completion: &str, label| {
            format!(
                "{{\"prompt\": \"{}\", \"completion\": \"{}\", \"label\": {label}}}\n",
                prompt.repeat(40),
                completion.repeat(40)
            )
        };
        let rows = row("Who barks? ", "The dog barks. ", true)
            + &row("What purrs? ", "A cat purrs. ", false);
        std::fs::write(folder.join("rows.jsonl"), rows).expect("rows");
        let recipe = format!(
            "[model]\npath = \"{}\"\nquantization = \"nf4\"\ndtype = \"bf16\"\n\
             [adapter]\nr = 16\nlora_alpha = 32\ntarget_modules = \"all-linear\"\n\
             [data]\ntrain = \"{}\"\nmax_length = 512\n[objective]\nname = \"kto\"\n\
             [train]\ndevice = \"cpu\"\nbatch_size = 2\nmax_steps = 1\n",
            root.join("assets/quickstart/model").display(),
            folder.join("rows.jsonl").display()
        );
        std::fs::write(folder.join("recipe.toml"), recipe).expect("a recipe");
        let recipe = Recipe::read(&folder.join("recipe.toml"), &[]).expect("it reads");
        let machine = Machine::choose(&recipe).expect("a CPU");
        let inputs = Inputs::load(recipe, Moment::now()).expect("they load");
        let policy = Policy { token_budget: 1 << 20, kept_layers: 0 };
        let real = simulate(&inputs, &machine, policy).expect("it runs").peak_bytes as f64;
        let examples = inputs.dataset.examples();
        let prompt = examples.iter().map(|example| example.prompt_ids.len()).sum();
        let completion = examples.iter().map(|example| example.completion_ids.len()).sum();
        let device = Device::plan_for(Kind::Cpu);
        pass(&device, &inputs.config, prompt, completion).expect("it runs");
        let ours = device.peak_bytes() as f64;
        std::fs::remove_dir_all(&folder).expect("gone");
        assert!((ours / real - 1.0).abs() < 0.03, "{ours} bytes, the recipe takes {real}");
    }

    #[test]
    fn sizes_grow_with_the_model_and_8b_fits_a_card_of_12_gb() {
        let sizes = sizes().expect("the shapes are sound");
        for pair in sizes.windows(2) {
            assert!(pair[0].cpu_bytes < pair[1].cpu_bytes && pair[0].gpu_bytes < pair[1].gpu_bytes);
        }
        let eight = sizes.iter().find(|size| size.name == "Llama-3.1-8B").expect("it is there");
        assert!((8.0e9..8.1e9).contains(&(eight.parameters as f64)), "{}", eight.parameters);
        // 4-bit linear layers 3.6 GB, embeddings and head in bf16 2.1 GB, adapter with gradient and moments 0.7 GB.
        assert!((6.3e9..11e9).contains(&(eight.gpu_bytes as f64)), "{}", eight.gpu_bytes);
        // 2 N forward of three passes of 1,536 rows, N again and N of gradients over 1,024, by 1,024 rated tokens.
        let per_parameter = eight.flops_per_rated_token / 7.0e9;
        assert!((8.0..13.0).contains(&per_parameter), "{per_parameter}");
    }
}
