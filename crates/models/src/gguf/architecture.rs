//! Which families llama.cpp computes as Prospect does, under which names, and what of a family it does not compute.
//!
//! Facts of llama.cpp as llama-cpp-python 0.3.36 carries it: `src/models/*.cpp` say what an architecture reads,
//! `conversion/*.py` how tensors are stored. Its `llama` turns pairs of neighbours where transformers turns the two
//! halves of a head, so its rows of q and k are stored in another order.

use engine::ops::gated_mlp::Activation;

use super::format::Value;
use crate::config::{ModelConfig, QkNorm, Rope, RopeScaling};
use crate::error::{Error, Result};
use crate::weights::Linear;

/// What an architecture of llama.cpp reads.
pub(super) struct Architecture {
    /// The family, by `model_type` of config.json.
    pub(super) model_type: &'static str,
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// The rotary embedding turns neighbours: rows of q and k are interleaved.
    interleaved: bool,
    /// It reads `rope_freqs`, which divides each frequency.
    rope_freqs: bool,
    /// It adds a bias to the attention's output.
    o_bias: bool,
    /// It adds biases in the MLP.
    mlp_bias: bool,
    /// It norms query and key heads.
    qk_norm: bool,
    /// Queries are as wide as the residual stream.
    square: bool,
}

pub(super) const ARCHITECTURES: [Architecture; 4] = [
    Architecture {
        model_type: "llama",
        name: "llama",
        interleaved: true,
        rope_freqs: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: false,
        square: false,
    },
    Architecture {
        model_type: "mistral",
        name: "llama",
        interleaved: true,
        rope_freqs: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: false,
        square: false,
    },
    Architecture {
        model_type: "qwen2",
        name: "qwen2",
        interleaved: false,
        rope_freqs: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        square: true,
    },
    Architecture {
        model_type: "qwen3",
        name: "qwen3",
        interleaved: false,
        rope_freqs: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: true,
        square: false,
    },
];

/// The families that are written as GGUF, for messages.
pub const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

impl Architecture {
    /// The architecture that computes what `config` says; what it would compute differently is refused by name.
    pub(super) fn of(config: &ModelConfig) -> Result<&'static Architecture> {
        let known = |it: &&Architecture| it.model_type == config.model_type;
        let Some(it) = ARCHITECTURES.iter().find(known) else {
            return Err(Error::input(
                format!("a {} model cannot be written as GGUF", config.model_type),
                format!(
                    "{} can; `prospect merge` writes the model as safetensors, which llama.cpp's \
                     convert_hf_to_gguf.py reads",
                    FAMILIES.join(", ")
                ),
            ));
        };
        let missing = [
            (config.o_bias && !it.o_bias, "a bias of the attention's output"),
            (config.mlp_bias && !it.mlp_bias, "biases of the MLP"),
            (
                (config.qk_norm == QkNorm::Heads) != it.qk_norm,
                "norms of query and key heads as this model has them",
            ),
            (
                it.square && config.query_size() != config.hidden_size,
                "queries of another width than hidden_size",
            ),
            (
                matches!(rope(config).scaling, RopeScaling::Llama3 { .. }) && !it.rope_freqs,
                "rope_type = \"llama3\"",
            ),
            (
                matches!(
                    rope(config).scaling,
                    RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. }
                ),
                "rope_type = \"yarn\" or \"longrope\"",
            ),
            (
                config.ropes.len() != 1 || rope(config).dim != config.head_dim,
                "a rotary embedding of some layers or of a part of each head",
            ),
            (config.activation != Activation::Silu, "another hidden_act than silu"),
        ];
        match missing.iter().find(|(missing, _)| *missing) {
            None => Ok(it),
            Some((_, what)) => Err(Error::input(
                format!("llama.cpp's {} does not compute {what}", it.name),
                "write the model as safetensors instead, by `prospect merge`",
            )),
        }
    }

    /// The keys that say what the model is.
    pub(super) fn keys(&self, config: &ModelConfig) -> Vec<(String, Value)> {
        let size = |size: usize| Value::U32(size as u32);
        let mut keys = vec![
            ("vocab_size", size(config.vocab_size)),
            ("block_count", size(config.num_hidden_layers)),
            ("context_length", size(exact_positions(config))),
            ("embedding_length", size(config.hidden_size)),
            ("feed_forward_length", size(config.intermediate_size)),
            ("attention.head_count", size(config.num_attention_heads)),
            ("attention.head_count_kv", size(config.num_key_value_heads)),
            ("attention.key_length", size(config.head_dim)),
            ("attention.value_length", size(config.head_dim)),
            ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps)),
            ("rope.dimension_count", size(config.head_dim)),
            ("rope.freq_base", Value::F32(rope(config).theta as f32)),
        ];
        if let RopeScaling::Linear { factor } = rope(config).scaling {
            keys.push(("rope.scaling.type", Value::String("linear".to_owned())));
            keys.push(("rope.scaling.factor", Value::F32(factor as f32)));
        }
        keys.into_iter().map(|(key, value)| (format!("{}.{key}", self.name), value)).collect()
    }

    /// The name of a tensor of a checkpoint in GGUF.
    pub(super) fn tensor(&self, name: &str) -> Option<String> {
        let whole = match name {
            "model.embed_tokens.weight" => Some("token_embd.weight"),
            "model.norm.weight" => Some("output_norm.weight"),
            "lm_head.weight" => Some("output.weight"),
            _ => None,
        };
        if let Some(whole) = whole {
            return Some(whole.to_owned());
        }
        let (layer, path) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let (module, kind) = path.rsplit_once('.')?;
        let module = match module {
            "input_layernorm" => "attn_norm",
            "post_attention_layernorm" => "ffn_norm",
            "self_attn.q_norm" => "attn_q_norm",
            "self_attn.k_norm" => "attn_k_norm",
            _ => Self::linear(Linear::ALL.into_iter().find(|linear| linear.path() == module)?),
        };
        matches!(kind, "weight" | "bias").then(|| format!("blk.{layer}.{module}.{kind}"))
    }

    /// The name of a linear layer in GGUF.
    pub(super) fn linear(linear: Linear) -> &'static str {
        match linear {
            Linear::Q => "attn_q",
            Linear::K => "attn_k",
            Linear::V => "attn_v",
            Linear::O => "attn_output",
            Linear::Gate => "ffn_gate",
            Linear::Up => "ffn_up",
            Linear::Down => "ffn_down",
            Linear::Qkv => "attn_qkv",
            Linear::GateUp => "ffn_up",
        }
    }

    /// The order that the rows of a tensor are stored in.
    pub(super) fn rows(&self, config: &ModelConfig, name: &str) -> Rows {
        let heads = [Linear::Q, Linear::K].iter().any(|linear| {
            name.rsplit_once('.').is_some_and(|(module, _)| module.ends_with(linear.path()))
        });
        if self.interleaved && heads { Rows::Interleaved(config.head_dim) } else { Rows::InPlace }
    }
}

/// The order that rows are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// As they are.
    InPlace,
    /// In heads of this many rows, row i of the first half before row i of the second.
    Interleaved(usize),
}

impl Rows {
    /// The row that is stored at `row`.
    pub(super) fn source(self, row: usize) -> usize {
        match self {
            Rows::InPlace => row,
            Rows::Interleaved(head) => {
                let (first, within) = (row / head * head, row % head);
                first + within % 2 * (head / 2) + within / 2
            }
        }
    }
}

/// Positions up to which llama.cpp computes the same: it knows no window in these architectures, and one is without
/// effect where no more positions than it spans exist.
pub(super) fn exact_positions(config: &ModelConfig) -> usize {
    let windows = config.windows.iter().flatten().copied();
    windows.fold(config.max_position_embeddings, usize::min)
}

/// What each frequency of the rotary embedding is divided by, where the frequencies are Llama 3.1's.
pub(super) fn rope_factors(config: &ModelConfig) -> Option<Vec<f32>> {
    let rope = rope(config);
    if !matches!(rope.scaling, RopeScaling::Llama3 { .. }) {
        return None;
    }
    let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() };
    let plain = plain.inverse_frequencies(false);
    let scaled = rope.inverse_frequencies(false);
    Some(plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled).collect())
}

/// The model's rotary embedding; the families that are written have one.
fn rope(config: &ModelConfig) -> &Rope {
    &config.ropes[0]
}
