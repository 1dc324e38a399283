//! The families: what each one's code fixes and what it takes for keys that its `config.json` leaves out.

use engine::ops::gated_mlp::Activation;

use super::{Norms, QkNorm};

/// What a family's code in transformers fixes.
pub(super) struct Family {
    /// `model_type` of config.json.
    pub(super) model_type: &'static str,
    /// What stands for keys that config.json lacks.
    pub(super) defaults: Defaults,
    /// Queries, keys and values come from one linear layer, and so do the MLP's gate and its other input.
    pub(super) fused_linears: bool,
    /// q, k and v have a bias: always, never, or as a key says.
    pub(super) qkv_bias: Bias,
    /// The attention's output has a bias.
    pub(super) o_bias: Bias,
    /// The MLP has biases.
    pub(super) mlp_bias: Bias,
    /// Where a block is normed.
    pub(super) norms: Norms,
    /// What is added to the stored weight of every norm.
    pub(super) norm_offset: f32,
    /// What is normed of queries and keys.
    pub(super) qk_norm: QkNorm,
    /// When `sliding_window` holds.
    pub(super) window: Window,
    /// The key of the gate's function.
    pub(super) activation: (&'static str, Activation),
    /// How the rotary embedding is spelled.
    pub(super) rotary: Rotary,
    /// The factor of q k^T.
    pub(super) attention_scale: AttentionScale,
    /// The bound of attention scores.
    pub(super) attention_cap: Cap,
    /// The bound of logits.
    pub(super) final_cap: Cap,
    /// The factor of embeddings.
    pub(super) embedding: Multiplier,
    /// The factor of what a block adds to the stream.
    pub(super) residual: Multiplier,
    /// What logits are divided by.
    pub(super) logits_divisor: Multiplier,
    /// Flags that the family's code reads and that Prospect computes without.
    pub(super) without: &'static [&'static str],
    /// Keys that stand in the family's config.json and that its code does not read.
    pub(super) unread: &'static [&'static str],
}

/// What stands for keys that config.json lacks.
pub(super) struct Defaults {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    /// None, and null in config.json: as many as num_attention_heads.
    pub(super) num_key_value_heads: Option<usize>,
    /// None: hidden_size / num_attention_heads.
    pub(super) head_dim: Option<usize>,
    pub(super) max_position_embeddings: usize,
    pub(super) sliding_window: Option<usize>,
    pub(super) rms_norm_eps: f64,
    pub(super) tie_word_embeddings: bool,
    pub(super) eos_token_id: Option<u32>,
}

pub(super) enum Bias {
    Always,
    Never,
    /// The named key of config.json, false where it is missing.
    Key(&'static str),
}

/// Which layers have the sliding window.
pub(super) enum Window {
    /// None, whatever config.json says.
    Never,
    /// All, where the key is not null.
    Always,
    /// Where `use_sliding_window` is true: those that `layer_types` names, or from `max_window_layers` on.
    UpperLayers,
    /// Those that `layer_types` names, or all but every n-th, n by a key or fixed.
    AllButEvery(Option<&'static str>, usize),
    /// Those that `layer_types` names, or where `use_sliding_window` is true, those that do not turn.
    WithoutRope,
}

/// How a family's config.json says its rotary embedding.
pub(super) struct Rotary {
    /// `rope_theta` where it is missing.
    pub(super) theta: f64,
    /// Layers with a sliding window have an embedding of their own, of this theta where it is missing.
    pub(super) local_theta: Option<f64>,
    /// `partial_rotary_factor` is known: a head may turn in part.
    pub(super) partial: bool,
    /// `original_max_position_embeddings` of config.json, whose default is this, goes before that of the scaling; and
    /// the scalings "su" and "yarn" are old names of "longrope".
    pub(super) original: Option<usize>,
    /// `no_rope_layers` names layers that do not turn.
    pub(super) no_rope_layers: bool,
}

pub(super) enum AttentionScale {
    /// 1 / sqrt(head_dim).
    HeadDim,
    /// 1 / sqrt(the named key).
    OneOverRoot(&'static str, f64),
    /// The named key.
    Key(&'static str, f64),
}

pub(super) enum Cap {
    Never,
    /// The named key, null for none.
    Key(&'static str, Option<f64>),
}

pub(super) enum Multiplier {
    One,
    /// sqrt(hidden_size).
    RootOfWidth,
    /// The named key, one where it is missing.
    Key(&'static str),
}

/// The model types that are known, for messages.
pub const SUPPORTED: [&str; 11] = [
    "gemma2",
    "gemma3",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
];

/// A model that reads more than text, and the decoder within it.
pub(super) struct Multimodal {
    /// `model_type` of config.json.
    pub(super) model_type: &'static str,
    /// `model_type` of its `text_config`.
    pub(super) text: &'static str,
    /// Whether its head is the embedding table where config.json does not say.
    pub(super) tie_word_embeddings: bool,
}

/// The models that read more than text. Their code does not bound logits, whatever `text_config` says.
pub(super) const MULTIMODAL: [Multimodal; 1] =
    [Multimodal { model_type: "gemma3", text: "gemma3_text", tie_word_embeddings: true }];

/// Llama; the rows of the others say where they differ.
const LLAMA: Family = Family {
    model_type: "llama",
    defaults: Defaults {
        vocab_size: 32_000,
        hidden_size: 4096,
        intermediate_size: 11_008,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        sliding_window: None,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: false,
        eos_token_id: Some(2),
    },
    fused_linears: false,
    qkv_bias: Bias::Key("attention_bias"),
    o_bias: Bias::Key("attention_bias"),
    mlp_bias: Bias::Key("mlp_bias"),
    norms: Norms::Before,
    norm_offset: 0.0,
    qk_norm: QkNorm::None,
    window: Window::Never,
    activation: ("hidden_act", Activation::Silu),
    rotary: Rotary {
        theta: 10_000.0,
        local_theta: None,
        partial: false,
        original: None,
        no_rope_layers: false,
    },
    attention_scale: AttentionScale::HeadDim,
    attention_cap: Cap::Never,
    final_cap: Cap::Never,
    embedding: Multiplier::One,
    residual: Multiplier::One,
    logits_divisor: Multiplier::One,
    without: &[],
    unread: &[],
};

/// Gemma 2; Gemma 3 differs in little.
const GEMMA2: Family = Family {
    model_type: "gemma2",
    defaults: Defaults {
        vocab_size: 256_000,
        hidden_size: 2304,
        intermediate_size: 9216,
        num_hidden_layers: 26,
        num_attention_heads: 8,
        num_key_value_heads: Some(4),
        head_dim: Some(256),
        max_position_embeddings: 8192,
        sliding_window: Some(4096),
        tie_word_embeddings: true,
        eos_token_id: Some(1),
        ..LLAMA.defaults
    },
    mlp_bias: Bias::Never,
    norms: Norms::Around,
    norm_offset: 1.0,
    window: Window::AllButEvery(None, 2),
    activation: ("hidden_activation", Activation::GeluTanh),
    attention_scale: AttentionScale::OneOverRoot("query_pre_attn_scalar", 256.0),
    attention_cap: Cap::Key("attn_logit_softcapping", Some(50.0)),
    final_cap: Cap::Key("final_logit_softcapping", Some(30.0)),
    embedding: Multiplier::RootOfWidth,
    without: &["use_bidirectional_attention"],
    ..LLAMA
};

/// Qwen 2; Qwen 3 differs in little.
const QWEN2: Family = Family {
    model_type: "qwen2",
    defaults: Defaults {
        vocab_size: 151_936,
        intermediate_size: 22_016,
        num_key_value_heads: Some(32),
        max_position_embeddings: 32_768,
        sliding_window: Some(4096),
        eos_token_id: None,
        ..LLAMA.defaults
    },
    qkv_bias: Bias::Always,
    o_bias: Bias::Never,
    mlp_bias: Bias::Never,
    window: Window::UpperLayers,
    ..LLAMA
};

/// Every family, as transformers 5.23's modeling and configuration files have them.
pub(super) const FAMILIES: [Family; SUPPORTED.len() - MULTIMODAL.len()] = [
    LLAMA,
    Family {
        model_type: "mistral",
        defaults: Defaults {
            intermediate_size: 14_336,
            num_key_value_heads: Some(8),
            max_position_embeddings: 131_072,
            sliding_window: Some(4096),
            ..LLAMA.defaults
        },
        qkv_bias: Bias::Never,
        o_bias: Bias::Never,
        mlp_bias: Bias::Never,
        window: Window::Always,
        ..LLAMA
    },
    QWEN2,
    Family {
        model_type: "qwen3",
        defaults: Defaults { head_dim: Some(128), ..QWEN2.defaults },
        qkv_bias: Bias::Key("attention_bias"),
        o_bias: Bias::Key("attention_bias"),
        qk_norm: QkNorm::Heads,
        ..QWEN2
    },
    GEMMA2,
    Family {
        model_type: "gemma3_text",
        defaults: Defaults {
            vocab_size: 262_208,
            max_position_embeddings: 131_072,
            ..GEMMA2.defaults
        },
        qk_norm: QkNorm::Heads,
        window: Window::AllButEvery(Some("sliding_window_pattern"), 6),
        rotary: Rotary { theta: 1_000_000.0, local_theta: Some(10_000.0), ..LLAMA.rotary },
        attention_cap: Cap::Never,
        final_cap: Cap::Key("final_logit_softcapping", None),
        unread: &["attn_logit_softcapping"],
        ..GEMMA2
    },
    Family {
        model_type: "phi3",
        defaults: Defaults {
            vocab_size: 32_064,
            hidden_size: 3072,
            intermediate_size: 8192,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-5,
            eos_token_id: Some(32_000),
            ..LLAMA.defaults
        },
        fused_linears: true,
        qkv_bias: Bias::Never,
        o_bias: Bias::Never,
        mlp_bias: Bias::Never,
        window: Window::Always,
        rotary: Rotary { partial: true, original: Some(4096), ..LLAMA.rotary },
        ..LLAMA
    },
    Family {
        model_type: "olmo2",
        defaults: Defaults {
            vocab_size: 50_304,
            rms_norm_eps: 1e-5,
            eos_token_id: Some(50_279),
            ..LLAMA.defaults
        },
        mlp_bias: Bias::Never,
        norms: Norms::After,
        qk_norm: QkNorm::Width,
        ..LLAMA
    },
    Family {
        model_type: "smollm3",
        defaults: Defaults {
            vocab_size: 128_256,
            hidden_size: 2048,
            num_hidden_layers: 36,
            num_attention_heads: 16,
            num_key_value_heads: Some(4),
            max_position_embeddings: 32_768,
            tie_word_embeddings: true,
            eos_token_id: Some(128_001),
            ..LLAMA.defaults
        },
        window: Window::WithoutRope,
        rotary: Rotary { theta: 2_000_000.0, no_rope_layers: true, ..LLAMA.rotary },
        ..LLAMA
    },
    Family {
        model_type: "granite",
        attention_scale: AttentionScale::Key("attention_multiplier", 1.0),
        embedding: Multiplier::Key("embedding_multiplier"),
        residual: Multiplier::Key("residual_multiplier"),
        logits_divisor: Multiplier::Key("logits_scaling"),
        ..LLAMA
    },
];
