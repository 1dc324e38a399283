//! `adapter_config.json`: the fields of PEFT 0.21.2's `LoraConfig`. Each is read, or known to change nothing that is
//! computed; a field that is not known is refused unless it is off.

use std::path::Path;

use data::files;
use serde_json::{Map, Value, json};

use super::CONFIG;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::lora::start::Start;
use crate::lora::targets::{Names, Pattern, Targets};
use crate::lora::{Adapter, LoraConfig};

/// Fields that are read below.
const READ: [&str; 14] = [
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "lora_dropout",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "init_lora_weights",
    "loftq_config",
];

/// Fields with the only values Prospect computes.
const PLAIN: [(&str, &[&str]); 4] = [
    ("peft_type", &["\"LORA\""]),
    ("bias", &["\"none\""]),
    ("fan_in_fan_out", &["false"]),
    ("lora_bias", &["false"]),
];

/// Fields that say where an adapter comes from, or belong to others that are off.
const HARMLESS: [&str; 12] = [
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "task_type",
    "peft_version",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    // How the values came about that the file holds.
    "eva_config",
    "corda_config",
    "lora_ga_config",
];

/// What no matrices are added to in a model that reads images too: some of its modules have the decoder's names.
const VISION: &str = ".*vision_tower.*";

/// Values of `init_lora_weights` under which the base is what it was.
const UNCHANGED_BASE: [&str; 6] =
    ["null", "true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\""];

/// A field of a config in a file.
struct Fields<'a> {
    path: &'a Path,
    fields: Map<String, Value>,
}

impl Fields<'_> {
    fn wrong(&self, message: String, hint: &str) -> Error {
        Error::input(format!("{}: {message}", self.path.display()), hint)
    }

    /// The field, unless it is missing or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    fn is_no(&self, key: &str, what: &str) -> Error {
        let text = self.fields.get(key).map(Value::to_string).unwrap_or_default();
        self.wrong(format!("{key} = {text} is {what}"), AGAIN)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.fields.get(key).and_then(Value::as_f64).filter(|number| number.is_finite())
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.is_no(key, "neither true nor false")),
        }
    }

    /// Names; one stands for a list of one.
    fn list(&self, key: &str) -> Result<Vec<String>> {
        let strings = |values: &Vec<Value>| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<_>>()
        };
        match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::String(name)) => Some(vec![name.clone()]),
            Some(Value::Array(values)) => strings(values),
            Some(_) => None,
        }
        .ok_or_else(|| self.is_no(key, "no list of names"))
    }

    /// A list of names, or a regular expression.
    fn names(&self, key: &str) -> Result<Option<Names>> {
        Ok(match self.get(key) {
            None => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(Names::Pattern(
                Pattern::of_path(text).map_err(|error| self.within(key, error))?,
            )),
            Some(_) => Some(self.list(key)?).filter(|names| !names.is_empty()).map(Names::List),
        })
    }

    fn within(&self, key: &str, error: Error) -> Error {
        Error { message: format!("{}: {key}: {}", self.path.display(), error.message), ..error }
    }

    fn patterns<T>(
        &self,
        key: &str,
        of: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<(Pattern, T)>> {
        let patterns = match self.get(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(patterns)) => patterns,
            Some(_) => return Err(self.is_no(key, "no table of patterns")),
        };
        let one = |(text, value): (&String, &Value)| -> Result<(Pattern, T)> {
            let value = of(value).ok_or_else(|| {
                self.wrong(format!("{key} has '{text}' = {value}, which it cannot be"), RANGES)
            })?;
            Ok((Pattern::of_ending(text).map_err(|error| self.within(key, error))?, value))
        };
        patterns.iter().map(one).collect()
    }
}

const AGAIN: &str = "write the adapter again with PEFT or Prospect";
const RANGES: &str = "r is a whole number from 1 to 65536, lora_alpha a number";

fn rank(value: &Value) -> Option<usize> {
    value.as_u64().filter(|r| (1..=1 << 16).contains(r)).map(|r| r as usize)
}

/// Reads `adapter_config.json` of an adapter folder whose modules are those of `config`'s model.
pub fn read_config_for(config: &ModelConfig, folder: &Path) -> Result<LoraConfig> {
    read_config(folder)?.by_todays_names(config)
}

/// Reads `adapter_config.json` of an adapter folder.
pub fn read_config(folder: &Path) -> Result<LoraConfig> {
    let path = folder.join(CONFIG);
    let mut it = Fields { path: &path, fields: Map::new() };
    if folder.is_dir() && !path.exists() {
        return Err(it.wrong(
            "there is no such file".to_owned(),
            "an adapter folder has adapter_config.json and adapter_model.safetensors, as PEFT writes them",
        ));
    }
    it.fields = match serde_json::from_str(&files::read_to_string(&path)?) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(it.wrong("is not a JSON object".to_owned(), AGAIN)),
        Err(error) => return Err(it.wrong(format!("is not JSON: {error}"), AGAIN)),
    };
    refuse_what_is_not_computed(&it)?;
    let (Some(r), Some(lora_alpha)) = (it.fields.get("r").and_then(rank), it.number("lora_alpha"))
    else {
        return Err(it.wrong("r or lora_alpha is missing or no rank".to_owned(), RANGES));
    };
    let lora_dropout = match (it.fields.get("lora_dropout"), it.number("lora_dropout")) {
        (None, _) => 0.0,
        (Some(_), Some(dropout)) if (0.0..1.0).contains(&dropout) => dropout,
        (Some(other), _) => {
            return Err(it.wrong(
                format!("lora_dropout = {other} is no share of inputs"),
                "it is a number from 0 to below 1",
            ));
        }
    };
    let layers_to_transform = match it.get("layers_to_transform") {
        None => None,
        Some(Value::Array(layers)) => {
            let layers = layers.iter().map(|layer| layer.as_u64().map(|layer| layer as usize));
            Some(layers.collect::<Option<Vec<usize>>>())
        }
        Some(layer) => Some(layer.as_u64().map(|layer| vec![layer as usize])),
    };
    let layers_to_transform = match layers_to_transform {
        Some(None) => return Err(it.is_no("layers_to_transform", "no list of blocks")),
        Some(layers) => layers,
        None => None,
    };
    let target_modules = match it.get("target_modules") {
        Some(Value::String(text)) if text == "all-linear" => Targets::AllLinear,
        _ => match it.names("target_modules")? {
            Some(names) => Targets::Named(names),
            None => {
                return Err(it.wrong(
                    "target_modules is missing".to_owned(),
                    "it is a list of names, a regular expression, or \"all-linear\"",
                ));
            }
        },
    };
    let start = match it.get("loftq_config") {
        Some(Value::Object(keys)) if !keys.is_empty() => {
            Start::Loftq { double_quant: keys.get("double_quant") == Some(&Value::Bool(true)) }
        }
        _ => Start::Default,
    };
    Ok(LoraConfig {
        r,
        lora_alpha,
        use_rslora: it.flag("use_rslora")?,
        use_dora: it.flag("use_dora")?,
        lora_dropout,
        rank_pattern: it.patterns("rank_pattern", rank)?,
        alpha_pattern: it
            .patterns("alpha_pattern", |value| value.as_f64().filter(|alpha| alpha.is_finite()))?,
        target_modules,
        exclude_modules: it.names("exclude_modules")?.filter(
            |names| !matches!(names, Names::Pattern(pattern) if pattern.as_str() == VISION),
        ),
        layers_to_transform,
        layers_pattern: it.list("layers_pattern")?,
        modules_to_save: it.list("modules_to_save")?,
        start,
    })
}

/// An error if a field asks for something that is not computed here.
fn refuse_what_is_not_computed(it: &Fields<'_>) -> Result<()> {
    for (key, values) in PLAIN {
        let text = it.fields.get(key).map(Value::to_string);
        if text.as_ref().is_some_and(|text| !values.contains(&text.as_str())) {
            return Err(it.wrong(
                format!("{key} = {} is not supported", text.unwrap_or_default()),
                &format!("Prospect computes LoRA and DoRA, with {key} = {}", values[0]),
            ));
        }
    }
    if let Some(init) = it.fields.get("init_lora_weights").map(Value::to_string)
        && !UNCHANGED_BASE.contains(&init.as_str())
    {
        return Err(it.wrong(
            format!(
                "init_lora_weights = {init} is not supported: such a start changes the base's weights, and the adapter alone does not say how"
            ),
            "save it once more with PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it an adapter for the base as it is",
        ));
    }
    for (key, value) in &it.fields {
        let known = READ.contains(&key.as_str())
            || HARMLESS.contains(&key.as_str())
            || PLAIN.iter().any(|(plain, _)| plain == key);
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(values) => values.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !known && !off {
            return Err(it.wrong(
                format!("{key} = {value} is not supported"),
                &format!(
                    "Prospect computes LoRA and DoRA as PEFT 0.21 does without {key}; it would be left out"
                ),
            ));
        }
    }
    Ok(())
}

/// `exclude_modules` as PEFT is to read it: the recipe's, and what reads images.
fn excluded(adapter: &Adapter) -> Value {
    let excluded = adapter.config.exclude_modules.as_ref();
    if adapter.decoder_path == "model" {
        return excluded.map(names).unwrap_or_default();
    }
    let own = match excluded {
        None => return json!(VISION),
        Some(Names::Pattern(pattern)) if pattern.as_str().ends_with(VISION) => {
            return json!(pattern.as_str());
        }
        Some(Names::Pattern(pattern)) => pattern.as_str().to_owned(),
        Some(Names::List(names)) => {
            let escaped: Vec<String> = names.iter().map(|name| name.replace('.', r"\.")).collect();
            format!(r"(?:.*\.)?(?:{})", escaped.join("|"))
        }
    };
    json!(format!("(?:{own})|{VISION}"))
}

fn names(names: &Names) -> Value {
    match names {
        Names::List(names) => json!(names),
        Names::Pattern(pattern) => json!(pattern.as_str()),
    }
}

/// What stands in `adapter_config.json` of an adapter that was trained on `base`. Where the base lost a part, that of
/// the difference, of twice the rank.
pub fn config_json(adapter: &Adapter, base: &str) -> Value {
    let lora = &adapter.config;
    // Twice the rank has the same scale with twice the numerator, or under rsLoRA with the root of 2 times it.
    let (times, alpha_times) = match (lora.start.changes_base(), lora.use_rslora) {
        (false, _) => (1, 1.0),
        (true, false) => (2, 2.0),
        (true, true) => (2, std::f64::consts::SQRT_2),
    };
    let ranks: Map<String, Value> = lora
        .rank_pattern
        .iter()
        .map(|(pattern, r)| (pattern.as_str().to_owned(), json!(r * times)))
        .collect();
    let alphas: Map<String, Value> = lora
        .alpha_pattern
        .iter()
        .map(|(pattern, alpha)| {
            (pattern.as_str().to_owned(), whole_where_it_is(alpha * alpha_times))
        })
        .collect();
    // Not every list of PEFT may be empty.
    let or_null = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
    json!({
        "alpha_pattern": alphas,
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "exclude_modules": excluded(adapter),
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": or_null(&lora.layers_pattern),
        "layers_to_transform": lora.layers_to_transform,
        // PEFT does not read it; it says that the adapter belongs to the base in 4 bits.
        "loftq_config": match lora.start {
            Start::Loftq { double_quant } => {
                json!({"double_quant": double_quant, "loftq_bits": 4, "loftq_iter": 1})
            }
            _ => json!({}),
        },
        "lora_alpha": whole_where_it_is(lora.lora_alpha * alpha_times),
        "lora_dropout": lora.lora_dropout,
        "modules_to_save": or_null(&lora.modules_to_save),
        "peft_type": "LORA",
        "r": lora.r * times,
        "rank_pattern": ranks,
        "revision": null,
        "target_modules": match &lora.target_modules {
            Targets::AllLinear => json!(adapter.modules()),
            Targets::Named(named) => names(named),
        },
        "task_type": "CAUSAL_LM",
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
    })
}

/// PEFT writes `lora_alpha` as a whole number.
fn whole_where_it_is(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}
