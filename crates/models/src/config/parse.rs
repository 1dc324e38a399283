//! `config.json` to [`ModelConfig`].

use std::path::Path;

use engine::ops::gated_mlp::Activation;
use serde_json::Value;

use super::families::{AttentionScale, Bias, Cap, FAMILIES, Family, Multiplier, SUPPORTED};
use super::quantization::{foreign_method, instead_of};
use super::source::Source;
use super::{ModelConfig, keys, layers, rotary};
use crate::error::{Error, Result};

/// The most blocks a model may have.
const MAX_LAYERS: usize = 1 << 12;
/// The most bytes a model may have in f32: sizes of tensors and sums of them fit a usize.
const MAX_BYTES: f64 = (1u64 << 52) as f64;

pub(super) fn load(folder: &Path) -> Result<ModelConfig> {
    let path = folder.join("config.json");
    if folder.is_dir() && !path.exists() {
        return Err(Error::input(
            format!("'{}' has no config.json", folder.display()),
            "model.path is a folder as Hugging Face writes it, with config.json, safetensors and tokenizer.json",
        ));
    }
    let mut config = Source::open(&path)?.model()?;
    let generation = folder.join("generation_config.json");
    if generation.exists() {
        let ids = Source::open(&generation)?.token_ids("eos_token_id")?;
        if !ids.is_empty() {
            config.eos_token_ids = ids;
        }
    }
    Ok(config)
}

pub(super) fn from_json(text: &str) -> Result<ModelConfig> {
    Source::parse(Path::new("config.json"), text)?.model()
}

impl Source {
    /// The numbers of a decoder whose fields these are.
    pub(super) fn config(&self) -> Result<ModelConfig> {
        let family = self.family()?;
        let defaults = &family.defaults;
        let hidden_size = self.size("hidden_size", defaults.hidden_size)?;
        let num_attention_heads = self.size("num_attention_heads", defaults.num_attention_heads)?;
        let num_hidden_layers = self.size("num_hidden_layers", defaults.num_hidden_layers)?;
        if num_hidden_layers > MAX_LAYERS {
            let text = format!("num_hidden_layers = {num_hidden_layers} is above {MAX_LAYERS}");
            return Err(self.wrong(text, "download config.json again"));
        }
        let head_dim = match (self.optional_size("head_dim")?, defaults.head_dim) {
            (Some(head_dim), _) | (None, Some(head_dim)) => head_dim,
            (None, None) => hidden_size / num_attention_heads,
        };
        let max_position_embeddings =
            self.size("max_position_embeddings", defaults.max_position_embeddings)?;
        let turns = layers::turns(self, family, num_hidden_layers)?;
        let windows = layers::windows(self, family, &turns)?;
        let (ropes, layer_ropes) =
            rotary::of_layers(self, family, head_dim, max_position_embeddings, &turns, &windows)?;
        let config = ModelConfig {
            model_type: family.model_type.to_owned(),
            hidden_size,
            intermediate_size: self.size("intermediate_size", defaults.intermediate_size)?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: match self.optional_size("num_key_value_heads")? {
                None if self.lacks("num_key_value_heads") => defaults.num_key_value_heads,
                heads => heads,
            }
            .unwrap_or(num_attention_heads),
            head_dim,
            vocab_size: self.size("vocab_size", defaults.vocab_size)?,
            rms_norm_eps: self.number("rms_norm_eps", defaults.rms_norm_eps)? as f32,
            ropes,
            layer_ropes,
            max_position_embeddings,
            tie_word_embeddings: self.flag("tie_word_embeddings", defaults.tie_word_embeddings)?,
            fused_linears: family.fused_linears,
            qkv_bias: self.bias(&family.qkv_bias)?,
            o_bias: self.bias(&family.o_bias)?,
            mlp_bias: self.bias(&family.mlp_bias)?,
            norms: family.norms,
            norm_offset: family.norm_offset,
            qk_norm: family.qk_norm,
            windows: windows.into_iter().map(|window| window.size).collect(),
            activation: self.activation(family)?,
            attention_scale: self.attention_scale(family, head_dim)?,
            attention_soft_cap: self.cap(&family.attention_cap)?,
            final_soft_cap: self.cap(&family.final_cap)?,
            embedding_multiplier: self.multiplier(&family.embedding, hidden_size)?,
            residual_multiplier: self.multiplier(&family.residual, hidden_size)?,
            logits_scale: 1.0 / self.multiplier(&family.logits_divisor, hidden_size)?,
            eos_token_ids: match defaults.eos_token_id {
                Some(id) if self.lacks("eos_token_id") => vec![id],
                _ => self.token_ids("eos_token_id")?,
            },
            multimodal: false,
        };
        self.check(family, &config)?;
        family.unread.iter().for_each(|key| self.know(key));
        keys::refuse_unknown(self, family.model_type)?;
        Ok(config)
    }

    fn check(&self, family: &Family, config: &ModelConfig) -> Result<()> {
        let ModelConfig {
            num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, ..
        } = *config;
        if !heads.is_multiple_of(kv_heads) {
            let text = format!(
                "num_attention_heads = {heads} is no multiple of num_key_value_heads = {kv_heads}"
            );
            return Err(
                self.wrong(text, "every key-value head serves the same number of query heads")
            );
        }
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            let text = format!("head_dim = {head_dim} cannot be rotated");
            return Err(self.wrong(
                text,
                "the rotary embedding turns pairs, so a head has an even number of elements",
            ));
        }
        let ModelConfig { hidden_size, intermediate_size, vocab_size, num_hidden_layers, .. } =
            *config;
        let float = |size: usize| size as f64;
        let layer = 4.0 * float(heads) * float(head_dim) + 3.0 * float(intermediate_size);
        let bytes =
            4.0 * float(hidden_size) * (layer * float(num_hidden_layers) + 2.0 * float(vocab_size));
        if bytes > MAX_BYTES {
            let text = format!("its sizes make a model of {bytes:.1e} bytes");
            return Err(self.wrong(text, "download config.json again"));
        }
        if !(0.0..1.0).contains(&config.rms_norm_eps) {
            let text = format!("rms_norm_eps = {} is not from 0 to below 1", config.rms_norm_eps);
            return Err(self.wrong(text, "download config.json again"));
        }
        for key in family.without {
            if self.flag(key, false)? {
                let text = format!("{key} = true is not supported");
                return Err(self.wrong(text, format!("Prospect computes with {key} = false")));
            }
        }
        self.check_quantization()
    }

    /// Of other methods than bitsandbytes the names of tensors alone would be understood.
    pub(super) fn check_quantization(&self) -> Result<()> {
        let Some(Value::Object(quantization)) = self.fields.get("quantization_config") else {
            return Ok(());
        };
        let Some(method) = foreign_method(quantization) else { return Ok(()) };
        Err(self.wrong(format!("the weights are quantized by {method}"), instead_of(method)))
    }

    fn family(&self) -> Result<&'static Family> {
        let Some(Value::String(model_type)) = self.get("model_type") else {
            return Err(self.wrong(
                "model_type is missing".to_owned(),
                format!("Prospect knows {}", SUPPORTED.join(", ")),
            ));
        };
        FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
            self.wrong(
                format!("the architecture '{model_type}' is not known"),
                format!(
                    "Prospect knows {}; the others compute something else, so they are refused",
                    SUPPORTED.join(", ")
                ),
            )
        })
    }

    fn activation(&self, family: &Family) -> Result<Activation> {
        let (key, default) = family.activation;
        // Families that read one of the keys leave the other in their config.json for older code.
        self.know("hidden_act");
        self.know("hidden_activation");
        let name = self.get(key);
        match name.map(Value::as_str) {
            None => Ok(default),
            Some(Some("silu" | "swish")) => Ok(Activation::Silu),
            Some(Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast")) => Ok(Activation::GeluTanh),
            _ => Err(self.wrong(
                format!("{key} = {} is not known", name.unwrap_or(&Value::Null)),
                "Prospect knows silu and gelu_pytorch_tanh",
            )),
        }
    }

    fn bias(&self, bias: &Bias) -> Result<bool> {
        match bias {
            Bias::Always => Ok(true),
            Bias::Never => Ok(false),
            Bias::Key(key) => self.flag(key, false),
        }
    }

    /// A number above zero.
    fn positive(&self, key: &str, default: f64) -> Result<f64> {
        let number = self.number(key, default)?;
        if number <= 0.0 {
            return Err(self
                .wrong(format!("{key} = {number} is not above 0"), "download config.json again"));
        }
        Ok(number)
    }

    fn attention_scale(&self, family: &Family, head_dim: usize) -> Result<f32> {
        Ok(match family.attention_scale {
            AttentionScale::HeadDim => 1.0 / (head_dim as f32).sqrt(),
            AttentionScale::OneOverRoot(key, default) => {
                (1.0 / self.positive(key, default)?.sqrt()) as f32
            }
            AttentionScale::Key(key, default) => self.number(key, default)? as f32,
        })
    }

    fn cap(&self, cap: &Cap) -> Result<Option<f32>> {
        match *cap {
            Cap::Never => Ok(None),
            Cap::Key(key, default) => match (self.lacks(key), self.get(key), default) {
                (true, _, None) | (false, None, _) => Ok(None),
                (_, _, default) => {
                    Ok(Some(self.positive(key, default.unwrap_or_default())? as f32))
                }
            },
        }
    }

    fn multiplier(&self, multiplier: &Multiplier, hidden_size: usize) -> Result<f32> {
        let value = match multiplier {
            Multiplier::One => 1.0,
            Multiplier::RootOfWidth => (hidden_size as f64).sqrt(),
            Multiplier::Key(key) => self.number(key, 1.0)?,
        };
        match multiplier {
            Multiplier::Key(key) if value == 0.0 => {
                Err(self
                    .wrong(format!("{key} = 0 leaves nothing of it"), "download config.json again"))
            }
            _ => Ok(value as f32),
        }
    }
}
