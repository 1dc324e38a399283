//! What each architecture of llama.cpp reads: a row for each family.

use engine::ops::gated_mlp::Activation;

use super::{Architecture, Cap, Head, Ropes, Scales};
use crate::config::{Norms, QkNorm};

/// Llama; the others say where they differ.
const LLAMA: Architecture = Architecture {
    model_type: "llama",
    name: "llama",
    interleaved: true,
    rope: Ropes::Freqs,
    turns_all_but_every: None,
    o_bias: true,
    mlp_bias: true,
    norms: Norms::Before,
    qk_norm: QkNorm::None,
    square: false,
    activation: Activation::Silu,
    head: Head::Either,
    windows: false,
    caps: [Cap::Never, Cap::Never],
    scales: Scales::Plain,
};

/// Qwen 2; most others turn halves as it does.
const QWEN2: Architecture = Architecture {
    model_type: "qwen2",
    name: "qwen2",
    interleaved: false,
    rope: Ropes::One,
    o_bias: false,
    mlp_bias: false,
    square: true,
    ..LLAMA
};

/// Gemma 2; Gemma 3 differs in little.
const GEMMA2: Architecture = Architecture {
    model_type: "gemma2",
    name: "gemma2",
    norms: Norms::Around,
    square: false,
    activation: Activation::GeluTanh,
    head: Head::Tied,
    windows: true,
    caps: [Cap::Always, Cap::Always],
    scales: Scales::Gemma(46),
    ..QWEN2
};

pub(in crate::gguf) const ARCHITECTURES: [Architecture; FAMILIES.len()] = [
    LLAMA,
    Architecture { model_type: "mistral", ..LLAMA },
    QWEN2,
    Architecture {
        model_type: "qwen3",
        name: "qwen3",
        qk_norm: QkNorm::Heads,
        square: false,
        ..QWEN2
    },
    GEMMA2,
    Architecture {
        model_type: "gemma3_text",
        name: "gemma3",
        rope: Ropes::Two,
        qk_norm: QkNorm::Heads,
        head: Head::Either,
        caps: [Cap::Never, Cap::Perhaps],
        scales: Scales::Gemma(62),
        ..GEMMA2
    },
    Architecture { model_type: "phi3", name: "phi3", rope: Ropes::Factors, ..QWEN2 },
    Architecture {
        model_type: "olmo2",
        name: "olmo2",
        norms: Norms::After,
        qk_norm: QkNorm::Width,
        head: Head::Own,
        ..QWEN2
    },
    Architecture {
        model_type: "smollm3",
        name: "smollm3",
        rope: Ropes::One,
        turns_all_but_every: Some(4),
        o_bias: false,
        mlp_bias: false,
        ..LLAMA
    },
    Architecture { model_type: "granite", name: "granite", scales: Scales::Keys, ..LLAMA },
];

/// The families that are written as GGUF, for messages.
pub const FAMILIES: [&str; 10] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "smollm3",
    "granite",
];
