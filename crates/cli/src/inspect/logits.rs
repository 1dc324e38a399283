//! `prospect inspect logits`: the logits behind every token, as a safetensors file.
//!
//! Lists are computed one after the other and written in tiles of rows, so of the logits only a tile is in memory.

use std::io;
use std::path::Path;

use ::train::error::{Error, Result};
use ::train::machine::Machine;
use data::files;
use engine::device::Device;
use engine::ops::attention::Segment;
use models::adapter;
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::decoder::{self, Model, Pass, RowGroup};
use models::head;
use models::lora::Adapter;
use models::weights::{self, Storage};
use serde_json::{Map, Value, json};

use crate::args;
use crate::ending::Done;
use crate::generate::source::{self, Source};
use crate::terminal::say;
use crate::words::things;

/// Logits that are in memory at a time: rows of a tile times the vocabulary.
const TILE: usize = 1 << 24;

/// Writes the file.
pub(crate) fn run(arguments: &args::Logits) -> Result<Done> {
    let source = Source::find(&arguments.model, arguments.adapter.as_deref())?;
    let config = ModelConfig::load(&source.model)?;
    let checkpoint = Checkpoint::open(&source.model)?;
    let lists = read(&arguments.ids, &config, &source.model)?;
    let storage = match arguments.dtype.as_deref() {
        Some("f32") => Storage::F32,
        Some(_) => Storage::Bf16,
        None => source.storage.unwrap_or_else(|| source::storage(&checkpoint)),
    };
    let machine = Machine::find(arguments.device.device(), None)?;
    say(&machine.description);
    let longest: &[u32] = lists.iter().max_by_key(|list| list.len()).map_or(&[], |list| list);
    let load = |device: &Device| -> Result<(Model, Option<Adapter>)> {
        let weights =
            weights::load(device, &config, Some(&checkpoint), source.quantization, storage)?;
        let model = Model::new(device, config.clone(), weights, longest.len())?;
        let adapter = match &source.adapter {
            None => None,
            Some(folder) => Some(adapter::load(&model, folder)?),
        };
        Ok((model, adapter))
    };
    let plan = machine.plan();
    let (model, adapter) = load(&plan)?;
    behind(&model, adapter.as_ref(), longest, |_| Ok(()))?;
    drop((model, adapter));
    let peak = plan.peak_bytes();
    if let Some(limit) = machine.limit
        && peak as u64 > limit
    {
        return Err(Error::machine(
            format!("the longest list takes {peak} bytes of memory, {limit} are free"),
            "give shorter lists, or hold the weights in half the memory by --dtype bf16",
        ));
    }
    let (model, adapter) = load(&machine.device(peak, 0)?)?;
    write(&arguments.out, &lists, config.vocab_size, |ids, use_rows| {
        behind(&model, adapter.as_ref(), ids, use_rows)
    })?;
    let tokens: usize = lists.iter().map(Vec::len).sum();
    say(&format!(
        "{}: the logits of {} behind {}",
        arguments.out.display(),
        things(lists.len(), "list"),
        things(tokens, "token")
    ));
    Ok(Done::Well)
}

/// The lists of a file, each token checked against the vocabulary and each length against the model's positions.
fn read(path: &Path, config: &ModelConfig, model: &Path) -> Result<Vec<Vec<u32>>> {
    let shape = "write a list of lists of token ids, such as [[1, 15, 8], [1, 7]]";
    let at = path.display();
    let lists: Vec<Vec<u32>> =
        serde_json::from_str(&files::read_to_string(path)?).map_err(|error| {
            Error::input(format!("'{at}' is no lists of token ids: {error}"), shape)
        })?;
    if lists.is_empty() {
        return Err(Error::input(format!("there is no list of token ids in '{at}'"), shape));
    }
    for (index, list) in lists.iter().enumerate() {
        if list.is_empty() {
            return Err(Error::input(
                format!("list {index} of '{at}' is empty"),
                "a model computes nothing behind no token: give each list at least one",
            ));
        }
        if list.len() > config.max_position_embeddings {
            return Err(Error::input(
                format!(
                    "list {index} of '{at}' has {} tokens, '{}' has {} positions",
                    list.len(),
                    model.display(),
                    config.max_position_embeddings
                ),
                "give shorter lists",
            ));
        }
        if let Some(place) = list.iter().position(|id| *id as usize >= config.vocab_size) {
            return Err(Error::input(
                format!(
                    "token {place} of list {index} of '{at}' is {}, the vocabulary of '{}' has {}",
                    list[place],
                    model.display(),
                    config.vocab_size
                ),
                "use the ids of this model's tokenizer: `prospect inspect tokenize` prints them",
            ));
        }
    }
    Ok(lists)
}

/// Computes the logits behind each token and hands them out, some rows at a time.
fn behind(
    model: &Model,
    adapter: Option<&Adapter>,
    ids: &[u32],
    mut use_rows: impl FnMut(&[f32]) -> io::Result<()>,
) -> Result<()> {
    let device = model.device();
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let (tokens, positions) = (device.upload(ids)?, device.upload(&positions)?);
    let pass = Pass {
        tokens: tokens.view(),
        ids,
        positions: positions.view(),
        segments: vec![Segment {
            query_start: 0,
            key_start: 0,
            len: ids.len(),
            parent_start: 0,
            parent_len: 0,
            position0: 0,
        }],
        groups: vec![RowGroup { rows: 0..ids.len(), adapter }],
        grad_rows: 0,
        dropout: None,
    };
    let hidden = decoder::forward(model, &pass, &[])?.hidden;
    let rows = (TILE / model.config.vocab_size).max(1);
    for start in (0..ids.len()).step_by(rows) {
        let tile = hidden.slice(start..(start + rows).min(ids.len()));
        use_rows(&head::logits(model, adapter, tile)?)
            .map_err(|error| Error::machine(error.to_string(), "look at the disk"))?;
    }
    Ok(())
}

/// Writes the file as its logits come, atomically.
fn write(
    out: &Path,
    lists: &[Vec<u32>],
    vocab_size: usize,
    mut behind: impl FnMut(&[u32], &mut dyn FnMut(&[f32]) -> io::Result<()>) -> Result<()>,
) -> Result<()> {
    let mut failed = None;
    let written = files::write_atomically(out, |writer| {
        writer.write_all(&header(lists, vocab_size))?;
        for ids in lists {
            let mut disk = None;
            let computed = behind(ids, &mut |rows| {
                let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
                writer.write_all(&bytes).inspect_err(|error| {
                    disk = Some(io::Error::new(error.kind(), error.to_string()));
                })
            });
            if let Some(error) = disk {
                return Err(error);
            }
            if let Err(error) = computed {
                failed = Some(error);
                return Err(io::Error::other("the computation failed"));
            }
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(written?),
    }
}

/// The file's length of header and header.
fn header(lists: &[Vec<u32>], vocab_size: usize) -> Vec<u8> {
    let mut tensors = Map::new();
    tensors.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for (index, ids) in lists.iter().enumerate() {
        let start = end;
        end += ids.len() * vocab_size * size_of::<f32>();
        let place =
            json!({"dtype": "F32", "shape": [ids.len(), vocab_size], "data_offsets": [start, end]});
        tensors.insert(format!("logits_{index}"), place);
    }
    let mut text = Value::Object(tensors).to_string();
    // The data starts at a multiple of eight bytes; the format allows spaces after the header.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
