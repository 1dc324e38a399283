//! From a checkpoint to a device: dense weights in f32 or bf16, linear layers quantized on the way or as
//! bitsandbytes stored them. What is stored quantized is taken as it is, and then nothing is quantized besides: layers that
//! were left in 16 bits were left so on purpose.

use std::collections::BTreeSet;

use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::int8;
use engine::ops::nf4::{self, CodeBook, Quantized};
use engine::tensor::{Shape, Tensor, ViewMut};
use half::bf16;
use safetensors::tensor::Dtype;

use super::{Linear, Norm, Weight, Weights, allocate, bitsandbytes, foreign};
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// How the linear layers are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantization {
    /// As the other weights.
    None,
    /// In 4 bits, NormalFloat.
    Nf4 {
        /// The scales are quantized as well.
        double_quant: bool,
    },
    /// In 4 bits, a float.
    Fp4 {
        /// The scales are quantized as well.
        double_quant: bool,
    },
    /// In 8 bits.
    Int8,
}

impl Quantization {
    /// As bitsandbytes and recipes name it.
    pub fn name(self) -> &'static str {
        match self {
            Quantization::None => "none",
            Quantization::Nf4 { .. } => "nf4",
            Quantization::Fp4 { .. } => "fp4",
            Quantization::Int8 => "int8",
        }
    }

    /// What is left to quantize of a checkpoint: nothing where it is quantized.
    fn left_for(self, checkpoint: &Checkpoint) -> Result<Quantization> {
        match bitsandbytes::stored_form(checkpoint) {
            None => Ok(self),
            Some(form) if self == Quantization::None || self.name() == form => {
                Ok(Quantization::None)
            }
            Some(form) => Err(Error::input(
                format!(
                    "model.quantization = \"{}\", but '{}' is stored as {form}",
                    self.name(),
                    checkpoint.folder().display()
                ),
                "write quantization = \"none\": what is stored quantized is taken as it is",
            )),
        }
    }

    /// Room for a linear layer's weight.
    fn room(self, device: &Device, shape: Shape, storage: Storage) -> Result<Weight> {
        let four_bit = |book, double_quant| -> Result<Weight> {
            let held = Quantized::new(device, shape, book, nf4::BLOCK_SIZE, double_quant)?;
            Ok(Weight::FourBit(Box::new(held)))
        };
        match self {
            Quantization::None => {
                Ok(Weight::Dense(device.persistent(shape, storage.dtype(), Category::Weights)?))
            }
            Quantization::Nf4 { double_quant } => four_bit(CodeBook::Nf4, double_quant),
            Quantization::Fp4 { double_quant } => four_bit(CodeBook::Fp4, double_quant),
            Quantization::Int8 => Ok(Weight::Int8(Box::new(int8::Quantized::new(device, shape)?))),
        }
    }
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
    load_beside(device, device, config, checkpoint, quantization, storage)
}

/// As [`load`], with the embedding table on a device of its own: the memory beside `device`, for a table that is
/// neither trained nor tied to the head.
pub fn load_beside(
    device: &Device,
    table: &Device,
    config: &ModelConfig,
    checkpoint: Option<&Checkpoint>,
    quantization: Quantization,
    storage: Storage,
) -> Result<Weights> {
    let mut quantization = quantization;
    if let Some(checkpoint) = checkpoint {
        refuse_unknown_tensors(config, checkpoint)?;
        refuse_two_heads(config, checkpoint)?;
        foreign::refuse_quantized_tables(checkpoint)?;
        quantization = quantization.left_for(checkpoint)?;
    }
    // The widest linear layer passes through a buffer while it is quantized, which is taken once.
    let sizes = config.linears().iter().map(|linear| linear.shape(config));
    let widest = sizes.map(|(rows, cols)| rows * cols).max();
    let mut staging = match quantization {
        Quantization::None => None,
        _ => Some(device.scratch(
            (widest.unwrap_or(1), 1),
            device.activations(),
            Category::Workspace,
        )?),
    };
    let layer = std::cell::Cell::new(0usize);
    let first = std::cell::Cell::new(true);
    let take = |shape: (usize, usize)| -> Result<Tensor> {
        // The embedding table is the first that is taken.
        let device = if first.replace(false) { table } else { device };
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
        if let Some(checkpoint) = checkpoint
            && let Some(weight) = bitsandbytes::read(device, checkpoint, &name, shape)?
        {
            return Ok(weight);
        }
        quantization.room(device, shape, storage)
    };
    let mut weights = allocate(config, take, matrix)?;
    if let Some(staging) = &mut staging {
        for (i, layer) in weights.layers.iter_mut().enumerate() {
            for (linear, weight) in Linear::ALL.into_iter().zip(&mut layer.linears) {
                let Some(weight) = weight else { continue };
                let name = format!("model.layers.{i}.{}.weight", linear.path());
                let values = staging.reshaped(linear.shape(config));
                quantize(checkpoint, &name, weight, storage, values)?;
            }
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
pub(super) fn put(stored: &Stored<'_>, name: &str, mut to: ViewMut<'_>) -> Result<()> {
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

/// Quantizes a weight that the checkpoint has dense. `values` is room for all of it.
fn quantize(
    checkpoint: Option<&Checkpoint>,
    name: &str,
    weight: &mut Weight,
    storage: Storage,
    mut values: ViewMut<'_>,
) -> Result<()> {
    if let Some(checkpoint) = checkpoint {
        let Shape { rows, cols } = values.shape();
        let stored = checkpoint.expect(name, &[rows, cols])?;
        put(&stored, name, values.reborrow())?;
        if storage == Storage::Bf16 && values.device().kind() == Kind::Cpu {
            // transformers casts to its `dtype` before bitsandbytes quantizes; a GPU's values are bf16 already.
            let values: &mut [f32] = values.reborrow().into_mut_slice();
            values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
        }
    }
    match weight {
        Weight::Dense(_) => {}
        Weight::FourBit(held) => nf4::quantize(values.view(), held)?,
        Weight::Int8(held) => {
            int8::quantize(values.view(), held)?;
            let scales: Vec<f32> = held.scb.to_vec()?;
            if let Some(row) = scales.iter().position(|scale| !scale.is_finite()) {
                return Err(Error::input(
                    format!("row {row} of {name} has a value beyond f16, through which int8 goes"),
                    "write model.quantization = \"nf4\", which has no such limit",
                ));
            }
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
            || [".SCB", ".weight_format"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .any(|stem| known.contains(&format!("{stem}.weight")))
    };
    foreign::refuse(checkpoint)?;
    // A model that reads images too has tensors beside its decoder's.
    let beside = checkpoint.beside().filter(|_| !config.multimodal);
    match checkpoint.names().filter(|name| !belongs(name)).chain(beside).next() {
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
