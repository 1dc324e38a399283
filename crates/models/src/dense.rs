//! The tensors of a checkpoint as a dense model has them: what is stored in 16 or 32 bits as it is, what bitsandbytes
//! quantized dequantized, in the type of the embeddings, which are never quantized.

use std::collections::BTreeMap;
use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use engine::tensor::Shape;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::weights;

/// One tensor.
pub(crate) struct Tensor<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// F32, BF16 or F16.
    pub(crate) dtype: Dtype,
    /// Rows, columns, ...
    pub(crate) shape: Vec<usize>,
    from: From<'a>,
}

#[derive(Clone, Copy)]
enum From<'a> {
    Dense(Stored<'a>),
    Quantized(&'a Checkpoint, Shape),
}

/// All tensors, in the order of their names.
pub(crate) fn tensors<'a>(
    config: &ModelConfig,
    checkpoint: &'a Checkpoint,
) -> Result<Vec<Tensor<'a>>> {
    let mut quantized = BTreeMap::new();
    for layer in 0..config.num_hidden_layers {
        for &linear in config.linears() {
            let name = format!("model.layers.{layer}.{}.weight", linear.path());
            let shape = Shape::from(linear.shape(config));
            // What is wrong with a weight is said before the first is used.
            let plan = Device::plan_for(Kind::Cpu);
            if weights::read_quantized(&plan, checkpoint, &name, shape)?.is_some() {
                quantized.insert(name, shape);
            } else {
                checkpoint.expect(&name, &[shape.rows, shape.cols])?;
            }
        }
    }
    let part_of_quantized = |name: &str| {
        let module = name.split_once(".weight.").map(|(module, _)| module);
        let module = module.or_else(|| name.strip_suffix(".SCB"));
        let module = module.or_else(|| name.strip_suffix(".weight_format"));
        module.is_some_and(|module| quantized.contains_key(&format!("{module}.weight")))
    };
    let embeddings = checkpoint.get("model.embed_tokens.weight").map(|stored| stored.dtype);
    let mut all = Vec::new();
    for name in checkpoint.names().filter(|name| !part_of_quantized(name)) {
        let Some(stored) = checkpoint.get(name) else { continue };
        let (dtype, shape, from) = match quantized.get(name) {
            None => (stored.dtype, stored.shape.to_vec(), From::Dense(stored)),
            Some(shape) => (
                embeddings.unwrap_or(Dtype::F32),
                vec![shape.rows, shape.cols],
                From::Quantized(checkpoint, *shape),
            ),
        };
        if !matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            return Err(Error::input(
                format!("{name} in '{}' holds {dtype:?}", stored.file.display()),
                "weights are read from F32, BF16 and F16",
            ));
        }
        all.push(Tensor { name, dtype, shape, from });
    }
    Ok(all)
}

impl<'a> Tensor<'a> {
    /// The same under another name.
    pub(crate) fn copy_called(&self, name: &'a str) -> Tensor<'a> {
        Tensor { name, dtype: self.dtype, shape: self.shape.clone(), from: self.from }
    }

    /// What is stored, where it is stored dense.
    pub(crate) fn stored(&self) -> Option<Stored<'a>> {
        match self.from {
            From::Dense(stored) => Some(stored),
            From::Quantized(..) => None,
        }
    }

    /// The values, exactly.
    pub(crate) fn values(&self) -> Result<Vec<f32>> {
        match &self.from {
            From::Dense(stored) => {
                let mut values = vec![0f32; stored.shape.iter().product()];
                let width = (stored.bytes.len() / values.len().max(1)).max(1);
                let parts = stored.bytes.par_chunks(width * PART);
                values.par_chunks_mut(PART).zip(parts).try_for_each(|(values, bytes)| {
                    Stored { bytes, ..*stored }.to_f32(self.name, values)
                })?;
                Ok(values)
            }
            From::Quantized(checkpoint, shape) => dequantized(checkpoint, self.name, *shape),
        }
    }

    /// The values in the tensor's type, little-endian.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        match &self.from {
            From::Dense(stored) => Ok(stored.bytes.to_vec()),
            From::Quantized(..) => Ok(self.encode(&self.values()?)),
        }
    }

    /// `values` in the tensor's type, rounded once.
    pub(crate) fn encode(&self, values: &[f32]) -> Vec<u8> {
        match self.dtype {
            Dtype::BF16 => narrowed(values, |value| bf16::from_f32(value).to_le_bytes()),
            Dtype::F16 => narrowed(values, |value| f16::from_f32(value).to_le_bytes()),
            _ => narrowed(values, f32::to_le_bytes),
        }
    }
}

/// Elements that are converted by one task.
const PART: usize = 1 << 16;

fn narrowed<const N: usize>(values: &[f32], narrow: impl Fn(f32) -> [u8; N] + Sync) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * N];
    let parts = bytes.par_chunks_mut(PART * N).zip(values.par_chunks(PART));
    parts.for_each(|(bytes, values)| {
        for (bytes, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
            *bytes = narrow(*value);
        }
    });
    bytes
}

/// The values of a weight that is stored quantized, on a device just large enough for it.
fn dequantized(checkpoint: &Checkpoint, name: &str, shape: Shape) -> Result<Vec<f32>> {
    let plan = Device::plan_for(Kind::Cpu);
    if let Some(weight) = weights::read_quantized(&plan, checkpoint, name, shape)? {
        weight.visit(&plan)?;
    }
    let device = Device::cpu(plan.peak_bytes())?;
    match weights::read_quantized(&device, checkpoint, name, shape)? {
        Some(weight) => Ok(weight.visit(&device)?.view().to_vec()?),
        None => Err(Error::input(
            format!("{name} in '{}' changed while it was read", checkpoint.folder().display()),
            "let nothing write into the model's folder meanwhile",
        )),
    }
}

/// Takes `quantization_config` out of the config.json of a folder whose weights are dense now.
pub(crate) fn forget_quantization(folder: &Path) -> Result<()> {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&files::read_to_string(&path)?)
        .map_err(|error| {
            let message = format!("{} is not JSON: {error}", path.display());
            Error::input(message, "download it again")
        })?;
    if let Some(fields) = config.as_object_mut()
        && fields.shift_remove("quantization_config").is_some()
    {
        files::write_json(&path, &config)?;
    }
    Ok(())
}
