//! Adapters on disk, as PEFT 0.21 writes and reads them: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;

use data::files;
use engine::device::Device;
use serde_json::{Map, Value, json};

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::lora::{Adapter, LoraConfig, Targets};

/// The file of an adapter's matrices.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The file that says what they are.
pub const CONFIG: &str = "adapter_config.json";

/// What no matrices are added to in a model that reads images too: some of its modules have the decoder's names. JSON of
/// a pattern of PEFT's.
const VISION: &str = r#"".*vision_tower.*""#;

/// Keys of `adapter_config.json` that change what is computed, with the values Prospect computes.
const PLAIN: [(&str, &[&str]); 20] = [
    ("peft_type", &["\"LORA\""]),
    ("bias", &["\"none\""]),
    ("use_dora", &["false"]),
    ("fan_in_fan_out", &["false"]),
    ("lora_bias", &["false"]),
    ("modules_to_save", &["null", "[]"]),
    ("rank_pattern", &["{}", "null"]),
    ("alpha_pattern", &["{}", "null"]),
    ("layers_to_transform", &["null"]),
    ("layer_replication", &["null"]),
    ("exclude_modules", &["null", "[]", VISION]),
    ("target_parameters", &["null", "[]"]),
    ("trainable_token_indices", &["null"]),
    ("use_qalora", &["false", "null"]),
    ("use_bdlora", &["false", "null"]),
    ("alora_invocation_tokens", &["null"]),
    ("arrow_config", &["null"]),
    ("kasa_config", &["null"]),
    ("monteclora_config", &["null"]),
    // The others (pissa, olora, corda, loftq, ...) change the base's weights as well.
    ("init_lora_weights", &["true", "false", "\"gaussian\"", "\"eva\"", "\"orthogonal\""]),
];

/// Reads `adapter_config.json` of an adapter folder.
pub fn read_config(folder: &Path) -> Result<LoraConfig> {
    let path = folder.join(CONFIG);
    let wrong =
        |message: String, hint: &str| Error::input(format!("{}: {message}", path.display()), hint);
    if folder.is_dir() && !path.exists() {
        return Err(wrong(
            "there is no such file".to_owned(),
            "an adapter folder has adapter_config.json and adapter_model.safetensors, as PEFT writes them",
        ));
    }
    let fields = match serde_json::from_str(&files::read_to_string(&path)?) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => {
            return Err(wrong(
                "is not a JSON object".to_owned(),
                "write the adapter again with PEFT or Prospect",
            ));
        }
        Err(error) => {
            return Err(wrong(
                format!("is not JSON: {error}"),
                "write the adapter again with PEFT or Prospect",
            ));
        }
    };
    for (key, values) in PLAIN {
        let text = fields.get(key).map(Value::to_string);
        if text.as_ref().is_some_and(|text| !values.contains(&text.as_str())) {
            return Err(wrong(
                format!("{key} = {} is not supported", text.unwrap_or_default()),
                &format!("Prospect computes plain LoRA, with {key} = {}", values[0]),
            ));
        }
    }
    let number =
        |key: &str| fields.get(key).and_then(Value::as_f64).filter(|number| number.is_finite());
    let r = fields.get("r").and_then(Value::as_u64).filter(|r| (1..=1 << 16).contains(r));
    let (Some(r), Some(lora_alpha)) = (r, number("lora_alpha")) else {
        return Err(wrong(
            "r or lora_alpha is missing or no rank".to_owned(),
            "r is a whole number from 1 to 65536, lora_alpha a number",
        ));
    };
    let use_rslora = match fields.get("use_rslora") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            return Err(wrong(
                format!("use_rslora = {other} is neither true nor false"),
                "write the adapter again with PEFT or Prospect",
            ));
        }
    };
    let lora_dropout = match (fields.get("lora_dropout"), number("lora_dropout")) {
        (None, _) => 0.0,
        (Some(_), Some(dropout)) if (0.0..1.0).contains(&dropout) => dropout,
        (Some(other), _) => {
            return Err(wrong(
                format!("lora_dropout = {other} is no share of inputs"),
                "it is a number from 0 to below 1",
            ));
        }
    };
    Ok(LoraConfig {
        r: r as usize,
        lora_alpha,
        use_rslora,
        lora_dropout,
        target_modules: targets(&fields).ok_or_else(|| {
            wrong(
                "target_modules is neither a list of names nor \"all-linear\"".to_owned(),
                "list the modules' names",
            )
        })?,
    })
}

fn targets(fields: &Map<String, Value>) -> Option<Targets> {
    match fields.get("target_modules")? {
        Value::String(text) if text == "all-linear" => Some(Targets::AllLinear),
        Value::Array(names) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Targets::Suffixes),
        _ => None,
    }
}

/// Reads an adapter into zero matrices of its shape. All spellings of names are read: PEFT's files have
/// `lora_A.weight`, a state dict has `lora_A.default.weight`; a decoder within a model that reads images too was
/// `language_model.model` before transformers 4.52.
pub fn read(device: &Device, config: &ModelConfig, folder: &Path) -> Result<Adapter> {
    let lora = read_config(folder)?;
    let mut adapter = Adapter::zeros(device, config, &lora)?;
    let checkpoint = Checkpoint::open_file(&folder.join(WEIGHTS))?;
    let mut found = 0;
    for (name, tensor) in adapter.tensors_mut() {
        let older = name.replace(".model.language_model.", ".language_model.model.");
        let in_state_dict = |name: &str| name.replace(".weight", ".default.weight");
        let spellings = [in_state_dict(&name), in_state_dict(&older), older];
        let found_so = spellings.into_iter().find(|spelling| checkpoint.get(spelling).is_some());
        let name = match checkpoint.get(&name) {
            Some(_) => name,
            None => found_so.unwrap_or(name),
        };
        let shape = [tensor.rows(), tensor.cols()];
        let stored = checkpoint.expect(&name, &shape).map_err(|error| Error {
            hint: "the adapter belongs to another model, or to another adapter_config.json"
                .to_owned(),
            ..error
        })?;
        tensor.fill(|values| stored.to_f32(&name, values))?;
        found += 1;
    }
    let all = checkpoint.names().count();
    if all != found {
        return Err(Error::input(
            format!(
                "'{}' holds {all} tensors, {found} of which are of the modules that {CONFIG} names",
                folder.join(WEIGHTS).display()
            ),
            "the two files belong to different adapters, or to another model",
        ));
    }
    Ok(adapter)
}

/// Writes an adapter that PEFT loads. `base` is what the adapter was trained on.
pub fn write(adapter: &mut Adapter, base: &str, folder: &Path) -> Result<()> {
    let config = config_json(adapter, base);
    let entries: Vec<Entry> =
        adapter.tensors_mut().into_iter().map(|(name, tensor)| Entry::f32(name, tensor)).collect();
    export::write_safetensors(&folder.join(WEIGHTS), &entries)?;
    files::write_json(&folder.join(CONFIG), &config)?;
    Ok(())
}

/// What stands in `adapter_config.json` of an adapter that was trained on `base`.
pub fn config_json(adapter: &Adapter, base: &str) -> Value {
    let lora = &adapter.config;
    let modules = match &lora.target_modules {
        Targets::AllLinear => adapter.modules().into_iter().map(str::to_owned).collect(),
        Targets::Suffixes(names) => names.clone(),
    };
    let mut config = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": whole_where_it_is(lora.lora_alpha),
        "lora_dropout": lora.lora_dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": lora.r,
        "rank_pattern": {},
        "revision": null,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": lora.use_rslora,
    });
    if adapter.decoder_path != "model" {
        config["exclude_modules"] = serde_json::from_str(VISION).unwrap_or_default();
    }
    config
}

/// PEFT writes `lora_alpha` as a whole number.
fn whole_where_it_is(alpha: f64) -> Value {
    if alpha.fract() == 0.0 && alpha.abs() < 1e15 { json!(alpha as i64) } else { json!(alpha) }
}

#[cfg(test)]
mod tests;
