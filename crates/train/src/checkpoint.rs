//! Checkpoints: `checkpoint-<step>/` with what is trained, the optimizer's states and a table of checksums.
//!
//! A checkpoint is written beside its place and renamed, so that it is there whole or not at all. The state of
//! order, partners and dropout is the step's number: they are functions of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use data::files;
use engine::dtype::DType;
use models::adapter;
use models::checkpoint::Checkpoint;
use models::export::{self, Entry};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::folder::hex;
use crate::learner::Learner;

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const MODEL: &str = "model.safetensors";

/// What a checkpoint knows besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done, skipped ones included.
    pub step: usize,
    /// Updates done.
    pub updates: u64,
    /// Steps that were skipped.
    pub bad_batches: usize,
    /// SHA-256 of every other file.
    checksums: BTreeMap<String, String>,
}

/// Writes the checkpoint of `step` and removes old ones, so that `keep` stay (0: all).
pub fn save(
    learner: &mut Learner,
    output: &Path,
    step: usize,
    bad_batches: usize,
    base: &str,
    keep: usize,
) -> Result<PathBuf> {
    let place = output.join(format!("checkpoint-{step}"));
    let beside = output.join(format!(".checkpoint-{step}.tmp"));
    let io = |error: std::io::Error, doing: &str| {
        Error::machine(
            format!("cannot {doing} '{}': {error}", place.display()),
            "free some space on the disk and go on with --resume",
        )
    };
    if beside.exists() {
        fs::remove_dir_all(&beside).map_err(|error| io(error, "replace"))?;
    }
    fs::create_dir_all(&beside).map_err(|error| io(error, "write"))?;
    let guard = Beside(&beside);
    write_tensors(learner, &beside, base)?;
    let mut checksums = BTreeMap::new();
    for entry in fs::read_dir(&beside).map_err(|error| io(error, "write"))? {
        let path = entry.map_err(|error| io(error, "write"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        checksums.insert(name, hex(&Sha256::digest(files::read(&path)?)));
    }
    let state = State { step, updates: learner.updates, bad_batches, checksums };
    files::write_json(&beside.join(STATE), &state)?;
    if place.exists() {
        fs::remove_dir_all(&place).map_err(|error| io(error, "replace"))?;
    }
    fs::rename(&beside, &place).map_err(|error| io(error, "write"))?;
    std::mem::forget(guard);
    if let Ok(folder) = fs::File::open(output) {
        let _ = folder.sync_all(); // not every file system flushes a folder
    }
    if keep > 0 {
        for old in all(output).into_iter().rev().skip(keep) {
            let _ = fs::remove_dir_all(old.1); // one too many costs space, nothing else
        }
    }
    Ok(place)
}

/// Removed when dropped: a checkpoint that was not finished.
struct Beside<'a>(&'a Path);

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

fn write_tensors(learner: &mut Learner, folder: &Path, base: &str) -> Result<()> {
    if let Some(policy) = learner.policy_mut() {
        adapter::write(policy, base, folder)?;
    } else {
        let tensors = learner.model.weights.tensors_mut();
        let entries: Vec<Entry<'_>> =
            tensors.into_iter().map(|(name, tensor)| Entry::f32(name, tensor)).collect();
        export::write_safetensors(&folder.join(MODEL), &entries)?;
    }
    let mut parameters = learner.parameters_mut();
    let mut entries = Vec::new();
    for (name, _, state) in &mut parameters {
        for (part, tensor) in state.tensors_mut() {
            let name = format!("{name}.{part}");
            let tensor: &engine::tensor::Tensor = tensor;
            entries.push(if tensor.dtype() == DType::U8 {
                Entry::u8(name, tensor)
            } else {
                Entry::f32(name, tensor)
            });
        }
    }
    export::write_safetensors(&folder.join(OPTIMIZER), &entries)?;
    Ok(())
}

/// All checkpoints of a run, oldest first.
fn all(output: &Path) -> Vec<(usize, PathBuf)> {
    let Ok(entries) = fs::read_dir(output) else { return Vec::new() };
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let step = path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            Some((step, path))
        })
        .collect();
    found.sort();
    found
}

/// The newest checkpoint that is whole, and a word about each damaged one that was passed over.
pub fn newest(output: &Path) -> (Option<(State, PathBuf)>, Vec<String>) {
    let mut words = Vec::new();
    for (_, folder) in all(output).into_iter().rev() {
        match read_state(&folder) {
            Ok(state) => return (Some((state, folder)), words),
            Err(why) => {
                words.push(format!("'{}' is damaged and is passed over: {why}", folder.display()))
            }
        }
    }
    (None, words)
}

fn read_state(folder: &Path) -> std::result::Result<State, String> {
    let text =
        fs::read_to_string(folder.join(STATE)).map_err(|error| format!("{STATE}: {error}"))?;
    let state: State = serde_json::from_str(&text).map_err(|error| format!("{STATE}: {error}"))?;
    for (name, checksum) in &state.checksums {
        let bytes = fs::read(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if hex(&Sha256::digest(bytes)) != *checksum {
            return Err(format!("{name} is not what was written"));
        }
    }
    Ok(state)
}

/// Puts what a checkpoint holds into the learner.
pub fn restore(learner: &mut Learner, folder: &Path, state: &State) -> Result<()> {
    let file = if learner.policy().is_some() { "adapter_model.safetensors" } else { MODEL };
    let values = Checkpoint::open_file(&folder.join(file))?;
    let moments = Checkpoint::open_file(&folder.join(OPTIMIZER))?;
    for (name, tensor, optimizer) in learner.parameters_mut() {
        let shape = if tensor.cols() == 1 {
            vec![tensor.rows()]
        } else {
            vec![tensor.rows(), tensor.cols()]
        };
        let stored = values.expect(&name, &shape)?;
        tensor.fill(|values| stored.to_f32(&name, values))?;
        for (part, tensor) in optimizer.tensors_mut() {
            let name = format!("{name}.{part}");
            let stored = moments.expect(&name, &[tensor.rows()])?;
            if tensor.dtype() == DType::U8 {
                tensor.view_mut().write_bytes(stored.bytes)?;
            } else {
                tensor.fill(|values| stored.to_f32(&name, values))?;
            }
        }
    }
    learner.updates = state.updates;
    Ok(())
}
