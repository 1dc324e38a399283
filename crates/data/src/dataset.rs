//! A dataset: files in, optimizer steps out.

mod epoch;
mod select;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::cache::{self, Cache};
use crate::error::{Error, Result};
use crate::load::Origin;
use crate::records::{Form, Source};
use crate::report::Report;
use crate::sampler::{self, Order};
use crate::template::Moment;
use crate::tokenize::{Example, Tokenization};
use crate::tokenizer::Tokenizer;
use crate::tokens::{Entry, Tokens};
use crate::{files, mix};
pub use epoch::Epoch;
use epoch::Ids;

/// How files become examples.
#[derive(Clone, Copy, Debug)]
pub struct DataOptions {
    /// What the objective needs.
    pub form: Form,
    /// Prompt and completion are cut at this many tokens; `None` cuts nothing.
    pub max_length: Option<usize>,
    /// The moment a chat template may write into prompts; a resumed run gives the moment of the
    /// run it goes on with ([`Report::template_moment`]).
    pub now: Moment,
}

/// How examples become steps. Zero counts as one in the sizes.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// The order within an epoch.
    pub order: Order,
    /// The seed of order and partners.
    pub seed: u64,
    /// Examples in a KL group; pairs, for [`Form::Paired`].
    pub batch_size: usize,
    /// Groups in an optimizer step; the last step of an epoch may have fewer.
    pub gradient_accumulation_steps: usize,
    /// Rows a micro-batch may have.
    pub token_budget: usize,
    /// Whether the objective needs mismatched completions.
    pub mismatched: bool,
    /// Whether those of a group that is split stay with its rated completions.
    pub together: bool,
    /// Whether the prompts of chosen completions are scored too.
    pub scored_prompts: bool,
}

/// Tokenized examples. Of each some numbers are in memory; the tokens may be in a file.
#[derive(Clone, Debug)]
pub struct Dataset {
    tokens: Tokens,
    entries: Vec<Entry>,
    files: Vec<Arc<Path>>,
    /// SHA-256 of the files.
    sums: Vec<String>,
    form: Form,
    max_length: Option<usize>,
    /// The weight of each origin, if they have weights.
    weights: Option<Vec<f64>>,
}

/// An example as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// `file:line` of the record.
    pub source: String,
    /// Whether the completion is desirable.
    pub label: bool,
    /// The text the model is given, special tokens included.
    pub prompt: String,
    /// The text that is scored, after cutting.
    pub completion: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the completion that are kept.
    pub completion_tokens: usize,
    /// Tokens of the completion that are cut off.
    pub cut_tokens: usize,
}

impl Dataset {
    /// Reads and tokenizes files, their form found out by their first row, and reports what was dropped and cut.
    pub fn load(
        paths: &[PathBuf],
        tokenizer: &Tokenizer,
        options: &DataOptions,
    ) -> Result<(Self, Report)> {
        let origin = Origin { files: paths.to_vec(), ..Origin::default() };
        Self::open(&[origin], None, tokenizer, options)
    }

    /// Reads and tokenizes origins, or takes their tokens from the cache, and reports what was dropped and cut.
    pub fn open(
        origins: &[Origin],
        cache: Option<&Cache>,
        tokenizer: &Tokenizer,
        options: &DataOptions,
    ) -> Result<(Self, Report)> {
        let DataOptions { form, max_length, now } = *options;
        let paths: Vec<PathBuf> =
            origins.iter().flat_map(|origin| &origin.files).cloned().collect();
        if paths.is_empty() {
            return Err(Error::input("no data file is given", "name at least one JSONL file"));
        }
        if origins.len() > usize::from(u16::MAX) {
            return Err(Error::input(
                format!("{} sources of data are given", origins.len()),
                "name folders or patterns: one source may have many files",
            ));
        }
        let sums: Vec<Result<String>> = paths.par_iter().map(|path| files::sum(path)).collect();
        let sums = sums.into_iter().collect::<Result<Vec<_>>>()?;
        let state = || paths.iter().map(|path| files::state(path)).collect::<Vec<_>>();
        let before = state();
        let names: Vec<Arc<Path>> = paths.iter().map(|path| Arc::from(path.as_path())).collect();
        let tokenization = Tokenization::new(tokenizer, form, now);
        let bytes: u64 = before.iter().flatten().map(|(bytes, _)| bytes).sum();
        let (tokens, made, word) = match cache.filter(|cache| bytes >= cache.least) {
            Some(cache) => cache.tokenized(origins, &names, &sums, &tokenization, now)?,
            None => {
                let (tokens, made) = cache::in_memory(origins, &names, &tokenization)?;
                (tokens, made, None)
            }
        };
        if let Some(changed) = state().iter().zip(&before).position(|(now, then)| now != then) {
            return Err(Error::input(
                format!("'{}' changed while it was read", paths[changed].display()),
                "wait until it is written, then start again",
            ));
        }
        let weights: Option<Vec<f64>> = origins.iter().map(|origin| origin.weight).collect();
        let mut dataset =
            Self { tokens, entries: Vec::new(), files: names, sums, form, max_length, weights };
        let mut report = Report { files: paths, cache: word, ..Report::default() };
        if made.summary.reads_clock {
            report.template_moment = Some(now);
        }
        dataset.select(made, origins, &mut report)?;
        Ok((dataset, report))
    }

    /// How many examples there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Made-up examples of one length, for plans: the labels alternate, and no two prompts are the same.
    pub fn made_up(form: Form, count: usize, prompt: usize, completion: usize) -> (Self, Report) {
        let (whole, mut ids) = (prompt + completion, vec![0; count * (prompt + completion)]);
        for (index, ids) in ids.chunks_mut(whole.max(1)).enumerate() {
            // Token 0 and token 1 are in every vocabulary: the number in binary, as far as there is room.
            let bits = (0..usize::BITS).map(|bit| (index >> bit & 1) as u32);
            ids[..prompt].iter_mut().zip(bits).for_each(|(id, bit)| *id = bit);
        }
        let entry = |index: usize| Entry {
            start: (index * whole) as u64,
            line: index as u64 + 1,
            whole: whole as u32,
            prompt: prompt as u32,
            family: if form == Form::Paired { index / 2 } else { index } as u32,
            largest: 1,
            file: 0,
            origin: 0,
            label: index.is_multiple_of(2),
            moved: false,
        };
        let dataset = Self {
            tokens: Tokens::Held(Arc::new(ids)),
            entries: (0..count).map(entry).collect(),
            files: vec![Path::new("made up").into()],
            sums: Vec::new(),
            form,
            max_length: None,
            weights: None,
        };
        let mut report = Report { records: count, ..Report::default() };
        dataset.measure(&mut report);
        (dataset, report)
    }

    /// The examples, in the order of the files.
    pub fn examples(&self) -> impl Iterator<Item = Example> + '_ {
        (0..self.entries.len()).map(|index| self.example(index))
    }

    /// An example; it is below [`Dataset::count`].
    pub fn example(&self, index: usize) -> Example {
        let entry = &self.entries[index];
        let (prompt, completion) = self.ids(entry);
        Example {
            prompt_ids: prompt.into_owned(),
            completion_ids: completion.into_owned(),
            label: entry.label,
            source: self.source(index),
            pair: (self.form == Form::Paired).then_some(index ^ 1),
            family: entry.family as usize,
        }
    }

    /// Where an example was read; it is below [`Dataset::count`].
    pub fn source(&self, index: usize) -> Source {
        let entry = &self.entries[index];
        Source { file: self.files[entry.file as usize].clone(), line: entry.line as usize }
    }

    /// Where the first example was read that has a token of this id or above.
    pub fn first_beyond(&self, id: usize) -> Option<Source> {
        let beyond = |entry: &Entry| entry.largest as usize >= id;
        self.entries.iter().position(beyond).map(|index| self.source(index))
    }

    /// The files with their SHA-256, in the order read.
    pub fn sums(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter().map(|file| &**file).zip(self.sums.iter().map(String::as_str))
    }

    /// Prompt and completion of an example.
    fn ids(&self, entry: &Entry) -> Ids<'_> {
        let prompt = self.tokens.get(entry.start, entry.prompt);
        let start = entry.start + u64::from(entry.prompt);
        (prompt, self.tokens.get(start, entry.whole - entry.prompt))
    }

    /// What the objective needs.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Where prompt and completion are cut.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The optimizer steps of an epoch.
    pub fn steps_per_epoch(&self, batching: &Batching) -> usize {
        let groups = self.item_count().div_ceil(batching.batch_size.max(1));
        groups.div_ceil(batching.gradient_accumulation_steps.max(1))
    }

    /// Epoch `number`, from 0.
    pub fn epoch(&self, batching: &Batching, number: u64) -> Epoch<'_> {
        let classes: Vec<bool> = match self.form {
            Form::Paired => vec![true; self.item_count()],
            Form::Unpaired | Form::Sft => self.entries.iter().map(|entry| entry.label).collect(),
        };
        let items = match (&self.weights, batching.order) {
            (Some(weights), Order::Shuffled) => {
                let entries = self.entries.iter().step_by(self.unit());
                let origins: Vec<usize> = entries.map(|entry| entry.origin.into()).collect();
                mix::epoch(&origins, &classes, weights, batching.seed, number)
            }
            _ => sampler::epoch(batching.order, &classes, batching.seed, number),
        };
        Epoch { dataset: self, batching: *batching, number, items }
    }

    /// An example with the boundary between prompt and completion visible.
    pub fn rendered(&self, index: usize, tokenizer: &Tokenizer) -> Result<Rendered> {
        if index >= self.entries.len() {
            return Err(Error::input(
                format!("there is no example {index}; the dataset has {}", self.entries.len()),
                "examples are numbered from 0",
            ));
        }
        let example = self.example(index);
        let kept = example.room_for(&example.completion_ids, self.max_length);
        Ok(Rendered {
            source: example.source.to_string(),
            label: example.label,
            prompt: tokenizer.decode(&example.prompt_ids, false)?,
            completion: tokenizer.decode(&example.completion_ids[..kept], false)?,
            prompt_tokens: example.prompt_ids.len(),
            completion_tokens: kept,
            cut_tokens: example.completion_ids.len() - kept,
        })
    }

    /// Examples, or pairs of them.
    fn item_count(&self) -> usize {
        self.entries.len() / self.unit()
    }

    /// Examples in an item.
    fn unit(&self) -> usize {
        if self.form == Form::Paired { 2 } else { 1 }
    }
}

#[cfg(test)]
mod tests;
