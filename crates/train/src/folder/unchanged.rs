//! What a resumed run must find as it was, and what may have changed.

use data::files;
use data::template::Moment;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Folder;
use crate::checksum::{self, hex};
use crate::error::{Error, Result};
use crate::fit::Policy;
use crate::inputs::Inputs;
use crate::recipe::Recipe;

/// `run.json`: what a resumed run must find unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// The version of Prospect.
    pub prospect: String,
    /// What computes, see [`crate::machine::Machine::name`].
    pub machine: String,
    /// SHA-256 of `recipe.toml`.
    pub recipe: String,
    /// What the planner chose.
    pub policy: Policy,
    /// The moment a chat template writes into prompts.
    pub template_moment: Moment,
    /// SHA-256 of every file that the result depends on.
    pub fingerprints: Vec<(String, String)>,
}

/// Keys that may change between a run and its continuation, because the result does not depend on them.
const HARMLESS: [&str; 9] = [
    "data.cache",
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "train.save_minutes",
    "train.keep_checkpoints",
    "train.max_bad_batches",
    "train.threads",
    "train.memory_limit",
];

impl Folder {
    /// Refuses to go on where the recipe, the data, the model or the program changed what the result depends on.
    /// Gives the changes that are harmless, a sentence each.
    pub fn check_unchanged(
        &self,
        recipe: &Recipe,
        then: &RunFile,
        now: &RunFile,
    ) -> Result<Vec<String>> {
        let place = self.path.join("recipe.toml");
        let old = files::read(&place)?;
        let old = match String::from_utf8(old) {
            Ok(text) if checksum::of(text.as_bytes()) == then.recipe => text,
            _ => {
                return Err(Error::input(
                    format!("'{}' is damaged: it is not what was written", place.display()),
                    "a run is changed by its own recipe or by --set; start anew in another folder by --set output=...",
                ));
            }
        };
        let changed = |what: String| {
            Err(Error::input(
                format!("{what} since the run in '{}' began", self.path.display()),
                "a resumed run must give what the whole run would have given: undo the change, or start anew in another folder by --set output=...",
            ))
        };
        let (old, new) = (keys(&old), keys(&recipe.to_toml()));
        let mut harmless = Vec::new();
        for (key, value) in &new {
            let before = old.iter().find(|(name, _)| name == key).map(|(_, value)| value);
            let words =
                || format!("{key} = {value} was {}", before.map_or("not written", String::as_str));
            match before == Some(value) {
                true => {}
                false if HARMLESS.contains(&key.as_str()) => {
                    harmless.push(format!("{}; the result does not depend on it", words()));
                }
                false => return changed(words()),
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
        if then.machine != now.machine {
            return changed(format!("{} computes now, it was {},", now.machine, then.machine));
        }
        let find = |all: &[(String, String)], wanted: &str| {
            all.iter().find(|(name, _)| name == wanted).map(|(_, sum)| sum.clone())
        };
        for (name, _) in then.fingerprints.iter().chain(&now.fingerprints) {
            match (find(&then.fingerprints, name), find(&now.fingerprints, name)) {
                (Some(then), Some(now)) if then == now => {}
                (Some(_), Some(_)) => return changed(format!("{name} changed")),
                (Some(_), None) => return changed(format!("{name} was removed")),
                (None, _) => return changed(format!("{name} was added")),
            }
        }
        Ok(harmless)
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

/// SHA-256 of what the result depends on besides the recipe: data, model, tokenizer, template, adapter, prompts.
pub fn fingerprints(inputs: &Inputs) -> Result<Vec<(String, String)>> {
    let recipe = &inputs.recipe;
    let prompts = recipe.generate.iter().map(|generate| &generate.prompts);
    let mut all = Vec::new();
    let held_out = inputs.eval.iter().flat_map(|(eval, _)| eval.sums());
    for (path, sum) in inputs.dataset.sums().chain(held_out) {
        all.push((path.display().to_string(), sum.to_owned()));
    }
    for path in prompts {
        all.push((path.display().to_string(), checksum::of(&files::read(path)?)));
    }
    let adapter = recipe.adapter.as_ref().and_then(|adapter| adapter.init_from.as_ref());
    let of_model = MODEL_FILES.iter().map(|name| inputs.folder.join(name));
    let of_adapter = adapter.iter().flat_map(|folder| ADAPTER_FILES.map(|name| folder.join(name)));
    for path in of_model.chain(of_adapter).filter(|path| path.exists()) {
        all.push((path.display().to_string(), checksum::of(&files::read(&path)?)));
    }
    // Of weights the sum of each tensor, on all cores, and the sum of these in their order.
    let Some(checkpoint) = &inputs.checkpoint else { return Ok(all) };
    let names: Vec<&str> = checkpoint.names().collect();
    let sums: Vec<String> = names
        .par_iter()
        .filter_map(|name| {
            let stored = checkpoint.get(name)?;
            let (dtype, shape) = (stored.dtype, stored.shape);
            Some(format!("{name} {dtype:?} {shape:?} {};", checksum::of(stored.bytes)))
        })
        .collect();
    let mut weights = Sha256::new();
    sums.iter().for_each(|sum| weights.update(sum));
    all.push((format!("the weights in {}", inputs.folder.display()), hex(&weights.finalize())));
    Ok(all)
}

/// Files of a model, besides its weights, that change what is trained or how.
const MODEL_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
];

const ADAPTER_FILES: [&str; 2] = [models::adapter::CONFIG, models::adapter::WEIGHTS];
