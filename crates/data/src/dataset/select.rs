//! Which examples can be trained on, and the report of them.

use std::collections::HashSet;

use super::Dataset;
use crate::error::{Error, Result};
use crate::load::{Made, Origin};
use crate::mix;
use crate::records::{Form, Source};
use crate::report::{Lengths, Noted, Part, Report};
use crate::tokens::Entry;

impl Dataset {
    /// Keeps what can be trained on.
    pub(super) fn select(
        &mut self,
        made: Made,
        origins: &[Origin],
        report: &mut Report,
    ) -> Result<()> {
        let Made { entries, summary } = made;
        let files = &self.files;
        let place =
            |file: usize, line: usize| Source { file: files[file].clone(), line }.to_string();
        let source = |entry: &Entry| place(entry.file as usize, entry.line as usize);
        report.records = summary.records;
        report.empty_completions = Noted::of(&summary.empty, place);
        report.halves = Noted::of(&summary.halves, place);
        if entries.is_empty() {
            let first = report.empty_completions.first.first().cloned().unwrap_or_default();
            return Err(Error::input(
                format!("every completion is empty, first at {first}"),
                "check the names and contents of the fields",
            ));
        }
        let fates: Vec<Fate> = entries.iter().map(|entry| fate(entry, self.max_length)).collect();
        let mut kept = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let other = fates[if self.form == Form::Paired { index ^ 1 } else { index }];
            match (fates[index], other) {
                (Fate::PromptTooLong, _) => report.prompts_too_long.add(|| source(entry)),
                (Fate::NothingScored, _) => report.nothing_scored.add(|| source(entry)),
                (fate @ Fate::Kept { .. }, Fate::Kept { .. }) => {
                    if entry.moved {
                        report.moved_prompt_tokens.add(|| source(entry));
                    }
                    if fate == (Fate::Kept { cut: true }) {
                        report.cut_completions.add(|| source(entry));
                    }
                    kept.push(*entry);
                }
                (Fate::Kept { .. }, _) => report.halves.add(|| source(entry)),
            }
        }
        drop((entries, fates));
        if kept.is_empty() {
            return Err(Error::input(
                format!(
                    "no example is left of {} records: {}",
                    report.records,
                    report.lost().join("; ")
                ),
                "raise max_length, or check that prompts and completions are in the right fields",
            ));
        }
        self.entries = kept;
        self.measure(report);
        let per_epoch = self.per_epoch(origins)?;
        let parts = origins.iter().zip(summary.origins).enumerate();
        report.parts = parts
            .map(|(number, (origin, read))| Part {
                files: origin.files.clone(),
                read,
                examples: self.entries.iter().filter(|it| usize::from(it.origin) == number).count(),
                weight: origin.weight,
                per_epoch: per_epoch[number],
            })
            .collect();
        Ok(())
    }

    /// How many examples of each origin an epoch has; an error if of one that has a weight there is none.
    fn per_epoch(&self, origins: &[Origin]) -> Result<Vec<usize>> {
        let unit = self.unit();
        let mut items = vec![0; origins.len()];
        for entry in self.entries.iter().step_by(unit) {
            items[usize::from(entry.origin)] += 1;
        }
        let Some(weights) = &self.weights else {
            return Ok(items.into_iter().map(|count| count * unit).collect());
        };
        let counts = mix::counts(weights, self.item_count());
        for (number, origin) in origins.iter().enumerate() {
            let first =
                origin.files.first().map(|file| file.display().to_string()).unwrap_or_default();
            if items[number] == 0 {
                return Err(Error::input(
                    format!("no example is left of the source of '{first}'"),
                    "its share of an epoch cannot be given: raise max_length, or remove the source",
                ));
            }
            if counts[number] == 0 {
                return Err(Error::input(
                    format!(
                        "weight = {} gives the source of '{first}' none of the {} examples of an epoch",
                        weights[number],
                        self.item_count()
                    ),
                    "raise its weight, or remove the source",
                ));
            }
        }
        Ok(counts.into_iter().map(|count| count * unit).collect())
    }

    pub(super) fn measure(&self, report: &mut Report) {
        let entries = &self.entries;
        report.examples = entries.len();
        report.desirable = entries.iter().filter(|entry| entry.label).count();
        report.undesirable = report.examples - report.desirable;
        report.prompt_tokens = Lengths::of(entries.iter().map(|entry| entry.prompt as usize));
        report.completion_tokens = Lengths::of(entries.iter().map(completion));
        let room = self.max_length.unwrap_or(usize::MAX);
        report.tokens = Lengths::of(entries.iter().map(|entry| (entry.whole as usize).min(room)));
        let distinct: HashSet<u32> = entries.iter().map(|entry| entry.family).collect();
        report.distinct_prompts = distinct.len();
    }
}

fn completion(entry: &Entry) -> usize {
    (entry.whole - entry.prompt) as usize
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    PromptTooLong,
    NothingScored,
    Kept { cut: bool },
}

fn fate(entry: &Entry, max_length: Option<usize>) -> Fate {
    let (prompt, whole) = (entry.prompt as usize, entry.whole as usize);
    let max_length = max_length.unwrap_or(usize::MAX);
    if prompt >= max_length {
        return Fate::PromptTooLong;
    }
    // Without a prompt the first token of the completion has no row that scores it.
    if whole.min(max_length) <= prompt.max(1) {
        return Fate::NothingScored;
    }
    Fate::Kept { cut: whole > max_length }
}
