//! A model folder to one GGUF file, with an adapter merged in on the way where one is given.
//!
//! Vectors and norms stay f32, as llama.cpp asks. A head, or an embedding table that serves as one, is Q8_0 where the
//! other matrices are Q4_0; rows that are no whole blocks of 32 are F16.

use std::cell::RefCell;
use std::io::{self, Write};
use std::path::Path;

use data::Tokenizer;
use rayon::prelude::*;

use super::architecture::{self, Architecture, Rows};
use super::format::{TensorType, Value};
use super::read::File;
use super::write::{self, Entry};
use super::{quantize, vocabulary};
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::ModelConfig;
use crate::dense;
use crate::error::{Error, Result};
use crate::merge::Merging;

/// Elements that are converted at a time.
const PIECE: usize = 1 << 22;

/// What was written.
pub struct Exported {
    /// Tensors in the file.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// What the user should know about it, a sentence each.
    pub notes: Vec<String>,
}

/// Writes the model of `base`, with the adapter of `adapter` merged in, to `out`.
pub fn export(
    base: &Path,
    adapter: Option<&Path>,
    out: &Path,
    kind: TensorType,
) -> Result<Exported> {
    let mut config = ModelConfig::load(base)?;
    let it = Architecture::of(&config)?;
    let tokenizer = Tokenizer::load(base)?;
    let checkpoint = Checkpoint::open(base)?;
    let mut keys = vec![
        general("architecture", it.name),
        general("type", "model"),
        general("name", &name_of(base)),
        ("general.file_type".to_owned(), Value::U32(file_type(kind))),
    ];
    if kind.block().0 > 1 {
        keys.push(("general.quantization_version".to_owned(), Value::U32(2)));
    }
    keys.extend(it.keys(&config));
    keys.extend(vocabulary::keys(&tokenizer, &config)?);
    let merging = Merging::open(&config, adapter)?;
    let mut tensors = dense::tensors(&config, &checkpoint)?;
    merging.untie(&mut config, &mut tensors);
    let mut notes = Vec::new();
    let failed = RefCell::new(None);
    let mut entries = Vec::new();
    for tensor in &tensors {
        entries.extend(entry(it, &config, &merging, tensor, kind, &failed, &mut notes)?);
    }
    for (name, factors) in architecture::rope_factors(&config) {
        entries.push(Entry {
            name: name.to_owned(),
            shape: vec![factors.len()],
            kind: TensorType::F32,
            bytes: Box::new(move |writer| {
                factors.iter().try_for_each(|factor| writer.write_all(&factor.to_le_bytes()))
            }),
        });
        if name == "rope_factors_long.weight" {
            notes.push(
                "llama.cpp takes the long divisors of LongRoPE wherever its context is longer than the original one, \
                 transformers where the text is"
                    .to_owned(),
            );
        }
    }
    if config.multimodal {
        notes.push(
            "the file holds the text model: what reads images is a file of its own in llama.cpp"
                .to_owned(),
        );
    }
    let positions = it.exact_positions(&config);
    if positions < config.max_position_embeddings {
        notes.push(format!(
            "llama.cpp has no sliding window for {}: the context is {positions} positions, up to which it computes the same",
            it.name
        ));
    }
    // A tensor that cannot be written is no failure of the disk.
    write::write(out, &keys, &entries).map_err(|error| failed.take().unwrap_or(error))?;
    written(out, notes)
}

/// Reads back what was written: its header, and that all tensors are within it.
pub(super) fn written(out: &Path, notes: Vec<String>) -> Result<Exported> {
    let file = File::open(out)?;
    let tensors = file.tensors().count();
    let bytes = std::fs::metadata(out).map_or(0, |metadata| metadata.len());
    Ok(Exported { tensors, bytes, notes })
}

pub(super) fn general(key: &str, value: &str) -> (String, Value) {
    (format!("general.{key}"), Value::String(value.to_owned()))
}

/// `general.file_type`: what most of the matrices are.
fn file_type(kind: TensorType) -> u32 {
    match kind {
        TensorType::F32 => 0,
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q8_0 => 7,
        TensorType::Bf16 => 32,
    }
}

/// The last part of a path; the repository of a snapshot in the hub's cache, whose last part is a commit.
pub(super) fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mut parts = folder.components().rev().filter_map(|part| part.as_os_str().to_str());
    let last = parts.next().unwrap_or("model");
    if parts.next() == Some("snapshots")
        && let Some(repository) = parts.next()
    {
        return repository.rsplit("--").next().unwrap_or(repository).to_owned();
    }
    last.to_owned()
}

fn entry<'a>(
    it: &Architecture,
    config: &'a ModelConfig,
    merging: &'a Merging,
    tensor: &'a dense::Tensor<'a>,
    kind: TensorType,
    failed: &'a RefCell<Option<Error>>,
    notes: &mut Vec<String>,
) -> Result<Option<Entry<'a>>> {
    let name = tensor.name;
    // What config.json says as well: the rotary frequencies, and a head that is the embedding table.
    if name.ends_with("rotary_emb.inv_freq")
        || (name == "lm_head.weight" && config.tie_word_embeddings)
    {
        return Ok(None);
    }
    let Some(known) = it.tensor(name) else {
        return Err(Error::input(
            format!("the model holds {name}, for which GGUF has no name"),
            "config.json and the safetensors belong to different models",
        ));
    };
    let (rows, cols) = match *tensor.shape {
        [rows] => (rows, 1),
        [rows, cols] => (rows, cols),
        _ => {
            return Err(Error::input(
                format!("{name} has shape {:?}", tensor.shape),
                "a model has vectors and matrices; download it again",
            ));
        }
    };
    let order = it.rows(config, name);
    if let Rows::Interleaved(head) = order
        && !rows.is_multiple_of(head)
    {
        return Err(Error::input(
            format!("{name} has {rows} rows, which are no heads of {head}"),
            "config.json and the safetensors belong to different models",
        ));
    }
    let head =
        known == "output.weight" || (known == "token_embd.weight" && config.tie_word_embeddings);
    let kind = match kind {
        _ if cols == 1 && tensor.shape.len() == 1 => TensorType::F32,
        TensorType::Q4_0 if head && TensorType::Q8_0.holds_rows_of(cols) => TensorType::Q8_0,
        kind if !kind.holds_rows_of(cols) => {
            notes.push(format!("{known} is F16: its rows of {cols} are no whole blocks of 32"));
            TensorType::F16
        }
        kind => kind,
    };
    let bytes = move |writer: &mut dyn Write| -> io::Result<()> {
        let told = |error: Error| {
            let said = io::Error::other(error.message.clone());
            *failed.borrow_mut() = Some(error);
            said
        };
        let mut merged = merging.values(tensor).map_err(told)?;
        let stored = tensor.stored();
        // llama.cpp multiplies with the weight of a norm as it stands.
        let offset = if name.ends_with("norm.weight") { config.norm_offset } else { 0.0 };
        if merged.is_none() && (stored.is_none() || offset != 0.0) {
            let mut values = tensor.values().map_err(told)?;
            values.iter_mut().for_each(|value| *value += offset);
            merged = Some(values);
        }
        let from = match (&merged, stored) {
            (Some(values), _) => From::Values(values),
            (None, Some(stored)) if order == Rows::InPlace && is(stored, kind) => {
                return writer.write_all(stored.bytes);
            }
            (None, Some(stored)) => From::Stored(stored),
            (None, None) => From::Values(&[]),
        };
        let source = Source { name, from, cols };
        let piece = (PIECE / cols.max(1)).max(1);
        let mut out = Vec::new();
        for start in (0..rows).step_by(piece) {
            let rows = piece.min(rows - start);
            let row_bytes = kind.bytes(cols);
            out.resize(rows * row_bytes, 0);
            out.par_chunks_mut(row_bytes.max(1))
                .enumerate()
                .with_min_len(64)
                .try_for_each(|(row, out)| source.put(order.source(start + row), kind, out))
                .map_err(told)?;
            writer.write_all(&out)?;
        }
        Ok(())
    };
    let shape = tensor.shape.clone();
    Ok(Some(Entry { name: known, shape, kind, bytes: Box::new(bytes) }))
}

/// Where the rows of a tensor come from.
struct Source<'a> {
    name: &'a str,
    from: From<'a>,
    cols: usize,
}

enum From<'a> {
    Stored(Stored<'a>),
    /// All values, where an adapter changes them or they are stored quantized.
    Values(&'a [f32]),
}

/// Whether the stored bytes are those of `kind`.
fn is(stored: Stored<'_>, kind: TensorType) -> bool {
    use safetensors::Dtype;
    matches!(
        (stored.dtype, kind),
        (Dtype::F32, TensorType::F32)
            | (Dtype::F16, TensorType::F16)
            | (Dtype::BF16, TensorType::Bf16)
    )
}

impl Source<'_> {
    /// Writes a row as `kind`.
    fn put(&self, row: usize, kind: TensorType, out: &mut [u8]) -> Result<()> {
        let cols = self.cols;
        let holds = match self.from {
            From::Values(values) => {
                quantize::encode(kind, &values[row * cols..(row + 1) * cols], out)
            }
            From::Stored(stored) => {
                let elements = stored.shape.iter().product::<usize>();
                let width = stored.bytes.len() / elements.max(1);
                let bytes = &stored.bytes[row * cols * width..(row + 1) * cols * width];
                if is(stored, kind) {
                    out.copy_from_slice(bytes);
                    return Ok(());
                }
                let mut values = vec![0f32; cols];
                Stored { bytes, ..stored }.to_f32(self.name, &mut values)?;
                quantize::encode(kind, &values, out)
            }
        };
        if holds {
            return Ok(());
        }
        Err(Error::input(
            format!("{} holds a number beyond what {} can", self.name, kind.name()),
            "write it by --type bf16, which holds what f32 does",
        ))
    }
}
