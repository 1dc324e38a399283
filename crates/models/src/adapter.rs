//! Adapters on disk, as PEFT 0.21 writes and reads them: `adapter_config.json` ([`config`]) and
//! `adapter_model.safetensors`.
//!
//! An adapter that took a part of the base's weights into its matrices is written as the difference to its start
//! (PEFT's `subtract_mutated_init`): `[A; A_0]` and `[B, -B_0]`, of twice the rank and the same scale, so that it
//! belongs to the base as it is.

pub mod config;

use std::path::Path;

use engine::device::Device;
use engine::ops::nf4::CodeBook;
use engine::tensor::Tensor;

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::decoder::Model;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::lora::Adapter;
use crate::lora::start::Start;
use crate::weights::{Linear, Weight};

pub use config::{config_json, read_config, read_config_for};

/// The file of an adapter's matrices.
pub const WEIGHTS: &str = "adapter_model.safetensors";
/// The file that says what they are.
pub const CONFIG: &str = "adapter_config.json";

/// The shape of a trained tensor in a file: a matrix of rank 1 is a matrix, though of one column.
pub fn shape(name: &str, tensor: &Tensor) -> Vec<usize> {
    match tensor.cols() {
        1 if !is_matrix(name) => vec![tensor.rows()],
        _ => vec![tensor.rows(), tensor.cols()],
    }
}

fn is_matrix(name: &str) -> bool {
    name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")
}

/// The names a tensor may have: PEFT's files have `lora_A.weight`, a state dict has `lora_A.default.weight`; a decoder
/// within a model that reads images too was `language_model.model` before transformers 4.52.
fn names(name: &str) -> [String; 4] {
    let in_state_dict = |name: &str| match name.strip_suffix(".weight") {
        Some(before) if is_matrix(name) => format!("{before}.default.weight"),
        Some(before) => format!("{before}.modules_to_save.default.weight"),
        None => format!("{name}.default.weight"),
    };
    let older = name.replace(".model.language_model.", ".language_model.model.");
    [in_state_dict(name), in_state_dict(&older), older, name.to_owned()]
}

/// Reads an adapter that is to be computed with beside `model`.
pub fn load(model: &Model, folder: &Path) -> Result<Adapter> {
    let mut adapter = read(model.device(), &model.config, folder)?;
    if matches!(adapter.config.start, Start::Loftq { .. }) {
        for (index, (layer, matrices)) in
            model.weights.layers.iter().zip(&adapter.layers).enumerate()
        {
            for (linear, _) in Linear::ALL.into_iter().zip(matrices).filter(|(_, m)| m.is_some()) {
                if !matches!(layer.weight(linear), Weight::FourBit(held) if held.code_book == CodeBook::Nf4)
                {
                    return Err(Error::input(
                        format!(
                            "the adapter in '{}' makes up for what nf4 lost of its base (LoftQ), and model.layers.{index}.{} is not held in nf4",
                            folder.display(),
                            linear.path()
                        ),
                        "write model.quantization = \"nf4\", or merge the adapter first: prospect merge",
                    ));
                }
            }
        }
    }
    adapter.measure(&model.weights)?;
    Ok(adapter)
}

/// Reads an adapter into zero matrices of its shape, to be written elsewhere: [`load`] makes one that computes.
pub fn read(device: &Device, config: &ModelConfig, folder: &Path) -> Result<Adapter> {
    let lora = read_config_for(config, folder)?;
    let mut adapter = Adapter::zeros(device, config, &lora)?;
    let checkpoint = Checkpoint::open_file(&folder.join(WEIGHTS))?;
    let mut found = 0;
    for (name, tensor) in adapter.tensors_mut() {
        let shape = shape(&name, tensor);
        let stored = |name: &String| checkpoint.get(name).is_some();
        let name = names(&name).into_iter().find(stored).unwrap_or(name);
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

/// A trained tensor as it is written; `start` is what a tensor was of which the base lost a part.
pub fn entry<'a>(name: &str, tensor: &'a Tensor, start: Option<&'a Tensor>) -> Entry<'a> {
    let shape = shape(name, tensor);
    let Some(start) = start.filter(|_| is_matrix(name)) else {
        return Entry { shape, ..Entry::f32(name.to_owned(), tensor) };
    };
    let below = name.ends_with(".lora_A.weight");
    let shape = if below { vec![2 * shape[0], shape[1]] } else { vec![shape[0], 2 * shape[1]] };
    let bytes = move || {
        let (now, then) = (tensor.to_vec::<f32>(), start.to_vec::<f32>());
        let (now, then) =
            (now.map_err(std::io::Error::other)?, then.map_err(std::io::Error::other)?);
        let joined: Vec<f32> = match below {
            true => now.into_iter().chain(then).collect(),
            false => {
                let rows = now.chunks(tensor.cols()).zip(then.chunks(tensor.cols()));
                rows.flat_map(|(now, then)| now.iter().copied().chain(then.iter().map(|b| -b)))
                    .collect()
            }
        };
        Ok(joined.into_iter().flat_map(f32::to_le_bytes).collect())
    };
    Entry { name: name.to_owned(), dtype: "F32", shape, bytes: Box::new(bytes) }
}

/// The values of a tensor that [`entry`] wrote together with its start: those of now, and those of the start where
/// it has some. `shape` is the tensor's own.
pub fn parts(name: &str, shape: &[usize], values: Vec<f32>) -> (Vec<f32>, Vec<f32>) {
    if !is_matrix(name) {
        return (values, Vec::new());
    }
    if name.ends_with(".lora_A.weight") {
        let mut now = values;
        let then = now.split_off(now.len() / 2);
        return (now, then);
    }
    let rows = values.chunks(2 * shape[1]).map(|row| row.split_at(shape[1]));
    let (now, then): (Vec<&[f32]>, Vec<&[f32]>) = rows.unzip();
    (now.concat(), then.concat().into_iter().map(|b| -b).collect())
}

/// Writes an adapter that PEFT loads. `base` is what the adapter was trained on.
pub fn write(adapter: &mut Adapter, base: &str, folder: &Path) -> Result<()> {
    let config = config_json(adapter, base);
    let entries: Vec<Entry<'_>> = adapter
        .tensors_mut()
        .into_iter()
        .map(|(name, tensor)| entry(&name, tensor, None))
        .collect();
    export::write_safetensors(&folder.join(WEIGHTS), &entries)?;
    data::files::write_json(&folder.join(CONFIG), &config)?;
    Ok(())
}

#[cfg(test)]
mod tests;
