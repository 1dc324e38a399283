//! An adapter as GGUF, which llama.cpp lays over the model it was trained on: per matrix `<name>.lora_a` (r, in) and
//! `<name>.lora_b` (out, r), and `adapter.lora.alpha`, which llama.cpp divides by r.

use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use serde_json::Value as Json;

use super::architecture::Architecture;
use super::format::{TensorType, Value};
use super::model::{self, Exported};
use super::write::{self, Entry};
use crate::adapter;
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// The model that an adapter says it was trained on.
pub fn base_of(adapter_folder: &Path) -> Result<String> {
    let path = adapter_folder.join(adapter::CONFIG);
    let _checked = adapter::read_config(adapter_folder)?;
    let text = files::read_to_string(&path)?;
    let config: Json = serde_json::from_str(&text).unwrap_or_default();
    match config.get("base_model_name_or_path").and_then(Json::as_str) {
        Some(base) if !base.is_empty() => Ok(base.to_owned()),
        _ => Err(Error::input(
            format!("'{}' names no base model", path.display()),
            "give the model folder by --model",
        )),
    }
}

/// Writes the adapter of `adapter_folder`, which belongs to the model of `base`, to `out`.
pub fn export_adapter(base: &Path, adapter_folder: &Path, out: &Path) -> Result<Exported> {
    let config = ModelConfig::load(base)?;
    let it = Architecture::of(&config)?;
    let plan = Device::plan_for(Kind::Cpu);
    let _planned = adapter::read(&plan, &config, adapter_folder)?;
    let device = Device::cpu(plan.peak_bytes())?;
    let mut adapter = adapter::read(&device, &config, adapter_folder)?;
    let alpha = adapter.config.scale() * adapter.config.r as f32;
    let keys = [
        model::general("architecture", it.name),
        model::general("type", "adapter"),
        model::general("name", &model::name_of(adapter_folder)),
        ("general.file_type".to_owned(), Value::U32(0)),
        ("adapter.type".to_owned(), Value::String("lora".to_owned())),
        ("adapter.lora.alpha".to_owned(), Value::F32(alpha)),
    ];
    let mut entries = Vec::new();
    for (name, tensor) in adapter.tensors_mut() {
        let (known, order) = place(it, &config, &name).ok_or_else(|| {
            Error::input(
                format!("'{}' holds {name}, which a GGUF adapter cannot", adapter_folder.display()),
                "merge it instead: prospect export --model ... --adapter ... --to gguf",
            )
        })?;
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let tensor = &*tensor;
        let bytes = move |writer: &mut dyn std::io::Write| {
            let values: Vec<f32> = tensor.to_vec().map_err(std::io::Error::other)?;
            for row in 0..rows {
                let row = order.source(row);
                for value in &values[row * cols..(row + 1) * cols] {
                    writer.write_all(&value.to_le_bytes())?;
                }
            }
            Ok(())
        };
        let shape = vec![rows, cols];
        entries.push(Entry { name: known, shape, kind: TensorType::F32, bytes: Box::new(bytes) });
    }
    write::write(out, &keys, &entries)?;
    model::written(out, Vec::new())
}

/// The name of an adapter's matrix in GGUF, and the order of its rows.
fn place(
    it: &Architecture,
    config: &ModelConfig,
    name: &str,
) -> Option<(String, super::architecture::Rows)> {
    let name = name.strip_prefix("base_model.model.")?.strip_prefix(config.decoder_path())?;
    let name = format!("model{name}");
    for (ending, theirs) in [(".lora_A.weight", "lora_a"), (".lora_B.weight", "lora_b")] {
        if let Some(module) = name.strip_suffix(ending) {
            let base = format!("{module}.weight");
            // Rows of B are the outputs, which is what is interleaved; rows of A are ranks.
            let order = match theirs {
                "lora_b" => it.rows(config, &base),
                _ => super::architecture::Rows::InPlace,
            };
            return Some((format!("{}.{theirs}", it.tensor(&base)?), order));
        }
    }
    None
}
