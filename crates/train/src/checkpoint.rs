//! Checkpoints: `checkpoint-<step>/` with what is trained, the optimizer's states and a table of checksums.
//!
//! A checkpoint is written beside its place and renamed, so that it is there whole or not at all. The state of
//! order, partners and dropout is the step's number: they are functions of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data::files;
use engine::dtype::DType;
use engine::tensor::Tensor;
use models::adapter;
use models::checkpoint::Checkpoint;
use models::export::{self, Entry};
use objectives::bco::RunningMean;
use serde::{Deserialize, Serialize};

use crate::checksum;
use crate::error::{Error, Result};
use crate::folder::START;
use crate::learner::Learner;

const STATE: &str = "state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const MODEL: &str = "model.safetensors";

/// Files of the run that must not lag behind a checkpoint when the power fails.
const LOGS: [&str; 2] = ["metrics.jsonl", "bad-batches.jsonl"];

/// What a checkpoint knows besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done, skipped ones included.
    pub step: usize,
    /// Updates done.
    pub updates: u64,
    /// Steps that were skipped.
    pub bad_batches: usize,
    /// The mean of the rewards so far and how many they are, where the objective has a use for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewards: Option<(f64, u64)>,
    /// SHA-256 of the run's `run.json`, and so of its recipe, model and data.
    run: String,
    /// SHA-256 of every other file.
    checksums: BTreeMap<String, String>,
}

/// What goes into a checkpoint.
pub struct Contents<'a> {
    /// Optimizer steps done.
    pub step: usize,
    updates: u64,
    bad_batches: usize,
    rewards: RunningMean,
    /// `adapter_config.json`, where an adapter is trained.
    adapter_config: Option<serde_json::Value>,
    files: Vec<(&'static str, Vec<Entry<'a>>)>,
}

/// What goes into a checkpoint, copied, so that it can be written while training goes on.
pub struct Copied {
    step: usize,
    updates: u64,
    bad_batches: usize,
    rewards: RunningMean,
    adapter_config: Option<serde_json::Value>,
    files: Vec<(&'static str, Vec<Copy>)>,
}

struct Copy {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl<'a> Contents<'a> {
    /// What a learner has after `step` steps. `base` is what an adapter is trained on.
    pub fn of(learner: &'a mut Learner, step: usize, bad_batches: usize, base: &str) -> Self {
        let (updates, rewards) = (learner.updates, learner.rewards);
        let adapter_config = learner.policy().map(|policy| adapter::config_json(policy, base));
        let (mut values, mut moments) = (Vec::new(), Vec::new());
        for (name, value, state) in learner.parameters_mut() {
            for (part, tensor) in state.tensors_mut() {
                let name = format!("{name}.{part}");
                let tensor: &Tensor = tensor;
                moments.push(match tensor.dtype() {
                    DType::U8 => Entry::u8(name, tensor),
                    _ => Entry::f32(name, tensor),
                });
            }
            values.push(Entry::f32(name, value));
        }
        let trained = if adapter_config.is_some() { adapter::WEIGHTS } else { MODEL };
        let files = vec![(trained, values), (OPTIMIZER, moments)];
        Contents { step, updates, bad_batches, rewards, adapter_config, files }
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.files.iter().flat_map(|(_, entries)| entries).map(Entry::bytes_len).sum()
    }

    /// Bytes of what is trained alone.
    pub fn trained_bytes(&self) -> usize {
        self.files[0].1.iter().map(Entry::bytes_len).sum()
    }

    /// How many tensors there are.
    pub fn tensors(&self) -> usize {
        self.files.iter().map(|(_, entries)| entries.len()).sum()
    }

    /// A copy that owns its bytes.
    pub fn copied(&self) -> Result<Copied> {
        let copy = |entry: &Entry<'_>| -> io::Result<Copy> {
            let (name, shape) = (entry.name.clone(), entry.shape.clone());
            Ok(Copy { name, dtype: entry.dtype, shape, bytes: (entry.bytes)()? })
        };
        let mut files = Vec::new();
        for (name, entries) in &self.files {
            let copies: io::Result<Vec<Copy>> = entries.iter().map(copy).collect();
            let copies = copies.map_err(|error| {
                Error::machine(
                    format!("cannot read {name} of step {} from the device: {error}", self.step),
                    "check the device, then go on with --resume",
                )
            })?;
            files.push((*name, copies));
        }
        Ok(Copied {
            step: self.step,
            updates: self.updates,
            bad_batches: self.bad_batches,
            rewards: self.rewards,
            adapter_config: self.adapter_config.clone(),
            files,
        })
    }

    /// Writes the checkpoint into the run folder `output` and removes old ones, so that `keep` stay (0: all).
    pub fn write(&self, output: &Path, keep: usize) -> Result<PathBuf> {
        let place = output.join(format!("checkpoint-{}", self.step));
        let io = |error: io::Error| files::cannot_write(&place, &error);
        let beside = Beside(output.join(format!(".checkpoint-{}.tmp", self.step)));
        if beside.0.exists() {
            fs::remove_dir_all(&beside.0).map_err(io)?;
        }
        fs::create_dir_all(&beside.0).map_err(io)?;
        let mut checksums = BTreeMap::new();
        for (name, entries) in &self.files {
            let sum =
                checksum::write(&beside.0.join(name), |writer| export::write_to(writer, entries))?;
            checksums.insert((*name).to_owned(), sum);
        }
        if let Some(config) = &self.adapter_config {
            let text = format!("{config:#}\n");
            let sum = checksum::write(&beside.0.join(adapter::CONFIG), |writer| {
                writer.write_all(text.as_bytes())
            })?;
            checksums.insert(adapter::CONFIG.to_owned(), sum);
        }
        let Contents { step, updates, bad_batches, rewards, .. } = *self;
        let rewards = (rewards.count > 0).then_some((rewards.mean, rewards.count));
        let run = checksum::of_file(&output.join(START)).map_err(io)?;
        let state = State { step, updates, bad_batches, rewards, run, checksums };
        checksum::write_sealed(&beside.0.join(STATE), &state)?;
        for name in LOGS {
            if let Ok(log) = fs::File::open(output.join(name)) {
                files::synced(log.sync_all()).map_err(io)?;
            }
        }
        if place.exists() {
            fs::remove_dir_all(&place).map_err(io)?;
        }
        fs::rename(&beside.0, &place).map_err(io)?;
        files::sync_folder(output).map_err(io)?;
        remove_old(output, step, keep);
        Ok(place)
    }
}

impl Copied {
    /// Writes it as [`Contents::write`] does.
    pub fn write(&self, output: &Path, keep: usize) -> Result<PathBuf> {
        let files = self.files.iter().map(|(name, copies)| (*name, entries(copies))).collect();
        Contents {
            step: self.step,
            updates: self.updates,
            bad_batches: self.bad_batches,
            rewards: self.rewards,
            adapter_config: self.adapter_config.clone(),
            files,
        }
        .write(output, keep)
    }
}

fn entries(copies: &[Copy]) -> Vec<Entry<'_>> {
    copies
        .iter()
        .map(|copy| Entry {
            name: copy.name.clone(),
            dtype: copy.dtype,
            shape: copy.shape.clone(),
            bytes: Box::new(|| Ok(copy.bytes.clone())),
        })
        .collect()
}

/// The folder a checkpoint is made in; removed when dropped, unless it was renamed away.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Leaves the newest `keep` (0: all). Those after `step` are of a future that is computed anew: the run went on
/// from before them, because they were damaged.
fn remove_old(output: &Path, step: usize, keep: usize) {
    let keep = if keep == 0 { usize::MAX } else { keep };
    let (future, past): (Vec<_>, Vec<_>) = all(output).into_iter().partition(|(at, _)| *at > step);
    for (_, old) in future.into_iter().chain(past.into_iter().rev().skip(keep)) {
        let _ = fs::remove_dir_all(old); // one too many costs space, nothing else
    }
}

/// All checkpoints of a run, oldest first.
pub fn all(output: &Path) -> Vec<(usize, PathBuf)> {
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
    let run = checksum::of_file(&output.join(START)).unwrap_or_default();
    for (step, folder) in all(output).into_iter().rev() {
        match read_state(&folder, step, &run) {
            Ok(state) => return (Some((state, folder)), words),
            Err(why) => {
                words.push(format!("'{}' is damaged and is passed over: {why}", folder.display()))
            }
        }
    }
    (None, words)
}

fn read_state(folder: &Path, step: usize, run: &str) -> std::result::Result<State, String> {
    let state: State =
        checksum::read_sealed(&folder.join(STATE)).map_err(|error| format!("{STATE}: {error}"))?;
    if state.step != step {
        return Err(format!("{STATE} is of step {}", state.step));
    }
    if state.run != run {
        return Err("it is of another run".to_owned());
    }
    for (name, sum) in &state.checksums {
        let found =
            checksum::of_file(&folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if found != *sum {
            return Err(format!("{name} is not what was written"));
        }
    }
    Ok(state)
}

/// Puts what a checkpoint holds into the learner.
pub fn restore(learner: &mut Learner, folder: &Path, state: &State) -> Result<()> {
    let rewards = state.rewards.map(|(mean, count)| RunningMean { mean, count });
    learner.rewards = rewards.unwrap_or_default();
    let file = if learner.policy().is_some() { adapter::WEIGHTS } else { MODEL };
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
            if tensor.dtype() != DType::U8 {
                tensor.fill(|values| stored.to_f32(&name, values))?;
            } else if stored.bytes.len() == tensor.rows() {
                tensor.view_mut().write_bytes(stored.bytes)?;
            } else {
                return Err(Error::input(
                    format!("{name} in '{}' holds {:?}", stored.file.display(), stored.dtype),
                    "the checkpoint is of another optimizer: start anew in another folder by --set output=...",
                ));
            }
        }
    }
    learner.updates = state.updates;
    Ok(())
}
