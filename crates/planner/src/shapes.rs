//! The shapes of well-known models, for plans and measurements without a download.

use models::config::ModelConfig;
use serde_json::{Map, Value, json};
use train::error::Result;

/// A Llama of a known size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// What it is called here.
    pub name: &'static str,
    /// Whose shape it is.
    pub like: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Rows of the embedding table.
    pub vocabulary: usize,
    /// The head is the embedding table.
    pub tied: bool,
    /// The rotary base.
    pub theta: f64,
}

/// From the models' own `config.json`; `tiny` is for trying things out.
#[rustfmt::skip]
pub const SHAPES: [Shape; 12] = [
    Shape { name: "tiny", like: "nothing", hidden: 256, intermediate: 688, layers: 2, heads: 4, kv_heads: 2, vocabulary: 32_000, tied: false, theta: 1e4 },
    Shape { name: "135m", like: "SmolLM2 135M", hidden: 576, intermediate: 1536, layers: 30, heads: 9, kv_heads: 3, vocabulary: 49_152, tied: true, theta: 1e5 },
    Shape { name: "0.5b", like: "Qwen2.5 0.5B", hidden: 896, intermediate: 4864, layers: 24, heads: 14, kv_heads: 2, vocabulary: 151_936, tied: true, theta: 1e6 },
    Shape { name: "1b", like: "Llama 3.2 1B", hidden: 2048, intermediate: 8192, layers: 16, heads: 32, kv_heads: 8, vocabulary: 128_256, tied: true, theta: 5e5 },
    Shape { name: "3b", like: "Llama 3.2 3B", hidden: 3072, intermediate: 8192, layers: 28, heads: 24, kv_heads: 8, vocabulary: 128_256, tied: true, theta: 5e5 },
    Shape { name: "7b", like: "Llama 2 7B", hidden: 4096, intermediate: 11_008, layers: 32, heads: 32, kv_heads: 32, vocabulary: 32_000, tied: false, theta: 1e4 },
    Shape { name: "8b", like: "Llama 3.1 8B", hidden: 4096, intermediate: 14_336, layers: 32, heads: 32, kv_heads: 8, vocabulary: 128_256, tied: false, theta: 5e5 },
    Shape { name: "13b", like: "Llama 2 13B", hidden: 5120, intermediate: 13_824, layers: 40, heads: 40, kv_heads: 40, vocabulary: 32_000, tied: false, theta: 1e4 },
    Shape { name: "14b", like: "Qwen2.5 14B", hidden: 5120, intermediate: 13_824, layers: 48, heads: 40, kv_heads: 8, vocabulary: 152_064, tied: false, theta: 1e6 },
    Shape { name: "20b", like: "InternLM2 20B", hidden: 6144, intermediate: 16_384, layers: 48, heads: 48, kv_heads: 8, vocabulary: 92_544, tied: false, theta: 1e6 },
    Shape { name: "32b", like: "Qwen2.5 32B", hidden: 5120, intermediate: 27_648, layers: 64, heads: 40, kv_heads: 8, vocabulary: 152_064, tied: false, theta: 1e6 },
    Shape { name: "70b", like: "Llama 3.1 70B", hidden: 8192, intermediate: 28_672, layers: 80, heads: 64, kv_heads: 8, vocabulary: 128_256, tied: false, theta: 5e5 },
];

impl Shape {
    /// The shape of a name.
    pub fn find(name: &str) -> Option<Shape> {
        SHAPES.into_iter().find(|shape| shape.name == name)
    }

    /// As `config.json` has it.
    pub fn config_json(&self) -> Map<String, Value> {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.hidden / self.heads,
            "vocab_size": self.vocabulary, "tie_word_embeddings": self.tied,
            "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 131_072,
            "rope_theta": self.theta, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
            "torch_dtype": "bfloat16",
        });
        let Value::Object(fields) = config else { unreachable!("an object was written") };
        fields
    }

    /// Its configuration.
    pub fn config(&self) -> Result<ModelConfig> {
        Ok(ModelConfig::from_json(&Value::Object(self.config_json()).to_string())?)
    }
}
