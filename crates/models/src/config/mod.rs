//! What a model is: the fields of Hugging Face's `config.json` that change the mathematics.
//!
//! Both spellings are read: transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and transformers 5
//! (`rope_parameters`, `layer_types`, `dtype`).

mod families;
mod keys;
mod layers;
mod multimodal;
mod parse;
pub(crate) mod quantization;
mod rope;
mod rotary;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;

use engine::ops::gated_mlp::Activation;
use engine::ops::linear_logps::Logits;

use crate::error::Result;
use crate::weights::{Linear, Norm};

pub use families::SUPPORTED;
pub use quantization::{Stored, stored_quantization};
pub use rope::{Rope, RopeScaling, RopeTables};

/// Where a block is normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// What goes into attention and MLP.
    Before,
    /// What comes out of them, before it is added to the stream.
    After,
    /// Both.
    Around,
}

/// What is normed of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// Nothing.
    None,
    /// Each head on its own, with one weight for all heads.
    Heads,
    /// All heads of a token at once.
    Width,
}

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
    /// The rotary embeddings.
    pub ropes: Vec<Rope>,
    /// Which of them each layer has; none where queries and keys are not turned.
    pub layer_ropes: Vec<Option<usize>>,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// The head is the embedding table.
    pub tie_word_embeddings: bool,
    /// One linear layer computes q, k and v, and another the MLP's gate and its other input.
    pub fused_linears: bool,
    /// q, k and v have a bias.
    pub qkv_bias: bool,
    /// The attention's output has a bias.
    pub o_bias: bool,
    /// The MLP's three layers have a bias.
    pub mlp_bias: bool,
    /// Where a block is normed.
    pub norms: Norms,
    /// What is added to the stored weight of every norm.
    pub norm_offset: f32,
    /// What is normed of queries and keys before the rotation.
    pub qk_norm: QkNorm,
    /// The sliding window of each layer, where it has one.
    pub windows: Vec<Option<usize>>,
    /// The gate's function.
    pub activation: Activation,
    /// The factor of q k^T.
    pub attention_scale: f32,
    /// The bound that attention scores approach.
    pub attention_soft_cap: Option<f32>,
    /// The bound that logits approach.
    pub final_soft_cap: Option<f32>,
    /// The factor of embeddings.
    pub embedding_multiplier: f32,
    /// The factor of what attention and MLP add to the stream.
    pub residual_multiplier: f32,
    /// The factor of logits.
    pub logits_scale: f32,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// The decoder is one part of a model that reads images too, which are left out.
    pub multimodal: bool,
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

    /// The path of the decoder's module within the model, as transformers 5 has it in memory.
    pub fn decoder_path(&self) -> &'static str {
        if self.multimodal { "model.language_model" } else { "model" }
    }

    /// Width of the queries.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The linear layers of a block, in the order they are used.
    pub fn linears(&self) -> &'static [Linear] {
        if self.fused_linears { &Linear::FUSED } else { &Linear::SEPARATE }
    }

    /// The elements that the norms of queries and of keys have weights for, where there are such norms.
    pub fn qk_norm_sizes(&self) -> Option<[usize; 2]> {
        match self.qk_norm {
            QkNorm::None => None,
            QkNorm::Heads => Some([self.head_dim; 2]),
            QkNorm::Width => Some([self.query_size(), self.key_value_size()]),
        }
    }

    /// How a product with the head becomes a logit.
    pub fn logits(&self) -> Logits {
        Logits { scale: self.logits_scale, soft_cap: self.final_soft_cap }
    }

    /// How many numbers the model has; a head tied to the embeddings counts once.
    pub fn num_parameters(&self) -> usize {
        let linear = self.linears().iter().map(|linear| {
            let (rows, cols) = linear.shape(self);
            rows * cols + if linear.has_bias(self) { rows } else { 0 }
        });
        let block_norms = Norm::ALL.iter().filter(|norm| norm.path(self.norms).is_some()).count();
        let norms = block_norms * self.hidden_size
            + self.qk_norm_sizes().map_or(0, |sizes| sizes.iter().sum());
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        self.num_hidden_layers * (linear.sum::<usize>() + norms)
            + tables * self.vocab_size * self.hidden_size
            + self.hidden_size
    }
}
