//! The quickstart's model: its shape, the random weights pretraining starts from, and the copy of the result.

use std::collections::HashMap;
use std::path::Path;

use engine::random::Stream;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::tokenizer::{END_ID, MAX_LENGTH, PAD_ID, VOCAB_SIZE};

const HIDDEN: usize = 128;
const INTERMEDIATE: usize = 384;
const LAYERS: usize = 4;
const HEADS: usize = 4;

/// The standard deviation of weights before training, as transformers' `initializer_range`.
const DEVIATION: f32 = 0.02;

/// `config.json` of a Llama; `dtype` is what its weights are stored in.
fn config(dtype: &str) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HIDDEN / HEADS,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": MAX_LENGTH,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 },
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "initializer_range": DEVIATION,
        "pad_token_id": PAD_ID,
        "eos_token_id": END_ID,
        "dtype": dtype,
    })
}

/// Names and shapes of all tensors.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB_SIZE, HIDDEN])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    tensors
}

/// How many weights the model has.
pub(super) fn parameters() -> usize {
    tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Writes a model that has learnt nothing: matrices from a normal distribution, norms of one.
pub(super) fn write_untrained(folder: &Path, seed: u64) -> Result<(), String> {
    let mut stored = Vec::new();
    for (stream, (name, shape)) in tensors().into_iter().enumerate() {
        let values = match shape[..] {
            [n] => vec![1.0; n],
            _ => Stream::new(seed, stream as u64).normals(shape.iter().product()),
        };
        let scale = if shape.len() == 1 { 1.0 } else { DEVIATION };
        let bytes: Vec<u8> =
            values.iter().flat_map(|value| (value * scale).to_le_bytes()).collect();
        stored.push((name, shape, bytes));
    }
    let unwritable = |error| format!("cannot write the model: {error}");
    let mut views = Vec::new();
    for (name, shape, bytes) in &stored {
        let view = TensorView::new(Dtype::F32, Vec::clone(shape), bytes).map_err(unwritable)?;
        views.push((name, view));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(unwritable)?;
    super::write_bytes(&folder.join("model.safetensors"), &bytes)?;
    super::write_json(&folder.join("config.json"), &config("float32"))
}

/// Copies what was trained in `from` into `to`.
pub(super) fn keep(from: &Path, to: &Path) -> Result<(), String> {
    let path = from.join("model.safetensors");
    let bytes =
        std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let file =
        SafeTensors::deserialize(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    // The recipe writes what it trained rounded to bf16.
    if file.iter().any(|(_, tensor)| tensor.dtype() != Dtype::BF16) {
        return Err(format!("{} is not in bf16", path.display()));
    }
    super::write_bytes(&to.join("model.safetensors"), &bytes)?;
    super::write_json(&to.join("config.json"), &config("bfloat16"))
}
