//! An adapter as GGUF, which llama.cpp lays over the model it was trained on: per matrix `<name>.lora_a` (r, in) and
//! `<name>.lora_b` (out, r), and `adapter.lora.alpha`, which llama.cpp divides by the r of each pair
//! (`llm_graph_context::build_lora_mm`).
//!
//! Ranks and scales by pattern fit: r is each pair's own, and B takes what its alpha is of the one that is written. An
//! adapter that took a part of the base is on disk as its difference to the start, so it fits as well. DoRA's lengths,
//! modules that were trained whole, and the base in 4 bits that LoftQ belongs to do not: they are refused by name.

use std::collections::BTreeMap;
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
use crate::lora::start::Start;
use crate::lora::{Lora, LoraConfig};
use crate::weights::Linear;

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
    refuse_what_does_not_fit(&adapter::read_config(adapter_folder)?, base, adapter_folder)?;
    let plan = Device::plan_for(Kind::Cpu);
    let _planned = adapter::read(&plan, &config, adapter_folder)?;
    let device = Device::cpu(plan.peak_bytes())?;
    let mut adapter = adapter::read(&device, &config, adapter_folder)?;
    // One alpha stands for all; where patterns make it another for some modules, their B takes the difference.
    let alpha_of = |lora: &Lora| lora.scale * lora.a.rows() as f32;
    let mut alphas = Vec::new();
    for (i, layer) in adapter.layers.iter().enumerate() {
        for (linear, lora) in Linear::ALL.into_iter().zip(layer) {
            if let Some(lora) = lora {
                let name = format!("base_model.model.model.layers.{i}.{}.lora_B", linear.path());
                alphas.push((format!("{name}.weight"), alpha_of(lora)));
            }
        }
    }
    let alpha = alphas.iter().map(|(_, alpha)| *alpha).find(|alpha| *alpha != 0.0).unwrap_or(1.0);
    let factors: BTreeMap<String, f32> =
        alphas.into_iter().map(|(name, own)| (name, own / alpha)).collect();
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
                merge_it(base, adapter_folder),
            )
        })?;
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let factor = factors.get(&name).copied().unwrap_or(1.0);
        let tensor = &*tensor;
        let bytes = move |writer: &mut dyn std::io::Write| {
            let values: Vec<f32> = tensor.to_vec().map_err(std::io::Error::other)?;
            for row in 0..rows {
                let row = order.source(row);
                for value in &values[row * cols..(row + 1) * cols] {
                    writer.write_all(&(value * factor).to_le_bytes())?;
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

/// What a GGUF adapter has no words for.
fn refuse_what_does_not_fit(lora: &LoraConfig, base: &Path, adapter_folder: &Path) -> Result<()> {
    let what = if lora.use_dora {
        "is a DoRA: a GGUF adapter has matrices, and no lengths for the rows of the sum"
    } else if !lora.modules_to_save.is_empty() {
        "holds modules that were trained whole (modules_to_save): a GGUF adapter has matrices alone"
    } else if matches!(lora.start, Start::Loftq { .. }) {
        "makes up for what nf4 lost of its base (LoftQ): llama.cpp would add it to a base that lost nothing, or something else"
    } else {
        return Ok(());
    };
    let message = format!("'{}' {what}", adapter_folder.display());
    Err(Error::input(message, merge_it(base, adapter_folder)))
}

fn merge_it(base: &Path, adapter_folder: &Path) -> String {
    format!(
        "merge it into the model: prospect export --model {} --adapter {} --to gguf model.gguf",
        base.display(),
        adapter_folder.display()
    )
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
