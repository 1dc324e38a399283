//! Merging an adapter into its base: `W + s B A`, tensor by tensor, so that a 7B model passes through a laptop.

use std::io;
use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::matmul::{self, Output};
use half::{bf16, f16};
use safetensors::Dtype;

use crate::adapter;
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::lora::Lora;
use crate::weights::{LINEARS, Linear};

/// Files beside the weights that make a folder loadable.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
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
    if checkpoint.names().any(|name| name.contains(".quant_state.")) {
        return Err(Error::input(
            format!("'{}' is quantized to 4 bits", base.display()),
            "merge into the model it was quantized from: its weights are exact",
        ));
    }
    // A base that lacks what the adapter adds to, or has it in another shape, is another model.
    for layer in 0..config.num_hidden_layers {
        for linear in config.linears() {
            let (rows, cols) = linear.shape(&config);
            let name = format!("model.layers.{layer}.{}.weight", linear.path());
            checkpoint.expect(&name, &[rows, cols])?;
        }
    }
    // The adapter's size is found as a run's is: by reading it on `plan` first.
    let plan = Device::plan_for(Kind::Cpu);
    let _planned = adapter::read(&plan, &config, adapter_folder)?;
    let device = Device::cpu(plan.peak_bytes() + delta_bytes(&config))?;
    let adapter = adapter::read(&device, &config, adapter_folder)?;
    let scale = adapter.config.scale();
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
        let lora = matrices(&adapter.layers, name);
        let device = device.clone();
        let bytes = move || match lora {
            // What nothing is added to is copied as it is.
            None => Ok(stored.bytes.to_vec()),
            Some(lora) => merged(&device, stored, name, lora, scale)
                .map_err(|error| io::Error::other(error.to_string())),
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

/// `W + s B A`, computed in f32 and rounded once, in the type of W.
fn merged(
    device: &Device,
    stored: Stored<'_>,
    name: &str,
    lora: &Lora,
    scale: f32,
) -> Result<Vec<u8>> {
    let mut values = vec![0f32; stored.shape.iter().product()];
    stored.to_f32(name, &mut values)?;
    // B A = A^T's product with B: the gradient of an input with B as the gradient of the output.
    let mut delta =
        device.scratch((lora.b.rows(), lora.a.cols()), DType::F32, Category::Workspace)?;
    matmul::backward_input(lora.b.view(), lora.a.view(), scale, Output::Write, delta.view_mut())?;
    values.iter_mut().zip(delta.as_slice::<f32>()).for_each(|(value, delta)| *value += delta);
    Ok(match stored.dtype {
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    })
}

#[cfg(test)]
mod tests;
