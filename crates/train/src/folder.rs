//! The run folder: what is in it, and whose it is.
//!
//! `recipe.toml` (as resolved), `run.json` (policy and fingerprints), `metrics.jsonl`, `bad-batches.jsonl`,
//! `checkpoint-<step>/`, `adapter/` or `model/`, `answers-before.json`, `summary.json`, `report.html`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use data::files;
use data::template::Moment;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::event::{Judgement, Metrics, Summary};
use crate::fit::Policy;
use crate::inputs::Inputs;
use crate::recipe::Recipe;

/// A run folder that this process alone writes to.
pub struct Folder {
    path: PathBuf,
    /// Held locked while the run lasts.
    _lock: File,
}

/// `run.json`: what a resumed run must find unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// The version of Prospect.
    pub prospect: String,
    /// What the planner chose.
    pub policy: Policy,
    /// The moment a chat template writes into prompts.
    pub template_moment: Moment,
    /// SHA-256 of the data files, and of the model's config and tensor table.
    pub fingerprints: Vec<(String, String)>,
}

/// Keys that may change between a run and its continuation, because the result does not depend on them.
const HARMLESS: [&str; 8] = [
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "train.save_minutes",
    "train.keep_checkpoints",
    "train.max_bad_batches",
    "train.threads",
    "train.memory_limit",
];

/// Gives a recipe that names no output its run folder: for a new run the first name that is free, to resume the
/// last that holds a run.
pub fn settle(mut recipe: Recipe, resume: bool) -> Recipe {
    if recipe.names_output {
        return recipe;
    }
    recipe.names_output = true;
    let first = recipe.output.clone();
    let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut names = std::iter::once(first.clone())
        .chain((2..).map(|number| first.with_file_name(format!("{name}-{number}"))));
    if resume {
        let last = names.take_while(|path| path.exists()).filter(|path| holds_run(path)).last();
        recipe.output = last.unwrap_or(first);
    } else if let Some(free) = names.find(|path| !path.exists() || is_free(path)) {
        recipe.output = free;
    }
    recipe
}

fn holds_run(path: &Path) -> bool {
    path.join("recipe.toml").exists()
}

/// Whether a folder holds nothing but the lock of a run that ended before it began.
fn is_free(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
    })
}

const LOCK: &str = ".lock";

impl Folder {
    /// Makes a new run folder, or opens that of the run to go on with.
    pub fn open(recipe: &Recipe, resume: bool) -> Result<Folder> {
        let path = recipe.output.clone();
        let exists = holds_run(&path);
        if exists && !resume {
            return Err(Error::input(
                format!("output '{}' holds a run already", path.display()),
                "go on with it by --resume, or choose another place by --set output=...",
            ));
        }
        if !exists && resume {
            return Err(Error::input(
                format!("output '{}' holds no run to resume", path.display()),
                "start it without --resume",
            ));
        }
        if !exists && path.is_dir() && !is_free(&path) {
            return Err(Error::input(
                format!("output '{}' is a folder with other files in it", path.display()),
                "choose an empty or new folder by --set output=...",
            ));
        }
        fs::create_dir_all(&path).map_err(|error| {
            Error::machine(
                format!("cannot create output '{}': {error}", path.display()),
                "choose a folder your user may write to, by --set output=...",
            )
        })?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(|error| {
            Error::machine(
                format!("cannot write into output '{}': {error}", path.display()),
                "choose a folder your user may write to, on a disk with space left",
            )
        })?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::input(
                format!("output '{}' is being written by another run", path.display()),
                "wait for it to end, or choose another place by --set output=...",
            ));
        }
        Ok(Folder { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the recipe as resolved and what a resumed run must find unchanged.
    pub fn write_start(&self, recipe: &Recipe, run: &RunFile) -> Result<()> {
        files::write_json(&self.path.join("run.json"), run)?;
        let text = recipe.to_toml();
        files::write_atomically(&self.path.join("recipe.toml"), |writer| {
            writer.write_all(text.as_bytes())
        })?;
        Ok(())
    }

    /// Reads what the run to go on with was started with.
    pub fn read_start(&self) -> Result<RunFile> {
        let path = self.path.join("run.json");
        serde_json::from_str(&files::read_to_string(&path)?).map_err(|error| {
            Error::input(
                format!("'{}' is damaged: {error}", path.display()),
                "start the run anew in another folder by --set output=...",
            )
        })
    }

    /// Refuses to go on where the recipe, the data, the model or the program changed what the result depends on.
    pub fn check_unchanged(&self, recipe: &Recipe, now: &RunFile) -> Result<()> {
        let then = self.read_start()?;
        let old = files::read_to_string(&self.path.join("recipe.toml"))?;
        let changed = |what: String| {
            Err(Error::input(
                format!("{what} since the run in '{}' began", self.path.display()),
                "a resumed run must give what the whole run would have given: undo the change, or start anew in another folder by --set output=...",
            ))
        };
        let (old, new) = (keys(&old), keys(&recipe.to_toml()));
        for (key, value) in &new {
            let before = old.iter().find(|(name, _)| name == key).map(|(_, value)| value);
            if before != Some(value) && !HARMLESS.contains(&key.as_str()) {
                return changed(format!(
                    "{key} = {value} was {}",
                    before.map_or("not written", String::as_str)
                ));
            }
        }
        if let Some((key, _)) = old.iter().find(|(key, _)| {
            !HARMLESS.contains(&key.as_str()) && !new.iter().any(|(name, _)| name == key)
        }) {
            return changed(format!("{key} was removed"));
        }
        if then.prospect != now.prospect {
            return changed(format!("Prospect is {}, was {},", now.prospect, then.prospect));
        }
        for ((name, then), (_, now)) in then.fingerprints.iter().zip(&now.fingerprints) {
            if then != now {
                return changed(format!("{name} changed"));
            }
        }
        Ok(())
    }

    /// Appends one optimizer step's metrics.
    pub fn append_metrics(&self, step: usize, epoch: f64, metrics: &Metrics) -> Result<()> {
        let mut object = serde_json::Map::new();
        object.insert("step".to_owned(), step.into());
        object.insert("epoch".to_owned(), epoch.into());
        for (name, value) in metrics {
            // JSON has no word for what is not finite; null says that there was no number.
            object.insert(
                name.clone(),
                serde_json::Number::from_f64(*value).map_or(serde_json::Value::Null, Into::into),
            );
        }
        self.append("metrics.jsonl", &serde_json::Value::Object(object).to_string())
    }

    /// What was measured last.
    pub fn last_metrics(&self) -> Result<Metrics> {
        let path = self.path.join("metrics.jsonl");
        if !path.exists() {
            return Ok(Metrics::new());
        }
        let text = files::read_to_string(&path)?;
        let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let Some(serde_json::Value::Object(last)) = last else { return Ok(Metrics::new()) };
        let measured = |(name, value): (String, serde_json::Value)| Some((name, value.as_f64()?));
        let kept = |(name, _): &(String, f64)| name != "step" && name != "epoch";
        Ok(last.into_iter().filter_map(measured).filter(kept).collect())
    }

    /// How the run ended, if it did: the summary is what is written last.
    pub fn finished(&self) -> Option<(Summary, Option<Judgement>)> {
        let read = |name: &str| fs::read_to_string(self.path.join(name)).ok();
        let summary = serde_json::from_str(&read("summary.json")?).ok()?;
        let judgement = read("answers.json").and_then(|text| serde_json::from_str(&text).ok());
        let there = ["adapter", "model"].iter().any(|name| self.path.join(name).is_dir());
        there.then_some((summary, judgement))
    }

    /// Appends a line to a file of the run.
    pub fn append(&self, name: &str, line: &str) -> Result<()> {
        let path = self.path.join(name);
        let append = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        append().map_err(|error| {
            Error::machine(
                format!("cannot write '{}': {error}", path.display()),
                "free some space on the disk and go on with --resume",
            )
        })
    }

    /// Drops what was measured after step `step`: the run goes on from there.
    pub fn cut_metrics(&self, step: usize) -> Result<()> {
        for name in ["metrics.jsonl", "bad-batches.jsonl"] {
            let path = self.path.join(name);
            if !path.exists() {
                continue;
            }
            let text = files::read_to_string(&path)?;
            let kept = |line: &&str| {
                let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
                value
                    .and_then(|value| value.get("step")?.as_u64())
                    .is_some_and(|at| at <= step as u64)
            };
            let lines: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
            files::write_atomically(&path, |writer| writer.write_all(lines.as_bytes()))?;
        }
        Ok(())
    }
}

/// The keys of a resolved recipe with their values as written: one a line.
fn keys(text: &str) -> Vec<(String, String)> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            keys.push((format!("{table}{key}"), value.to_owned()));
        }
    }
    keys
}

/// SHA-256 of what the result depends on besides the recipe. Of the weights, which may be many gigabytes, the
/// table of names, types and shapes and the length of each file.
pub fn fingerprints(inputs: &Inputs) -> Result<Vec<(String, String)>> {
    let recipe = &inputs.recipe;
    let mut all = Vec::new();
    for path in recipe.data.train.iter().chain(&recipe.data.eval) {
        all.push((path.display().to_string(), hex(&Sha256::digest(files::read(path)?))));
    }
    let mut model = Sha256::new();
    model.update(files::read(&inputs.folder.join("config.json"))?);
    model.update(files::read(&inputs.folder.join("tokenizer.json"))?);
    for name in inputs.checkpoint.names() {
        if let Some(stored) = inputs.checkpoint.get(name) {
            model.update(format!("{name} {:?} {:?};", stored.dtype, stored.shape));
            // The first bytes of each tensor tell two models of one shape apart.
            model.update(&stored.bytes[..stored.bytes.len().min(4096)]);
        }
    }
    all.push((inputs.folder.display().to_string(), hex(&model.finalize())));
    Ok(all)
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_without_an_output_takes_the_next_free_name_and_resumes_the_last_run() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("model")).unwrap();
        fs::write(path("data.jsonl"), "").unwrap();
        fs::write(
            path("quick.toml"),
            "[model]\npath = \"model\"\n[data]\ntrain = \"data.jsonl\"\n",
        )
        .unwrap();
        let mut recipe = Recipe::read(&path("quick.toml"), &[]).unwrap();
        assert!(recipe.output.ends_with("runs/quick"));
        recipe.output = path("runs/quick");
        let settled = |resume| settle(recipe.clone(), resume).output;
        assert_eq!((settled(false), settled(true)), (path("runs/quick"), path("runs/quick")));
        for (name, file) in
            [("quick", "recipe.toml"), ("quick-2", "recipe.toml"), ("quick-3", ".lock")]
        {
            fs::create_dir_all(path("runs").join(name)).unwrap();
            fs::write(path("runs").join(name).join(file), "").unwrap();
        }
        assert_eq!((settled(false), settled(true)), (path("runs/quick-3"), path("runs/quick-2")));
        recipe.names_output = true;
        assert_eq!(settle(recipe.clone(), false).output, path("runs/quick"), "as it is written");
    }
}
