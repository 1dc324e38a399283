//! Writing safetensors tensor by tensor, so that never more than one of them is in memory twice: one file, or
//! shards with an index as Hugging Face names them.

use std::io::{self, Write};
use std::path::Path;

use data::files;
use engine::tensor::Tensor;
use half::bf16;
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::checkpoint::Stored;
use crate::error::{Error, Result};

/// One tensor to write: its place in the header, and its bytes when they are asked for.
pub struct Entry<'a> {
    /// The tensor's name.
    pub name: String,
    /// `F32`, `BF16`, `F16`, `U8` or `I8`.
    pub dtype: &'static str,
    /// Rows, columns, ...
    pub shape: Vec<usize>,
    /// The elements, little-endian.
    pub bytes: Box<dyn Fn() -> io::Result<Vec<u8>> + 'a>,
}

impl<'a> Entry<'a> {
    /// A tensor of f32; one of a single column is written as a vector.
    pub fn f32(name: String, tensor: &'a Tensor) -> Entry<'a> {
        Entry {
            name,
            dtype: "F32",
            shape: shape_of(tensor),
            bytes: Box::new(|| {
                let values: Vec<f32> = tensor.to_vec().map_err(io::Error::other)?;
                Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }),
        }
    }

    /// A tensor of f32, rounded to bf16.
    pub fn bf16(name: String, tensor: &'a Tensor) -> Entry<'a> {
        Entry {
            name,
            dtype: "BF16",
            shape: shape_of(tensor),
            bytes: Box::new(|| {
                let values: Vec<f32> = tensor.to_vec().map_err(io::Error::other)?;
                Ok(values.into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect())
            }),
        }
    }

    /// A tensor as a checkpoint holds it; `hint` is for one in another type than F32, BF16 or F16.
    pub fn stored(name: &str, stored: Stored<'a>, hint: &str) -> Result<Entry<'a>> {
        let dtype = match stored.dtype {
            Dtype::F32 => "F32",
            Dtype::BF16 => "BF16",
            Dtype::F16 => "F16",
            other => {
                return Err(Error::input(
                    format!("{name} in '{}' holds {other:?}", stored.file.display()),
                    hint,
                ));
            }
        };
        let bytes = Box::new(move || Ok(stored.bytes.to_vec()));
        Ok(Entry { name: name.to_owned(), dtype, shape: stored.shape.to_vec(), bytes })
    }

    /// A tensor of bytes.
    pub fn u8(name: String, tensor: &'a Tensor) -> Entry<'a> {
        Entry {
            name,
            dtype: "U8",
            shape: shape_of(tensor),
            bytes: Box::new(|| tensor.to_vec::<u8>().map_err(io::Error::other)),
        }
    }

    /// Bytes of its elements.
    pub fn bytes_len(&self) -> usize {
        let element = match self.dtype {
            "F32" => 4,
            "U8" | "I8" => 1,
            _ => 2,
        };
        self.shape.iter().product::<usize>() * element
    }
}

fn shape_of(tensor: &Tensor) -> Vec<usize> {
    if tensor.cols() == 1 { vec![tensor.rows()] } else { vec![tensor.rows(), tensor.cols()] }
}

/// Writes `entries` as one safetensors file, atomically.
pub fn write_safetensors(path: &Path, entries: &[Entry<'_>]) -> Result<()> {
    files::write_atomically(path, |writer| write_to(writer, entries))?;
    Ok(())
}

/// Writes `entries` in the safetensors format, with the metadata that transformers and PEFT expect.
pub fn write_to(writer: &mut dyn Write, entries: &[Entry<'_>]) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for entry in entries {
        let start = end;
        end += entry.bytes_len();
        let place =
            json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, end]});
        header.insert(entry.name.clone(), place);
    }
    let mut text = Value::Object(header).to_string();
    // The data starts at a multiple of eight bytes; the format allows spaces after the header.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    writer.write_all(&(text.len() as u64).to_le_bytes())?;
    writer.write_all(text.as_bytes())?;
    for entry in entries {
        writer.write_all(&(entry.bytes)()?)?;
    }
    Ok(())
}

/// The largest shard of a model; a tensor that is larger alone has a shard of its own.
pub const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// Writes `model.safetensors`, or, for more than `max_shard_bytes`, shards and then the index that names them.
pub fn write_model(folder: &Path, entries: &[Entry<'_>], max_shard_bytes: usize) -> Result<()> {
    let mut ends = Vec::new();
    let mut bytes = 0;
    for (i, entry) in entries.iter().enumerate() {
        if bytes > 0 && bytes + entry.bytes_len() > max_shard_bytes {
            ends.push(i);
            bytes = 0;
        }
        bytes += entry.bytes_len();
    }
    ends.push(entries.len());
    if ends.len() == 1 {
        return write_safetensors(&folder.join("model.safetensors"), entries);
    }
    let mut weight_map = Map::new();
    let mut start = 0;
    for (shard, end) in ends.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", shard + 1, ends.len());
        let entries = &entries[start..*end];
        write_safetensors(&folder.join(&name), entries)?;
        weight_map.extend(entries.iter().map(|entry| (entry.name.clone(), json!(name))));
        start = *end;
    }
    let total_size: usize = entries.iter().map(Entry::bytes_len).sum();
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    files::write_json(&folder.join("model.safetensors.index.json"), &index)?;
    Ok(())
}
