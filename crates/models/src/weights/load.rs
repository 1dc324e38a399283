//! From a checkpoint to a device: dense weights in f32 or bf16, linear layers quantized on the way or as
//! bitsandbytes 0.50.2 stored them.

use std::collections::BTreeSet;

use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::nf4::{self, NESTED_BLOCK_SIZE, Quantized, Scales, tables};
use engine::tensor::{Shape, Tensor, ViewMut};
use half::bf16;
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::{Linear, Norm, Weight, Weights, allocate};
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// How the linear layers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// As the other weights.
    None,
    /// In 4 bits.
    Nf4 {
        /// The scales are quantized as well.
        double_quant: bool,
    },
}

/// What weights that are not quantized are held in; norms and biases are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Exact.
    F32,
    /// Half the memory.
    Bf16,
}

impl Storage {
    fn dtype(self) -> DType {
        match self {
            Storage::F32 => DType::F32,
            Storage::Bf16 => DType::BF16,
        }
    }
}

/// Puts the weights of `checkpoint` on `device`. On `plan` the checkpoint may be left out: then every linear layer
/// is taken to be held as `quantization` says.
pub fn load(
    device: &Device,
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    quantization: Quantization,
    storage: Storage,
) -> Result<Weights> {
    if let Some(checkpoint) = checkpoint {
        refuse_unknown_tensors(config, checkpoint)?;
        refuse_two_heads(config, checkpoint)?;
    }
    // The widest linear layer passes through a buffer while it is quantized, which is taken once.
    let sizes = config.linears().iter().map(|linear| linear.shape(config));
    let widest = sizes.map(|(rows, cols)| rows * cols).max();
    let mut staging = match quantization {
        Quantization::None => None,
        Quantization::Nf4 { .. } => Some(device.scratch(
            (widest.unwrap_or(1), 1),
            device.activations(),
            Category::Workspace,
        )?),
    };
    let layer = std::cell::Cell::new(0usize);
    let take = |shape: (usize, usize)| -> Result<Tensor> {
        // Vectors are norms and biases, tables are the embeddings and the head.
        let dtype = if shape.1 == 1 { DType::F32 } else { storage.dtype() };
        Ok(device.persistent(shape, dtype, Category::Weights)?)
    };
    let matrix = |linear: Linear, config: &ModelConfig| -> Result<Weight> {
        let name = format!("model.layers.{}.{}.weight", layer.get(), linear.path());
        if linear == Linear::Down {
            layer.set(layer.get() + 1);
        }
        let shape = Shape::from(linear.shape(config));
        if let Some(state) = stored_state(checkpoint, &name, shape)? {
            let double_quant = state.nested_offset.is_some();
            let held = Quantized::new(device, shape, state.blocksize, double_quant)?;
            return Ok(Weight::Nf4(Box::new(held)));
        }
        Ok(match quantization {
            Quantization::None => {
                Weight::Dense(device.persistent(shape, storage.dtype(), Category::Weights)?)
            }
            Quantization::Nf4 { double_quant } => {
                let held = Quantized::new(device, shape, nf4::BLOCK_SIZE, double_quant)?;
                Weight::Nf4(Box::new(held))
            }
        })
    };
    let mut weights = allocate(config, take, matrix)?;
    for (i, layer) in weights.layers.iter_mut().enumerate() {
        for (linear, weight) in Linear::ALL.into_iter().zip(&mut layer.linears) {
            let Some(Weight::Nf4(quantized)) = weight else { continue };
            let name = format!("model.layers.{i}.{}.weight", linear.path());
            fill_quantized(device, checkpoint, &name, quantized, storage, staging.as_mut())?;
        }
    }
    for (name, tensor) in weights.tensors_mut() {
        if let (Some(checkpoint), false) = (checkpoint, device.is_plan()) {
            fill_dense(checkpoint, &name, tensor)?;
        } else if let Some(checkpoint) = checkpoint {
            checkpoint.expect(&name, &shape_in_file(tensor))?;
        }
    }
    Ok(weights)
}

fn shape_in_file(tensor: &Tensor) -> Vec<usize> {
    if tensor.cols() == 1 { vec![tensor.rows()] } else { vec![tensor.rows(), tensor.cols()] }
}

fn fill_dense(checkpoint: &Checkpoint, name: &str, tensor: &mut Tensor) -> Result<()> {
    let stored = checkpoint.expect(name, &shape_in_file(tensor))?;
    put(&stored, name, tensor.view_mut())
}

/// The values of a stored tensor, in the element type of `to`.
fn put(stored: &Stored<'_>, name: &str, mut to: ViewMut<'_>) -> Result<()> {
    match (to.view().dtype(), stored.dtype) {
        (DType::BF16, Dtype::BF16) | (DType::F32, Dtype::F32) => Ok(to.write_bytes(stored.bytes)?),
        (DType::BF16, _) => to.fill(|values: &mut [bf16]| {
            let mut wide = vec![0f32; values.len()];
            stored.to_f32(name, &mut wide)?;
            values.iter_mut().zip(wide).for_each(|(value, wide)| *value = bf16::from_f32(wide));
            Ok(())
        }),
        _ => to.fill(|values| stored.to_f32(name, values)),
    }
}

/// What bitsandbytes stores beside a 4-bit weight, as JSON.
#[derive(Deserialize)]
struct QuantState {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// The quantization state of a weight, if it is stored in 4 bits.
fn stored_state(
    checkpoint: Option<&Checkpoint>,
    name: &str,
    shape: Shape,
) -> Result<Option<QuantState>> {
    let Some(checkpoint) = checkpoint else { return Ok(None) };
    let wrong = |message: String, hint: &str| {
        Err(Error::input(format!("{name} in '{}' {message}", checkpoint.folder().display()), hint))
    };
    let again = "download the checkpoint again";
    let Some(stored) = checkpoint.get(&format!("{name}.quant_state.bitsandbytes__nf4")) else {
        return match checkpoint.get(&format!("{name}.quant_state.bitsandbytes__fp4")) {
            None => Ok(None),
            Some(_) => wrong(
                "is stored as fp4".to_owned(),
                "take a checkpoint in nf4 or bf16; with bf16, model.quantization = \"nf4\" quantizes it on load",
            ),
        };
    };
    let state: QuantState = match serde_json::from_slice(stored.bytes) {
        Ok(state) => state,
        Err(error) => {
            return wrong(
                format!("has a quantization state that is not understood: {error}"),
                again,
            );
        }
    };
    if state.quant_type != "nf4" || state.shape != [shape.rows, shape.cols] {
        return wrong(
            format!(
                "is {} of shape {:?}, config.json asks for {:?}",
                state.quant_type,
                state.shape,
                [shape.rows, shape.cols]
            ),
            again,
        );
    }
    if !state.blocksize.is_power_of_two() || !(32..=4096).contains(&state.blocksize) {
        return wrong(
            format!("has blocks of {}", state.blocksize),
            "bitsandbytes knows powers of two from 32 to 4096",
        );
    }
    if let Some(size) = state.nested_blocksize.filter(|size| *size != NESTED_BLOCK_SIZE) {
        return wrong(format!("has nested blocks of {size}"), "bitsandbytes writes 256");
    }
    Ok(Some(state))
}

fn fill_quantized(
    device: &Device,
    checkpoint: Option<&Checkpoint>,
    name: &str,
    weight: &mut Quantized,
    storage: Storage,
    staging: Option<&mut Tensor>,
) -> Result<()> {
    if let (Some(checkpoint), Some(state)) =
        (checkpoint, stored_state(checkpoint, name, weight.shape)?)
    {
        return if device.is_plan() {
            Ok(())
        } else {
            fill_stored(checkpoint, name, &state, weight)
        };
    }
    let Some(staging) = staging else {
        unreachable!("a weight is quantized here only where staging was taken")
    };
    let mut values = staging.reshaped(weight.shape);
    if let Some(checkpoint) = checkpoint {
        let stored = checkpoint.expect(name, &[weight.shape.rows, weight.shape.cols])?;
        put(&stored, name, values.reborrow())?;
        if storage == Storage::Bf16 && device.kind() == Kind::Cpu {
            // transformers casts to its `dtype` before bitsandbytes quantizes; a GPU's values are bf16 already.
            let values: &mut [f32] = values.reborrow().into_mut_slice();
            values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
        }
    }
    nf4::quantize(values.view(), weight)?;
    Ok(())
}

/// Takes codes and scales as they are stored.
fn fill_stored(
    checkpoint: &Checkpoint,
    name: &str,
    state: &QuantState,
    weight: &mut Quantized,
) -> Result<()> {
    let n = weight.shape.len();
    let blocks = n.div_ceil(weight.block_size);
    let part = |suffix: &str, shape: &[usize], dtype: Dtype| -> Result<Stored<'_>> {
        let stored = checkpoint.expect(&format!("{name}{suffix}"), shape)?;
        if stored.dtype != dtype {
            return Err(Error::input(
                format!(
                    "{name}{suffix} in '{}' holds {:?}, expected {dtype:?}",
                    stored.file.display(),
                    stored.dtype
                ),
                "download the checkpoint again",
            ));
        }
        Ok(stored)
    };
    let table = |suffix: &str, expected: &[f32]| -> Result<()> {
        let mut values = vec![0f32; expected.len()];
        part(suffix, &[expected.len()], Dtype::F32)?.to_f32(name, &mut values)?;
        if values == expected {
            return Ok(());
        }
        Err(Error::input(
            format!(
                "{name}{suffix} in '{}' is not bitsandbytes' table",
                checkpoint.folder().display()
            ),
            "Prospect reads the standard nf4 and dynamic 8-bit tables alone",
        ))
    };
    table(".quant_map", &tables::NF4)?;
    let mut codes = weight.codes.view_mut();
    codes.write_bytes(part("", &[n.div_ceil(2), 1], Dtype::U8)?.bytes)?;
    match &mut weight.scales {
        Scales::Plain { absmax } => {
            put(&part(".absmax", &[blocks], Dtype::F32)?, name, absmax.view_mut())?
        }
        Scales::Double { codes, nested_absmax, offset } => {
            table(".nested_quant_map", tables::dynamic_signed())?;
            codes.view_mut().write_bytes(part(".absmax", &[blocks], Dtype::U8)?.bytes)?;
            let nested = part(".nested_absmax", &[blocks.div_ceil(NESTED_BLOCK_SIZE)], Dtype::F32)?;
            put(&nested, name, nested_absmax.view_mut())?;
            offset.write(&[state.nested_offset.unwrap_or(0.0)])?;
        }
    }
    Ok(())
}

/// Where config.json ties the head to the embeddings, a head of its own would be left out.
fn refuse_two_heads(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<()> {
    let (head, table) =
        (checkpoint.get("lm_head.weight"), checkpoint.get("model.embed_tokens.weight"));
    match (head, table) {
        (Some(head), Some(table)) if config.tie_word_embeddings && head.bytes != table.bytes => {
            Err(Error::input(
                format!(
                    "'{}' holds lm_head.weight with other values than model.embed_tokens.weight, which config.json ties",
                    checkpoint.folder().display()
                ),
                "set tie_word_embeddings to false in config.json if the head was trained on its own",
            ))
        }
        _ => Ok(()),
    }
}

/// A tensor of the decoder that would be left out changes what the model computes, so it is refused.
fn refuse_unknown_tensors(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<()> {
    let mut known: BTreeSet<String> =
        ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
            .map(str::to_owned)
            .into();
    for layer in 0..config.num_hidden_layers {
        let mut add =
            |path: &str, kind: &str| known.insert(format!("model.layers.{layer}.{path}.{kind}"));
        for linear in config.linears() {
            add(linear.path(), "weight");
            if linear.has_bias(config) {
                add(linear.path(), "bias");
            }
        }
        for path in Norm::ALL.into_iter().filter_map(|norm| norm.path(config.norms)) {
            add(path, "weight");
        }
        if config.qk_norm_sizes().is_some() {
            add("self_attn.q_norm", "weight");
            add("self_attn.k_norm", "weight");
        }
    }
    let belongs = |name: &str| {
        // Old checkpoints carry the rotary frequencies, which config.json says too.
        name.ends_with("rotary_emb.inv_freq")
            || known.contains(name)
            || name
                .split_once(".weight.")
                .is_some_and(|(stem, _)| known.contains(&format!("{stem}.weight")))
    };
    match checkpoint.names().find(|name| !belongs(name)) {
        None => Ok(()),
        Some(name) => Err(Error::input(
            format!(
                "'{}' holds {name}, which a {} model of this config.json does not have",
                checkpoint.folder().display(),
                config.model_type
            ),
            "config.json and the safetensors belong to different models",
        )),
    }
}
