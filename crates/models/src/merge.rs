//! Merging an adapter into its base, tensor by tensor, so that a 7B model passes through a laptop.
//!
//! * LoRA: `W + s B A`; DoRA: `(m / norm) (W + s B A)` row by row; modules that were trained whole take the base's place
//! * a base that bitsandbytes quantized is merged into its dequantized values, which are what the adapter was trained on,
//!   and the result is dense: quantized again, most of what an adapter changes would be rounded away
//! * an adapter that makes up for what 4 bits lose (LoftQ) is merged into what 4 bits make of the base
//! * an embedding or head of its own unties a tied model, and config.json says so

use std::io;
use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::matmul::{self, Output};
use engine::ops::nf4::{self, CodeBook, Quantized};
use engine::tensor::Shape;
use rayon::prelude::*;
use safetensors::Dtype;
use serde_json::Value;

use crate::adapter;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::dense;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::lora::saved::Module;
use crate::lora::start::Start;
use crate::lora::{Adapter, Lora};
use crate::weights::{LINEARS, Linear};

/// Files beside the weights that make a folder loadable.
const COMPANIONS: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
];

/// Writes the model of `base` with the adapter of `adapter_folder` merged in to the folder `out`, in the types of
/// the base's tensors and in shards of 5 GB.
pub fn merge(base: &Path, adapter_folder: &Path, out: &Path) -> Result<()> {
    merge_in_shards(base, adapter_folder, out, export::MAX_SHARD_BYTES)
}

fn merge_in_shards(
    base: &Path,
    adapter_folder: &Path,
    out: &Path,
    max_shard_bytes: usize,
) -> Result<()> {
    for name in ["model.safetensors", "model.safetensors.index.json"] {
        if out.join(name).exists() {
            return Err(Error::input(
                format!("'{}' exists already", out.join(name).display()),
                "choose a folder that holds no model: the old files would mix with the new ones",
            ));
        }
    }
    let mut config = ModelConfig::load(base)?;
    let checkpoint = Checkpoint::open(base)?;
    let merging = Merging::open(&config, Some(adapter_folder))?;
    // A base that lacks what the adapter adds to, or has it in another shape, is another model.
    let mut tensors = dense::tensors(&config, &checkpoint)?;
    let untied = merging.untie(&mut config, &mut tensors);
    std::fs::create_dir_all(out).map_err(|error| {
        Error::machine(
            format!("cannot create '{}': {error}", out.display()),
            "choose another folder",
        )
    })?;
    let mut entries = Vec::new();
    for tensor in &tensors {
        let dtype = match tensor.dtype {
            Dtype::BF16 => "BF16",
            Dtype::F16 => "F16",
            _ => "F32",
        };
        let merging = &merging;
        let bytes = move || {
            let merged = || match merging.values(tensor)? {
                // What nothing is added to is copied as it is.
                None => tensor.bytes(),
                Some(values) => Ok(tensor.encode(&values)),
            };
            merged().map_err(|error: Error| io::Error::other(error.to_string()))
        };
        let (name, shape) = (tensor.name.to_owned(), tensor.shape.clone());
        entries.push(Entry { name, dtype, shape, bytes: Box::new(bytes) });
    }
    export::write_model(out, &checkpoint.whole(entries)?, max_shard_bytes)?;
    copy_companions(base, out)?;
    dense::forget_quantization(out)?;
    if untied { say_untied(out) } else { Ok(()) }
}

/// Has the config.json of the merged model say that its head is a matrix of its own.
fn say_untied(out: &Path) -> Result<()> {
    let path = out.join("config.json");
    if let Ok(Value::Object(mut fields)) = serde_json::from_str(&files::read_to_string(&path)?) {
        fields.insert("tie_word_embeddings".to_owned(), Value::Bool(false));
        files::write_json(&path, &Value::Object(fields))?;
    }
    Ok(())
}

/// Copies config, tokenizer and template.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    for name in COMPANIONS {
        let path = from.join(name);
        if path.exists() {
            let bytes = files::read(&path)?;
            if let Some(folder) = to.join(name).parent() {
                let _ = std::fs::create_dir_all(folder); // where it failed, writing says so
            }
            files::write_atomically(&to.join(name), |writer| writer.write_all(&bytes))?;
        }
    }
    Ok(())
}

/// What an adapter takes that is read and merged, weight by weight: both are done on `plan` first, as in a run.
fn planned_bytes(config: &ModelConfig, folder: &Path) -> Result<usize> {
    let plan = Device::plan_for(Kind::Cpu);
    let adapter = adapter::read(&plan, config, folder)?;
    for lora in adapter.layers.iter().flatten().flatten() {
        merge_into(&plan, lora, adapter.config.start, true, &mut [])?;
    }
    Ok(plan.peak_bytes())
}

fn matrices<'a>(layers: &'a [[Option<Lora>; LINEARS]], name: &str) -> Option<&'a Lora> {
    let rest = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?;
    let (layer, path) = rest.split_once('.')?;
    let linear = Linear::ALL.into_iter().find(|linear| linear.path() == path)?;
    layers.get(layer.parse::<usize>().ok()?)?[linear as usize].as_ref()
}

/// An adapter, to be merged into its base tensor by tensor.
pub(crate) struct Merging {
    adapter: Option<(Device, Adapter)>,
}

impl Merging {
    /// Reads the adapter, if there is one.
    pub(crate) fn open(config: &ModelConfig, adapter_folder: Option<&Path>) -> Result<Merging> {
        let adapter = match adapter_folder {
            None => None,
            Some(folder) => {
                let device = Device::cpu(planned_bytes(config, folder)?)?;
                let adapter = adapter::read(&device, config, folder)?;
                Some((device, adapter))
            }
        };
        Ok(Merging { adapter })
    }

    /// A tied model has one matrix for embeddings and head; where the adapter has one of them of its own, they are two.
    pub(crate) fn untie(
        &self,
        config: &mut ModelConfig,
        tensors: &mut Vec<dense::Tensor<'_>>,
    ) -> bool {
        let owns = |module| {
            self.adapter.as_ref().is_some_and(|(_, adapter)| adapter.saved.contains_key(&module))
        };
        let unties =
            config.tie_word_embeddings && (owns(Module::EmbedTokens) || owns(Module::LmHead));
        if !unties {
            return false;
        }
        config.tie_word_embeddings = false;
        let called = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        if called("lm_head.weight").is_none()
            && let Some(head) = called("model.embed_tokens.weight")
                .map(|embeddings| embeddings.copy_called("lm_head.weight"))
        {
            tensors.push(head);
        }
        true
    }

    /// A merged tensor in f32; none where it is the base's.
    pub(crate) fn values(&self, tensor: &dense::Tensor<'_>) -> Result<Option<Vec<f32>>> {
        let Some((device, adapter)) = &self.adapter else { return Ok(None) };
        let path = tensor.name.strip_suffix(".weight");
        let mut saved = adapter.saved.iter();
        if let Some((_, own)) = saved.find(|(module, _)| path == Some(module.path().as_str())) {
            return Ok(Some(own.to_vec()?));
        }
        let Some(lora) = matrices(&adapter.layers, tensor.name) else { return Ok(None) };
        let mut values = tensor.values()?;
        let dense = tensor.stored().is_some();
        merge_into(device, lora, adapter.config.start, dense, &mut values)?;
        Ok(Some(values))
    }
}

/// Merges a pair of matrices into the values of its weight, which are none on `plan`; `dense` says that they are stored so.
fn merge_into(
    device: &Device,
    lora: &Lora,
    start: Start,
    dense: bool,
    values: &mut [f32],
) -> Result<()> {
    // What is stored quantized is what 4 bits made of it already.
    if let (Start::Loftq { double_quant }, true) = (start, dense) {
        let shape = Shape { rows: lora.b.rows(), cols: lora.a.cols() };
        quantize_and_back(device, values, shape, double_quant)?;
    }
    add(device, lora, values)
}

/// What 4 bits make of the values.
fn quantize_and_back(
    device: &Device,
    values: &mut [f32],
    shape: Shape,
    double_quant: bool,
) -> Result<()> {
    let mut held = Quantized::new(device, shape, CodeBook::Nf4, nf4::BLOCK_SIZE, double_quant)?;
    let mut wide = device.scratch(shape, DType::F32, Category::Workspace)?;
    wide.fill(|to| {
        to.copy_from_slice(values);
        Ok::<(), Error>(())
    })?;
    nf4::quantize(wide.view(), &mut held)?;
    nf4::dequantize(&held, wide.view_mut())?;
    if !device.is_plan() {
        values.copy_from_slice(wide.as_slice());
    }
    Ok(())
}

/// `W + s B A`, computed in f32, and DoRA's scale of each row.
fn add(device: &Device, lora: &Lora, values: &mut [f32]) -> Result<()> {
    // B A = A^T's product with B: the gradient of an input with B as the gradient of the output.
    let shape = (lora.b.rows(), lora.a.cols());
    let mut delta = device.scratch(shape, DType::F32, Category::Workspace)?;
    let (a, b) = (lora.a.view(), lora.b.view());
    matmul::backward_input(b, a, lora.scale, Output::Write, delta.view_mut())?;
    if device.is_plan() {
        return Ok(());
    }
    let parts = delta.as_slice::<f32>().par_chunks(PART);
    values.par_chunks_mut(PART).zip(parts).for_each(|(values, delta)| {
        values.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
    });
    let Some(dora) = &lora.dora else { return Ok(()) };
    let rows = values.par_chunks_mut(shape.1).zip(dora.magnitude.as_slice::<f32>());
    rows.for_each(|(row, magnitude)| {
        let norm = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() as f32;
        row.iter_mut().for_each(|w| *w *= magnitude / norm);
    });
    Ok(())
}

/// Elements that are added to by one task.
const PART: usize = 1 << 16;

#[cfg(test)]
mod tests;
