//! Merging an adapter into its base: `W + s B A`, tensor by tensor, so that a 7B model passes through a laptop.

use std::io;
use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::matmul::{self, Output};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::adapter;
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::lora::{Adapter, Lora};
use crate::weights::Linear;

/// Files beside the weights that make a folder loadable.
const COMPANIONS: [&str; 11] = [
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
    let merging = Merging::open(base, &config, &checkpoint, Some(adapter_folder))?;
    std::fs::create_dir_all(out).map_err(|error| {
        Error::machine(
            format!("cannot create '{}': {error}", out.display()),
            "choose another folder",
        )
    })?;
    let mut entries = Vec::new();
    for name in checkpoint.names() {
        let Some(stored) = checkpoint.get(name) else { continue };
        let dtype = match stored.dtype {
            Dtype::F32 => "F32",
            Dtype::BF16 => "BF16",
            Dtype::F16 => "F16",
            other => {
                return Err(Error::input(
                    format!("{name} in '{}' holds {other:?}", stored.file.display()),
                    "weights are read from F32, BF16 and F16",
                ));
            }
        };
        let merging = &merging;
        let bytes = move || match merging.values(name, stored) {
            // What nothing is added to is copied as it is.
            Ok(None) => Ok(stored.bytes.to_vec()),
            Ok(Some(values)) => Ok(narrowed(&values, stored.dtype)),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        let shape = stored.shape.to_vec();
        entries.push(Entry { name: name.to_owned(), dtype, shape, bytes: Box::new(bytes) });
    }
    export::write_model(out, &entries, max_shard_bytes)?;
    copy_companions(base, out)
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
    let widest =
        Linear::ALL.iter().map(|linear| linear.shape(config)).map(|(rows, cols)| rows * cols).max();
    engine::memory::arena::aligned(4 * widest.unwrap_or(0))
}

fn matrices<'a>(layers: &'a [[Option<Lora>; 7]], name: &str) -> Option<&'a Lora> {
    let rest = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?;
    let (layer, path) = rest.split_once('.')?;
    let linear = Linear::ALL.into_iter().find(|linear| linear.path() == path)?;
    layers.get(layer.parse::<usize>().ok()?)?[linear as usize].as_ref()
}

/// A base and an adapter, to be merged tensor by tensor.
pub(crate) struct Merging {
    adapter: Option<(Device, Adapter)>,
}

impl Merging {
    /// Reads the adapter, if there is one, and refuses a base that it does not belong to or that is quantized.
    pub(crate) fn open(
        base: &Path,
        config: &ModelConfig,
        checkpoint: &Checkpoint,
        adapter_folder: Option<&Path>,
    ) -> Result<Merging> {
        if checkpoint.names().any(|name| name.contains(".quant_state.")) {
            return Err(Error::input(
                format!("'{}' is quantized to 4 bits", base.display()),
                "merge into the model it was quantized from: its weights are exact",
            ));
        }
        // A base that lacks what the adapter adds to, or has it in another shape, is another model.
        for layer in 0..config.num_hidden_layers {
            for linear in Linear::ALL {
                let (rows, cols) = linear.shape(config);
                let name = format!("model.layers.{layer}.{}.weight", linear.path());
                checkpoint.expect(&name, &[rows, cols])?;
            }
        }
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
    pub(crate) fn values(&self, name: &str, stored: Stored<'_>) -> Result<Option<Vec<f32>>> {
        let Some((device, adapter)) = &self.adapter else { return Ok(None) };
        let Some(lora) = matrices(&adapter.layers, name) else { return Ok(None) };
        let scale = adapter.config.scale();
        let mut values = vec![0f32; stored.shape.iter().product()];
        // B A = A^T's product with B: the gradient of an input with B as the gradient of the output.
        let mut delta =
            device.scratch((lora.b.rows(), lora.a.cols()), DType::F32, Category::Workspace)?;
        let delta_view = delta.view_mut();
        matmul::backward_input(lora.b.view(), lora.a.view(), scale, Output::Write, delta_view)?;
        let width = (stored.bytes.len() / values.len().max(1)).max(1);
        let parts =
            (stored.bytes.par_chunks(width * PART), delta.as_slice::<f32>().par_chunks(PART));
        values.par_chunks_mut(PART).zip(parts.0).zip(parts.1).try_for_each(
            |((values, bytes), delta)| -> Result<()> {
                Stored { bytes, ..stored }.to_f32(name, values)?;
                values.iter_mut().zip(delta).for_each(|(value, delta)| *value += delta);
                Ok(())
            },
        )?;
        Ok(Some(values))
    }
}

/// Elements that are converted by one task.
const PART: usize = 1 << 16;

/// Values rounded once, to the type of the base's tensor.
fn narrowed(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => bytes(values, |value| bf16::from_f32(value).to_le_bytes()),
        Dtype::F16 => bytes(values, |value| f16::from_f32(value).to_le_bytes()),
        _ => bytes(values, f32::to_le_bytes),
    }
}

fn bytes<const N: usize>(values: &[f32], narrow: impl Fn(f32) -> [u8; N] + Sync) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * N];
    let parts = bytes.par_chunks_mut(PART * N).zip(values.par_chunks(PART));
    parts.for_each(|(bytes, values)| {
        for (bytes, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
            *bytes = narrow(*value);
        }
    });
    bytes
}

#[cfg(test)]
mod tests;
