//! Which families llama.cpp computes as Prospect does, under which names, and what of a family it does not compute.
//!
//! Facts of llama.cpp as llama-cpp-python 0.3.36 carries it: `src/models/*.cpp` say what an architecture reads,
//! `conversion/*.py` how tensors are stored. Its `llama` turns pairs of neighbours where transformers turns the two
//! halves of a head, so its rows of q and k are stored in another order.

use engine::ops::gated_mlp::Activation;

use super::format::Value;
use crate::config::{ModelConfig, Norms, QkNorm, Rope, RopeScaling};
use crate::error::{Error, Result};
use crate::weights::Linear;

mod table;

pub(super) use table::ARCHITECTURES;
pub use table::FAMILIES;

/// What an architecture of llama.cpp reads.
pub(super) struct Architecture {
    /// The family, by `model_type` of config.json.
    pub(super) model_type: &'static str,
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// The rotary embedding turns neighbours: rows of q and k are interleaved.
    interleaved: bool,
    /// The changes of the rotary embedding that it reads, and whether a part of each head may turn.
    rope: Ropes,
    /// Every n-th layer does not turn.
    turns_all_but_every: Option<usize>,
    /// It adds a bias to the attention's output.
    o_bias: bool,
    /// It adds biases in the MLP.
    mlp_bias: bool,
    /// Where it norms a block.
    norms: Norms,
    /// What it norms of queries and keys.
    qk_norm: QkNorm,
    /// Queries are as wide as the residual stream.
    square: bool,
    /// The gate's function.
    activation: Activation,
    /// Where the head comes from.
    head: Head,
    /// Whether it knows sliding windows.
    windows: bool,
    /// What it bounds: attention scores, and logits.
    caps: [Cap; 2],
    /// What it multiplies with.
    scales: Scales,
}

/// What an architecture knows of rotary embeddings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ropes {
    /// One, perhaps with a linear change.
    One,
    /// One, which `rope_freqs` may change frequency by frequency.
    Freqs,
    /// One of a part of each head, which `rope_factors_long` and `rope_factors_short` may change.
    Factors,
    /// A second one of layers with a window.
    Two,
}

/// Where the head comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    /// From a tensor of its own, or from the embeddings where there is none.
    Either,
    /// From the embeddings.
    Tied,
    /// From a tensor of its own.
    Own,
}

/// Whether something is bounded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cap {
    Never,
    Always,
    Perhaps,
}

/// What is multiplied with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scales {
    /// Attention scores with 1 / sqrt(head_dim), nothing else.
    Plain,
    /// Embeddings with the root of their width; and in the largest model, which it knows by its number of blocks,
    /// attention scores with that of the width over the heads.
    Gemma(usize),
    /// What keys say.
    Keys,
}

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
        let [attention, logits] = it.caps;
        let missing = [
            (config.o_bias && !it.o_bias, "a bias of the attention's output"),
            (config.mlp_bias && !it.mlp_bias, "biases of the MLP"),
            (config.norms != it.norms, "norms of a block where this model has them"),
            (config.qk_norm != it.qk_norm, "norms of query and key heads as this model has them"),
            (
                it.square && config.query_size() != config.hidden_size,
                "queries of another width than hidden_size",
            ),
            (it.lacks_scaling(config), it.scalings()),
            (
                !it.turns_alike(config),
                "a rotary embedding of some layers or of a part of each head",
            ),
            (
                config.activation != it.activation,
                match it.activation {
                    Activation::Silu => "another hidden_act than silu",
                    Activation::GeluTanh => "another hidden_activation than gelu_pytorch_tanh",
                },
            ),
            (
                it.head == Head::Tied && !config.tie_word_embeddings,
                "a head that is not the embedding table",
            ),
            (
                it.head == Head::Own && config.tie_word_embeddings,
                "a head that is the embedding table",
            ),
            (!attention.allows(config.attention_soft_cap), "such a bound of attention scores"),
            (!logits.allows(config.final_soft_cap), "such a bound of logits"),
            (!it.scales_alike(config), "the factors of this model's config.json"),
        ];
        match missing.iter().find(|(missing, _)| *missing) {
            None => Ok(it),
            Some((_, what)) => Err(Error::input(
                format!("llama.cpp's {} does not compute {what}", it.name),
                "write the model as safetensors instead, by `prospect merge`",
            )),
        }
    }

    /// The changes of the rotary embedding that it does not read, for messages.
    fn scalings(&self) -> &'static str {
        match self.rope {
            Ropes::Freqs => "rope_type = \"yarn\" or \"longrope\"",
            Ropes::Factors => "rope_type = \"yarn\" or \"llama3\"",
            Ropes::One | Ropes::Two => "rope_type = \"yarn\", \"longrope\" or \"llama3\"",
        }
    }

    fn lacks_scaling(&self, config: &ModelConfig) -> bool {
        config.ropes.iter().any(|rope| match rope.scaling {
            RopeScaling::Default | RopeScaling::Linear { .. } => false,
            RopeScaling::Llama3 { .. } => self.rope != Ropes::Freqs,
            RopeScaling::LongRope { .. } => self.rope != Ropes::Factors,
            RopeScaling::Yarn { .. } => true,
        })
    }

    /// Whether every layer turns as the architecture has it.
    fn turns_alike(&self, config: &ModelConfig) -> bool {
        let ropes = (rope(config, false), rope(config, true));
        let Some(full) = ropes.0 else { return false };
        let of_window = if self.rope == Ropes::Two { ropes.1.unwrap_or(full) } else { full };
        let plain = of_window.scaling == RopeScaling::Default;
        config.layer_ropes.iter().zip(&config.windows).enumerate().all(|(layer, (rope, window))| {
            let expected = match self.turns_all_but_every {
                Some(n) if (layer + 1) % n == 0 => None,
                _ if window.is_some() => Some(of_window),
                _ => Some(full),
            };
            rope.and_then(|rope| config.ropes.get(rope)) == expected
        }) && (self.rope != Ropes::Two || ropes.1.is_none() || plain)
            && (self.rope == Ropes::Factors || full.dim == config.head_dim)
    }

    /// Whether it multiplies with what `config` says.
    fn scales_alike(&self, config: &ModelConfig) -> bool {
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs();
        let width = config.hidden_size as f32;
        let head = match self.scales {
            Scales::Keys => return true,
            Scales::Gemma(largest) if config.num_hidden_layers == largest => {
                config.hidden_size / config.num_attention_heads
            }
            Scales::Plain | Scales::Gemma(_) => config.head_dim,
        };
        let embedding = if self.scales == Scales::Plain { 1.0 } else { width.sqrt() };
        near(config.attention_scale, 1.0 / (head as f32).sqrt())
            && near(config.embedding_multiplier, embedding)
            && near(config.residual_multiplier, 1.0)
            && near(config.logits_scale, 1.0)
    }

    /// The keys that say what the model is.
    pub(super) fn keys(&self, config: &ModelConfig) -> Vec<(String, Value)> {
        let size = |size: usize| Value::U32(size as u32);
        let full = rope(config, false);
        let (dim, theta) = full.map_or((config.head_dim, 1e4), |rope| (rope.dim, rope.theta));
        let mut keys = vec![
            ("vocab_size", size(config.vocab_size)),
            ("block_count", size(config.num_hidden_layers)),
            ("context_length", size(self.exact_positions(config))),
            ("embedding_length", size(config.hidden_size)),
            ("feed_forward_length", size(config.intermediate_size)),
            ("attention.head_count", size(config.num_attention_heads)),
            ("attention.head_count_kv", size(config.num_key_value_heads)),
            ("attention.key_length", size(config.head_dim)),
            ("attention.value_length", size(config.head_dim)),
            ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps)),
            ("rope.dimension_count", size(dim)),
            ("rope.freq_base", Value::F32(theta as f32)),
        ];
        match full.map(|rope| (&rope.scaling, rope.attention_factor)) {
            Some((RopeScaling::Linear { factor }, _)) => {
                keys.push(("rope.scaling.type", Value::String("linear".to_owned())));
                keys.push(("rope.scaling.factor", Value::F32(*factor as f32)));
            }
            Some((RopeScaling::LongRope { original, .. }, factor)) => {
                keys.push(("rope.scaling.original_context_length", size(*original)));
                keys.push(("rope.scaling.attn_factor", Value::F32(factor as f32)));
            }
            _ => {}
        }
        let window = config.windows.iter().flatten().next();
        if let (true, Some(window)) = (self.windows, window) {
            let pattern = config.windows.iter().map(|window| Value::Bool(window.is_some()));
            keys.push(("attention.sliding_window", size(*window)));
            keys.push(("attention.sliding_window_pattern", Value::Array(pattern.collect())));
            if let (Ropes::Two, Some(rope)) = (self.rope, rope(config, true)) {
                keys.push(("rope.freq_base_swa", Value::F32(rope.theta as f32)));
            }
        }
        if let Some(cap) = config.attention_soft_cap {
            keys.push(("attn_logit_softcapping", Value::F32(cap)));
        }
        if let Some(cap) = config.final_soft_cap {
            keys.push(("final_logit_softcapping", Value::F32(cap)));
        }
        if self.scales == Scales::Keys {
            keys.push(("attention.scale", Value::F32(config.attention_scale)));
            keys.push(("embedding_scale", Value::F32(config.embedding_multiplier)));
            keys.push(("residual_scale", Value::F32(config.residual_multiplier)));
            keys.push(("logit_scale", Value::F32(1.0 / config.logits_scale)));
        }
        keys.into_iter().map(|(key, value)| (format!("{}.{key}", self.name), value)).collect()
    }

    /// Positions up to which llama.cpp computes the same: where it knows no window, one is without effect as long as
    /// no more positions than it spans exist.
    pub(super) fn exact_positions(&self, config: &ModelConfig) -> usize {
        let windows = config.windows.iter().flatten().copied().filter(|_| !self.windows);
        windows.fold(config.max_position_embeddings, usize::min)
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
            "post_attention_layernorm" if self.norms == Norms::Before => "ffn_norm",
            "post_attention_layernorm" => "post_attention_norm",
            "pre_feedforward_layernorm" => "ffn_norm",
            "post_feedforward_layernorm" => "post_ffw_norm",
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

/// What each frequency of the rotary embedding is divided by, in tensors by their names, where it differs.
pub(super) fn rope_factors(config: &ModelConfig) -> Vec<(&'static str, Vec<f32>)> {
    let Some(rope) = rope(config, false) else { return Vec::new() };
    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect();
    match &rope.scaling {
        RopeScaling::Llama3 { .. } => {
            let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() };
            let plain = plain.inverse_frequencies(false);
            let scaled = rope.inverse_frequencies(false);
            let factors = plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled);
            vec![("rope_freqs.weight", factors.collect())]
        }
        RopeScaling::LongRope { short, long, .. } => vec![
            ("rope_factors_long.weight", narrow(long)),
            ("rope_factors_short.weight", narrow(short)),
        ],
        _ => Vec::new(),
    }
}

impl Cap {
    fn allows(self, bound: Option<f32>) -> bool {
        match self {
            Cap::Never => bound.is_none(),
            Cap::Always => bound.is_some(),
            Cap::Perhaps => true,
        }
    }
}

/// The rotary embedding of layers with or without a window; of the others, where there are none such.
fn rope(config: &ModelConfig, of_window: bool) -> Option<&Rope> {
    let layers = || config.layer_ropes.iter().zip(&config.windows);
    let of = |windowed: bool| {
        layers().filter(|(_, window)| window.is_some() == windowed).find_map(|(rope, _)| *rope)
    };
    let found = if of_window { of(true) } else { of(false).or_else(|| of(true)) };
    config.ropes.get(found?)
}
