//! `config.json` to [`ModelConfig`].

use std::path::{Path, PathBuf};

use data::files;
use engine::ops::gated_mlp::Activation;
use serde_json::{Map, Value};

use super::families::{Bias, FAMILIES, Family, SLIDING_WINDOW, SUPPORTED, Window};
use super::quantization::{foreign_method, instead_of};
use super::{ModelConfig, Rope, RopeScaling};
use crate::error::{Error, Result};

/// The largest size a field may have: no model is near it.
const MAX: u64 = 1 << 24;
/// The most blocks a model may have.
const MAX_LAYERS: usize = 1 << 12;
/// The most bytes a model may have in f32: sizes of tensors and sums of them fit a usize.
const MAX_BYTES: f64 = (1u64 << 52) as f64;

/// `config.json` with its path, for messages.
struct Source {
    path: PathBuf,
    fields: Map<String, Value>,
}

pub(super) fn load(folder: &Path) -> Result<ModelConfig> {
    let path = folder.join("config.json");
    if folder.is_dir() && !path.exists() {
        return Err(Error::input(
            format!("'{}' has no config.json", folder.display()),
            "model.path is a folder as Hugging Face writes it, with config.json, safetensors and tokenizer.json",
        ));
    }
    let source = Source { fields: object(&path)?, path };
    let mut config = source.config()?;
    let generation = folder.join("generation_config.json");
    if generation.exists() {
        let generation = Source { fields: object(&generation)?, path: generation };
        let ids = generation.token_ids("eos_token_id")?;
        if !ids.is_empty() {
            config.eos_token_ids = ids;
        }
    }
    Ok(config)
}

pub(super) fn from_json(text: &str) -> Result<ModelConfig> {
    let path = PathBuf::from("config.json");
    Source { fields: parsed(text, &path)?, path }.config()
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    parsed(&files::read_to_string(path)?, path)
}

fn parsed(text: &str, path: &Path) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::input(
            format!("{} is not a JSON object", path.display()),
            "download it again",
        )),
        Err(error) => Err(Error::input(
            format!("{}:{}:{} is not JSON: {error}", path.display(), error.line(), error.column()),
            "download it again; it may be cut short or be a Git LFS pointer",
        )),
    }
}

impl Source {
    fn config(&self) -> Result<ModelConfig> {
        let family = self.family()?;
        let hidden_size = self.size("hidden_size")?;
        let num_attention_heads = self.size("num_attention_heads")?;
        let num_hidden_layers = self.size("num_hidden_layers")?;
        if num_hidden_layers > MAX_LAYERS {
            let text = format!("num_hidden_layers = {num_hidden_layers} is above {MAX_LAYERS}");
            return Err(self.wrong(text, "download config.json again"));
        }
        let head_dim = match (self.optional_size("head_dim")?, family.head_dim) {
            (Some(head_dim), _) | (None, Some(head_dim)) => head_dim,
            (None, None) => hidden_size / num_attention_heads,
        };
        let max_position_embeddings = self
            .optional_size("max_position_embeddings")?
            .unwrap_or(family.max_position_embeddings);
        let config = ModelConfig {
            model_type: family.model_type.to_owned(),
            hidden_size,
            intermediate_size: self.size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: match self.optional_size("num_key_value_heads")? {
                None if self.lacks("num_key_value_heads") => family.num_key_value_heads,
                heads => heads,
            }
            .unwrap_or(num_attention_heads),
            head_dim,
            vocab_size: self.size("vocab_size")?,
            rms_norm_eps: self.number("rms_norm_eps", 1e-6)? as f32,
            rope: self.rope(max_position_embeddings)?,
            max_position_embeddings,
            tie_word_embeddings: self.flag("tie_word_embeddings", false)?,
            qkv_bias: self.bias(&family.qkv_bias)?,
            o_bias: self.bias(&family.o_bias)?,
            mlp_bias: self.bias(&family.mlp_bias)?,
            qk_norm: family.qk_norm,
            windows: self.windows(family, num_hidden_layers)?,
            activation: self.activation()?,
            eos_token_ids: match family.eos_token_id {
                Some(id) if self.lacks("eos_token_id") => vec![id],
                _ => self.token_ids("eos_token_id")?,
            },
        };
        self.check(&config)?;
        Ok(config)
    }

    fn check(&self, config: &ModelConfig) -> Result<()> {
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
        for (key, value) in
            [("attention_dropout", 0.0), ("pretraining_tp", 1.0), ("partial_rotary_factor", 1.0)]
        {
            // None of them changes what Prospect computes at these values; at others it would.
            if self.number(key, value)? != value {
                let text = format!("{key} = {} is not supported", self.fields[key]);
                return Err(self.wrong(text, format!("Prospect computes with {key} = {value}")));
            }
        }
        self.check_quantization()
    }

    /// Of other methods than bitsandbytes the names of tensors alone would be understood.
    fn check_quantization(&self) -> Result<()> {
        let Some(Value::Object(quantization)) = self.fields.get("quantization_config") else {
            return Ok(());
        };
        let Some(method) = foreign_method(quantization) else { return Ok(()) };
        Err(self.wrong(format!("the weights are quantized by {method}"), instead_of(method)))
    }

    fn family(&self) -> Result<&'static Family> {
        let Some(Value::String(model_type)) = self.fields.get("model_type") else {
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

    fn rope(&self, max_position_embeddings: usize) -> Result<Rope> {
        let nothing = Map::new();
        // transformers 5 puts all of it into rope_parameters, 4 had rope_theta and rope_scaling.
        let table = |key: &str| match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self
                .wrong(format!("{key} = {other} is not an object"), "download config.json again")),
        };
        let parameters = match table("rope_parameters")? {
            Some(parameters) => parameters,
            None => table("rope_scaling")?.unwrap_or(&nothing),
        };
        let within = Source { path: self.path.clone(), fields: parameters.clone() };
        if within.number("partial_rotary_factor", 1.0)? != 1.0 {
            let text = format!(
                "partial_rotary_factor = {} is not supported",
                parameters["partial_rotary_factor"]
            );
            return Err(self.wrong(text, "Prospect computes with partial_rotary_factor = 1"));
        }
        let theta = within.number("rope_theta", self.number("rope_theta", 10_000.0)?)?;
        let kind = ["rope_type", "type"]
            .iter()
            .find_map(|key| parameters.get(*key))
            .and_then(Value::as_str);
        let scaling = match kind.unwrap_or("default") {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: within.required("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: within.required("factor")?,
                low_freq_factor: within.required("low_freq_factor")?,
                high_freq_factor: within.required("high_freq_factor")?,
                original_max_position_embeddings: within
                    .number("original_max_position_embeddings", max_position_embeddings as f64)?,
            },
            other => {
                return Err(self.wrong(
                    format!("rope_type = \"{other}\" is not known"),
                    "Prospect knows default, linear and llama3",
                ));
            }
        };
        if theta <= 0.0
            || matches!(scaling, RopeScaling::Linear { factor } | RopeScaling::Llama3 { factor, .. } if factor <= 0.0)
        {
            return Err(self.wrong(
                "rope_theta or its factor is not above 0".to_owned(),
                "download config.json again",
            ));
        }
        Ok(Rope { theta, scaling })
    }

    fn windows(&self, family: &Family, layers: usize) -> Result<Vec<Option<usize>>> {
        let window = match self.optional_size("sliding_window")? {
            None if self.lacks("sliding_window") => Some(SLIDING_WINDOW),
            window => window,
        };
        let sliding: Vec<bool> = match family.window {
            Window::Never => vec![false; layers],
            Window::Always => vec![true; layers],
            Window::UpperLayers if !self.flag("use_sliding_window", false)? => vec![false; layers],
            Window::UpperLayers => match self.fields.get("layer_types") {
                Some(Value::Array(types)) if types.len() == layers => {
                    types.iter().map(|kind| kind == "sliding_attention").collect()
                }
                Some(Value::Array(types)) => {
                    let text = format!(
                        "layer_types names {} layers, num_hidden_layers is {layers}",
                        types.len()
                    );
                    return Err(self.wrong(text, "download config.json again"));
                }
                _ => {
                    let first = self.optional_size("max_window_layers")?.unwrap_or(28);
                    (0..layers).map(|layer| layer >= first).collect()
                }
            },
        };
        Ok(sliding.into_iter().map(|sliding| window.filter(|_| sliding)).collect())
    }

    fn activation(&self) -> Result<Activation> {
        let name = ["hidden_act", "hidden_activation"].iter().find_map(|key| self.fields.get(*key));
        match name.map_or(Some("silu"), Value::as_str) {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            _ => Err(self.wrong(
                format!("hidden_act = {} is not known", name.unwrap_or(&Value::Null)),
                "Prospect knows silu and gelu_pytorch_tanh",
            )),
        }
    }

    /// True where the key is missing; a null is an answer of its own.
    fn lacks(&self, key: &str) -> bool {
        !self.fields.contains_key(key)
    }

    fn bias(&self, bias: &Bias) -> Result<bool> {
        match bias {
            Bias::Always => Ok(true),
            Bias::Never => Ok(false),
            Bias::Key(key) => self.flag(key, false),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(
                format!("{key} = {other} is neither true nor false"),
                "download config.json again",
            )),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| {
                self.wrong(format!("{key} = {value} is not a number"), "download config.json again")
            }),
        }
    }

    fn required(&self, key: &str) -> Result<f64> {
        let value = self.number(key, f64::NAN)?;
        if value.is_nan() {
            return Err(self.wrong(
                format!("{key} of the rotary embedding is missing"),
                "download config.json again",
            ));
        }
        Ok(value)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size) if (1..=MAX).contains(&size) => Ok(Some(size as usize)),
                _ => Err(self.wrong(
                    format!("{key} = {value} is not a size from 1 to {MAX}"),
                    "download config.json again",
                )),
            },
        }
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| {
            self.wrong(
                format!("{key} is missing"),
                "download config.json again; it may be of another kind of model",
            )
        })
    }

    fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let one = |value: &Value| {
            value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                self.wrong(
                    format!("{key} holds {value}, which is no token id"),
                    "download it again",
                )
            })
        };
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(one).collect(),
            Some(id) => Ok(vec![one(id)?]),
        }
    }

    fn wrong(&self, message: String, hint: impl Into<String>) -> Error {
        Error::input(format!("{}: {message}", self.path.display()), hint)
    }
}
