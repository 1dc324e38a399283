//! `modules_to_save`: modules of the base that are trained whole, each in an f32 copy of its own, while the base keeps
//! what it has for the rows of the reference.
//!
//! PEFT 0.21 takes every module whose name ends in one of the names that are given, letter by letter (`_set_trainable`
//! in peft/utils/other.py): `norm` is all norms. Tied embeddings and head become two modules there, and here.

use engine::tensor::Tensor;

use super::targets;
use crate::config::{ModelConfig, Norms};
use crate::error::{Error, Result};
use crate::weights::{Norm, Weights};

/// A module that may be trained whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// The embeddings, (V, C).
    EmbedTokens,
    /// The norm before a block's attention.
    InputLayernorm(usize),
    /// The norm of a block's query heads.
    QNorm(usize),
    /// The norm of a block's key heads.
    KNorm(usize),
    /// The norm of that name: before a block's MLP, or behind its attention.
    PostAttentionLayernorm(usize),
    /// The norm before a block's MLP, where there are norms on both sides.
    PreFeedforwardLayernorm(usize),
    /// The norm behind a block's MLP.
    PostFeedforwardLayernorm(usize),
    /// The last norm.
    Norm,
    /// The head, (V, C).
    LmHead,
}

impl Module {
    /// All that a model has.
    fn all(config: &ModelConfig) -> Vec<Module> {
        let mut all = vec![Module::EmbedTokens];
        for layer in 0..config.num_hidden_layers {
            let norm = |norm| Module::block_norm(layer, norm, config.norms);
            let mut norms = Norm::ALL.into_iter().filter_map(norm);
            all.extend(norms.next());
            if config.qk_norm_sizes().is_some() {
                all.extend([Module::QNorm(layer), Module::KNorm(layer)]);
            }
            all.extend(norms);
        }
        all.extend([Module::Norm, Module::LmHead]);
        all
    }

    /// A block's norm, where the family has it.
    pub fn block_norm(layer: usize, norm: Norm, norms: Norms) -> Option<Module> {
        let of_name = match norm.path(norms)? {
            "input_layernorm" => Module::InputLayernorm,
            "post_attention_layernorm" => Module::PostAttentionLayernorm,
            "pre_feedforward_layernorm" => Module::PreFeedforwardLayernorm,
            _ => Module::PostFeedforwardLayernorm,
        };
        Some(of_name(layer))
    }

    /// Its name where the decoder has this path within the model.
    pub fn path_within(self, decoder_path: &str) -> String {
        let path = self.path();
        match path.strip_prefix("model.") {
            Some(rest) => format!("{decoder_path}.{rest}"),
            None => path,
        }
    }

    /// Its name in a checkpoint, without `.weight`.
    pub fn path(self) -> String {
        match self {
            Module::EmbedTokens => "model.embed_tokens".to_owned(),
            Module::InputLayernorm(layer) => format!("model.layers.{layer}.input_layernorm"),
            Module::QNorm(layer) => format!("model.layers.{layer}.self_attn.q_norm"),
            Module::KNorm(layer) => format!("model.layers.{layer}.self_attn.k_norm"),
            Module::PostAttentionLayernorm(layer) => {
                format!("model.layers.{layer}.post_attention_layernorm")
            }
            Module::PreFeedforwardLayernorm(layer) => {
                format!("model.layers.{layer}.pre_feedforward_layernorm")
            }
            Module::PostFeedforwardLayernorm(layer) => {
                format!("model.layers.{layer}.post_feedforward_layernorm")
            }
            Module::Norm => "model.norm".to_owned(),
            Module::LmHead => "lm_head".to_owned(),
        }
    }

    /// The shape of its weight.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        match self {
            Module::EmbedTokens | Module::LmHead => (config.vocab_size, config.hidden_size),
            Module::QNorm(_) | Module::KNorm(_) => {
                let [q, k] = config.qk_norm_sizes().unwrap_or_default();
                (if matches!(self, Module::QNorm(_)) { q } else { k }, 1)
            }
            _ => (config.hidden_size, 1),
        }
    }

    /// The base's weight.
    pub fn of(self, weights: &Weights) -> Option<&Tensor> {
        Some(match self {
            Module::EmbedTokens => &weights.embed_tokens,
            Module::QNorm(layer) => return weights.layers[layer].q_norm.as_ref(),
            Module::KNorm(layer) => return weights.layers[layer].k_norm.as_ref(),
            Module::InputLayernorm(layer)
            | Module::PostAttentionLayernorm(layer)
            | Module::PreFeedforwardLayernorm(layer)
            | Module::PostFeedforwardLayernorm(layer) => {
                let is_this =
                    |norm: &Norm| Module::block_norm(layer, *norm, weights.norms) == Some(self);
                let norm = Norm::ALL.into_iter().find(is_this)?;
                return weights.layers[layer].norm(norm);
            }
            Module::Norm => &weights.norm,
            Module::LmHead => weights.head(),
        })
    }
}

/// The modules that `names` mean.
pub(super) fn modules(config: &ModelConfig, names: &[String]) -> Result<Vec<Module>> {
    let all = Module::all(config);
    let path = |module: &Module| module.path_within(config.decoder_path());
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    for name in names {
        let refused = |message: String| {
            let mut can: Vec<String> = all.iter().map(|module| last(&path(module))).collect();
            can.sort();
            can.dedup();
            Error::input(
                message,
                match targets::nearest(name, &can) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!(
                        "{} can be trained whole; linear layers get matrices, see target_modules",
                        can.join(", ")
                    ),
                },
            )
        };
        let others = targets::modules(config).into_iter();
        let mut others = others.filter(|other| !all.iter().any(|module| path(module) == *other));
        if let Some(other) = others.find(|path| path.ends_with(name.as_str())) {
            return Err(refused(format!(
                "modules_to_save names '{name}', and so '{other}', which is not trained whole beside an adapter"
            )));
        }
        if name.is_empty() || !all.iter().any(|module| path(module).ends_with(name.as_str())) {
            return Err(refused(format!(
                "modules_to_save names '{name}', in which no module's name ends"
            )));
        }
    }
    let named = |module: &Module| names.iter().any(|name| path(module).ends_with(name.as_str()));
    Ok(all.into_iter().filter(named).collect())
}
