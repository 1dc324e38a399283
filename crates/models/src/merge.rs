//! Merging an adapter into its base: `W + s B A`, tensor by tensor, so that a 7B model passes through a laptop.
//!
//! A base that bitsandbytes quantized is merged into its dequantized values, which are what the adapter was trained on, and
//! the result is dense: quantized again, most of what an adapter changes would be rounded away.

use std::io;
use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::matmul::{self, Output};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::adapter;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::dense;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
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
    let config = ModelConfig::load(base)?;
    let checkpoint = Checkpoint::open(base)?;
    let merging = Merging::open(&config, Some(adapter_folder))?;
    // A base that lacks what the adapter adds to, or has it in another shape, is another model.
    let tensors = dense::tensors(&config, &checkpoint)?;
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
    dense::forget_quantization(out)
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

/// The widest `B A`.
fn delta_bytes(config: &ModelConfig) -> usize {
    let sizes = config.linears().iter().map(|linear| linear.shape(config));
    let widest = sizes.map(|(rows, cols)| rows * cols).max();
    engine::memory::arena::aligned(4 * widest.unwrap_or(0))
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
                // The adapter's size is found as a run's is: by reading it on `plan` first.
                let plan = Device::plan_for(Kind::Cpu);
                let _planned = adapter::read(&plan, config, folder)?;
                let device = Device::cpu(plan.peak_bytes() + delta_bytes(config))?;
                let adapter = adapter::read(&device, config, folder)?;
                Some((device, adapter))
            }
        };
        Ok(Merging { adapter })
    }

    /// `W + s B A` of a tensor in f32; none where nothing is added to it.
    pub(crate) fn values(&self, tensor: &dense::Tensor<'_>) -> Result<Option<Vec<f32>>> {
        let Some((device, adapter)) = &self.adapter else { return Ok(None) };
        let Some(lora) = matrices(&adapter.layers, tensor.name) else { return Ok(None) };
        let scale = adapter.config.scale();
        let mut values = tensor.values()?;
        // B A = A^T's product with B: the gradient of an input with B as the gradient of the output.
        let mut delta =
            device.scratch((lora.b.rows(), lora.a.cols()), DType::F32, Category::Workspace)?;
        let delta_view = delta.view_mut();
        matmul::backward_input(lora.b.view(), lora.a.view(), scale, Output::Write, delta_view)?;
        let parts = delta.as_slice::<f32>().par_chunks(PART);
        values.par_chunks_mut(PART).zip(parts).for_each(|(values, delta)| {
            values.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
        });
        Ok(Some(values))
    }
}

/// Elements that are added to by one task.
const PART: usize = 1 << 16;

#[cfg(test)]
mod tests;
