//! What a model is: the fields of Hugging Face's `config.json` that change the mathematics.
//!
//! Both spellings are read: transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and transformers 5
//! (`rope_parameters`, `layer_types`, `dtype`).

mod families;
mod parse;
pub(crate) mod quantization;
mod rope;
#[cfg(test)]
mod tests;

use std::path::Path;

use engine::ops::gated_mlp::Activation;

use crate::error::Result;

pub use families::SUPPORTED;
pub use rope::{Rope, RopeScaling, RopeTables};

/// The decoder's numbers, under the names of `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family's name, for messages.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// The rotary embedding.
    pub rope: Rope,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// The head is the embedding table.
    pub tie_word_embeddings: bool,
    /// q, k and v have a bias.
    pub qkv_bias: bool,
    /// The attention's output has a bias.
    pub o_bias: bool,
    /// The MLP's three layers have a bias.
    pub mlp_bias: bool,
    /// Query and key heads are normed before the rotation.
    pub qk_norm: bool,
    /// The sliding window of each layer, where it has one.
    pub windows: Vec<Option<usize>>,
    /// The gate's function.
    pub activation: Activation,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
}

impl ModelConfig {
    /// Reads `config.json` (and `generation_config.json`, for the tokens that end an answer) of a model folder.
    pub fn load(folder: &Path) -> Result<ModelConfig> {
        parse::load(folder)
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<ModelConfig> {
        parse::from_json(text)
    }

    /// Width of the queries.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// How many numbers the model has; a head tied to the embeddings counts once.
    pub fn num_parameters(&self) -> usize {
        let linear = crate::weights::Linear::ALL.iter().map(|linear| {
            let (rows, cols) = linear.shape(self);
            rows * cols + if linear.has_bias(self) { rows } else { 0 }
        });
        let norms = 2 * self.hidden_size + if self.qk_norm { 2 * self.head_dim } else { 0 };
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * (linear.sum::<usize>() + norms)
            + tables * self.vocab_size * self.hidden_size
            + self.hidden_size
    }
}
