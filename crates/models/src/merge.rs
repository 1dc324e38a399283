//! Merging an adapter into its base, tensor by tensor, so that a 7B model passes through a laptop.
//!
//! * LoRA: `W + s B A`; DoRA: `(m / norm) (W + s B A)` row by row; modules that were trained whole take the base's place
//! * a base in 4 bits is merged into what its 4 bits stand for, in the element type it was quantized from, and so is an
//!   adapter that makes up for what 4 bits lose (LoftQ), whatever the base is stored in
//! * an embedding or head of its own unties a tied model, and config.json says so

use std::io;
use std::path::Path;

use data::files;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::{Category, aligned};
use engine::ops::matmul::{self, Output};
use engine::ops::nf4::{self, Quantized};
use engine::tensor::Shape;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::Value;

use crate::adapter;
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::lora::saved::Module;
use crate::lora::start::Start;
use crate::lora::{Adapter, Lora};
use crate::weights::{self, Linear};

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
    // A base that lacks what the adapter adds to, or has it in another shape, is another model.
    let shapes = Device::plan_for(Kind::Cpu);
    for layer in 0..config.num_hidden_layers {
        for linear in Linear::ALL {
            let (rows, cols) = linear.shape(&config);
            let name = format!("model.layers.{layer}.{}.weight", linear.path());
            let held = weights::stored_quantized(&shapes, &checkpoint, &name, (rows, cols).into())?;
            if held.is_none() {
                checkpoint.expect(&name, &[rows, cols])?;
            }
        }
    }
    // The adapter's size is found as a run's is: by reading it on `plan` first.
    let plan = Device::plan_for(Kind::Cpu);
    let _planned = adapter::read(&plan, &config, adapter_folder)?;
    let device = Device::cpu(plan.peak_bytes() + workspace_bytes(&config))?;
    let adapter = adapter::read(&device, &config, adapter_folder)?;
    let merging = Merging { device, checkpoint: &checkpoint, adapter: &adapter };
    std::fs::create_dir_all(out).map_err(|error| {
        Error::machine(
            format!("cannot create '{}': {error}", out.display()),
            "choose another folder",
        )
    })?;
    let mut entries = Vec::new();
    for name in checkpoint.names() {
        entries.extend(merging.entry(name)?);
    }
    // A tied model has one matrix for both; trained apart, they are two.
    let unties = |module| config.tie_word_embeddings && adapter.saved.contains_key(&module);
    let untied = unties(Module::EmbedTokens) || unties(Module::LmHead);
    if untied && checkpoint.get("lm_head.weight").is_none() {
        let table = checkpoint
            .expect("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
        entries.push(merging.dense("lm_head.weight", table)?);
    }
    export::write_model(out, &entries, max_shard_bytes)?;
    copy_companions(base, out)?;
    change_config(out, untied)
}

/// Has the merged model's config.json say what the merged model is.
fn change_config(out: &Path, untied: bool) -> Result<()> {
    let path = out.join("config.json");
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&files::read_to_string(&path)?) else {
        return Ok(()); // `ModelConfig::load` has read it: it is an object
    };
    let quantized = fields.remove("quantization_config").is_some();
    if untied {
        fields.insert("tie_word_embeddings".to_owned(), Value::Bool(false));
    }
    if quantized || untied {
        files::write_json(&path, &Value::Object(fields))?;
    }
    Ok(())
}

/// What a merge is made of.
struct Merging<'a> {
    device: Device,
    checkpoint: &'a Checkpoint,
    adapter: &'a Adapter,
}

impl<'a> Merging<'a> {
    /// The merged tensor of a name in the checkpoint; none for what belongs to a weight in 4 bits.
    fn entry(&'a self, name: &str) -> Result<Option<Entry<'a>>> {
        let parts = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];
        let of_quantized = name.split_once(".weight.").is_some_and(|(_, part)| {
            part.starts_with("quant_state.") || parts.iter().any(|p| p[1..] == *part)
        });
        if of_quantized {
            return Ok(None);
        }
        let Some(stored) = self.checkpoint.get(name) else { return Ok(None) };
        match self.place(name) {
            Some((layer, linear)) => self.linear(name, stored, layer, linear).map(Some),
            None => self.dense(name, stored).map(Some),
        }
    }

    /// The block and linear layer of a weight.
    fn place(&self, name: &str) -> Option<(usize, Linear)> {
        let rest = name.strip_prefix("model.layers.")?.strip_suffix(".weight")?;
        let (layer, path) = rest.split_once('.')?;
        let linear = Linear::ALL.into_iter().find(|linear| linear.path() == path)?;
        let layer = layer.parse::<usize>().ok()?;
        (layer < self.adapter.layers.len()).then_some((layer, linear))
    }

    /// A tensor that takes no matrices: the base's, or the adapter's own.
    fn dense(&'a self, name: &str, stored: Stored<'a>) -> Result<Entry<'a>> {
        let dtype = dtype(name, &stored, stored.dtype)?;
        let own = self.adapter.saved.iter().find(|(module, _)| {
            name.strip_suffix(".weight").is_some_and(|path| module.path() == path)
        });
        let bytes: Box<dyn Fn() -> io::Result<Vec<u8>>> = match own {
            // What nothing is added to is copied as it is.
            None => Box::new(move || Ok(stored.bytes.to_vec())),
            Some((_, own)) => Box::new(move || {
                Ok(narrowed(own.to_vec().map_err(io::Error::other)?, stored.dtype))
            }),
        };
        Ok(Entry { name: name.to_owned(), dtype, shape: stored.shape.to_vec(), bytes })
    }

    fn linear(
        &'a self,
        name: &str,
        stored: Stored<'a>,
        layer: usize,
        linear: Linear,
    ) -> Result<Entry<'a>> {
        let lora = self.adapter.layers[layer][linear as usize].as_ref();
        let quantized = stored.dtype == Dtype::U8;
        // What was quantized goes back to the type that the other weights have.
        let wide = match self.checkpoint.get("model.norm.weight") {
            Some(norm) if quantized => norm.dtype,
            _ => stored.dtype,
        };
        let dtype = dtype(name, &stored, wide)?;
        let shape = match lora {
            Some(lora) => Shape { rows: lora.b.rows(), cols: lora.a.cols() },
            None if quantized => {
                let (rows, cols) = linear.shape(&ModelConfig::load(self.checkpoint.folder())?);
                Shape { rows, cols }
            }
            None => Shape { rows: stored.shape[0], cols: stored.shape[1] },
        };
        let full = name.to_owned();
        let start = self.adapter.config.start;
        let bytes: Box<dyn Fn() -> io::Result<Vec<u8>>> = match lora {
            None if !quantized => Box::new(move || Ok(stored.bytes.to_vec())),
            _ => Box::new(move || {
                let merged = || -> Result<Vec<u8>> {
                    let mut values = vec![0f32; shape.len()];
                    if quantized {
                        let held =
                            weights::stored_quantized(&self.device, self.checkpoint, &full, shape)?;
                        if let Some(held) = held {
                            self.dequantize(&held, &mut values)?;
                        }
                    } else {
                        stored.to_f32(&full, &mut values)?;
                    }
                    if let (Start::Loftq { double_quant }, false, Some(_)) =
                        (start, quantized, lora)
                    {
                        self.quantize_and_back(&mut values, shape, double_quant)?;
                    }
                    if let Some(lora) = lora {
                        self.add(lora, &mut values)?;
                    }
                    Ok(narrowed(values, wide))
                };
                merged().map_err(|error| io::Error::other(error.to_string()))
            }),
        };
        let shape = vec![shape.rows, shape.cols];
        Ok(Entry { name: name.to_owned(), dtype, shape, bytes })
    }

    fn dequantize(&self, held: &Quantized, values: &mut [f32]) -> Result<()> {
        let mut wide = self.device.scratch(held.shape, DType::F32, Category::Workspace)?;
        nf4::dequantize(held, wide.view_mut())?;
        values.copy_from_slice(wide.as_slice());
        Ok(())
    }

    /// What 4 bits make of the values.
    fn quantize_and_back(
        &self,
        values: &mut [f32],
        shape: Shape,
        double_quant: bool,
    ) -> Result<()> {
        let mut held = Quantized::new(&self.device, shape, nf4::BLOCK_SIZE, double_quant)?;
        {
            let mut wide = self.device.scratch(shape, DType::F32, Category::Workspace)?;
            wide.write(values)?;
            nf4::quantize(wide.view(), &mut held)?;
        }
        self.dequantize(&held, values)
    }

    /// `W + s B A`, computed in f32, and DoRA's scale of each row.
    fn add(&self, lora: &Lora, values: &mut [f32]) -> Result<()> {
        // B A = A^T's product with B: the gradient of an input with B as the gradient of the output.
        let shape = (lora.b.rows(), lora.a.cols());
        let mut delta = self.device.scratch(shape, DType::F32, Category::Workspace)?;
        let (a, b) = (lora.a.view(), lora.b.view());
        matmul::backward_input(b, a, lora.scale, Output::Write, delta.view_mut())?;
        values.iter_mut().zip(delta.as_slice::<f32>()).for_each(|(value, delta)| *value += delta);
        let Some(dora) = &lora.dora else { return Ok(()) };
        let rows = values.chunks_mut(shape.1).zip(dora.magnitude.as_slice::<f32>());
        for (row, magnitude) in rows {
            let norm = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() as f32;
            row.iter_mut().for_each(|w| *w *= magnitude / norm);
        }
        Ok(())
    }
}

/// The name of a type that weights are written in.
fn dtype(name: &str, stored: &Stored<'_>, dtype: Dtype) -> Result<&'static str> {
    match dtype {
        Dtype::F32 => Ok("F32"),
        Dtype::BF16 => Ok("BF16"),
        Dtype::F16 => Ok("F16"),
        other => Err(Error::input(
            format!("{name} in '{}' holds {other:?}", stored.file.display()),
            "weights are read from F32, BF16 and F16, and from what bitsandbytes stores in 4 bits",
        )),
    }
}

/// Rounded once, to the type of the base's tensor.
fn narrowed(values: Vec<f32>, dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
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

/// The widest `B A`, and beside it a weight in 4 bits.
fn workspace_bytes(config: &ModelConfig) -> usize {
    let widest = Linear::ALL.iter().map(|linear| linear.shape(config)).max_by_key(|(r, c)| r * c);
    let widest = widest.map_or(0, |(rows, cols)| rows * cols);
    aligned(4 * widest) + aligned(widest) + (1 << 16)
}

#[cfg(test)]
mod tests;
