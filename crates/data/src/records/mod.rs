//! Records: rows of feedback in the forms TRL's trainers accept.
//!
//! | form | fields |
//! |---|---|
//! | unpaired | `prompt`, `completion`, `label` |
//! | paired | `prompt`, `chosen`, `rejected`; without `prompt` it is the common beginning of both |
//! | sft | `messages`, or `prompt` and `completion`, or `text` |
//!
//! Text is a string or a list of messages `{role, content, ...}`. Rows may carry `tools` (a list
//! or its JSON as a string) and `chat_template_kwargs`. Other fields are ignored.

mod forms;
mod lines;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// TRL unpairs a dataset in map batches of this many rows, which decides the order of the
/// unpaired rows: all chosen of a batch, then all rejected of it.
const UNPAIR_BATCH: usize = 1000;

/// One chat message: `role`, `content`, and whatever else the template reads.
pub type Message = Map<String, Value>;

/// Where a record was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as it was named.
    pub file: Arc<Path>,
    /// The line the record begins on, from 1.
    pub line: usize,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// A prompt or a completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {
    /// Text that is tokenized as it stands.
    Plain(String),
    /// Messages that go through the chat template.
    Messages(Vec<Message>),
}

impl Text {
    /// Whether there is nothing to learn from: no text, or messages with nothing but a role.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Plain(text) => text.is_empty(),
            Self::Messages(messages) => messages.iter().all(|message| {
                message.iter().all(|(key, value)| match value {
                    _ if key == "role" => true,
                    Value::Null => true,
                    Value::String(text) => text.is_empty(),
                    Value::Array(items) => items.is_empty(),
                    _ => false,
                })
            }),
        }
    }
}

/// One rated completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What the model was asked.
    pub prompt: Text,
    /// What it answered.
    pub completion: Text,
    /// Whether the answer is desirable.
    pub label: bool,
    /// Where it was read.
    pub source: Source,
    /// The pair it was read from; its other half has the same number.
    pub pair: Option<u32>,
    /// The tools offered to the chat template.
    pub tools: Option<Value>,
    /// Further variables of the chat template.
    pub template_kwargs: Map<String, Value>,
}

/// What an objective needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Labelled completions (kto, apo_zero_unpaired); paired rows are unpaired.
    Unpaired,
    /// Chosen and rejected completions of one prompt (dpo).
    Paired,
    /// Demonstrations.
    Sft,
}

impl Form {
    /// The fields a row must have, for hints.
    fn fields(self) -> &'static str {
        match self {
            Self::Unpaired => {
                "a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"
            }
            Self::Paired => "a row has 'chosen' and 'rejected', with or without 'prompt'",
            Self::Sft => "a row has 'messages', or 'prompt' and 'completion', or 'text'",
        }
    }
}

/// Reads the records of all `paths`, in order.
///
/// For [`Form::Paired`] the two halves of a pair are neighbours, the chosen first. For
/// [`Form::Unpaired`] paired rows come in TRL's order: of every 1000 rows first all chosen
/// completions, then all rejected ones.
pub fn read(paths: &[PathBuf], form: Form) -> Result<Vec<Record>> {
    if paths.is_empty() {
        return Err(Error::input("no data file is given", "name at least one JSONL file"));
    }
    let mut rows = Vec::new();
    let mut first: Option<(forms::Shape, Source)> = None;
    for path in paths {
        for (source, row) in lines::read(path)? {
            let row = forms::parse(form, source, row)?;
            match &first {
                None => first = Some((row.shape, row.source.clone())),
                Some((shape, _)) if *shape == row.shape => {}
                Some((shape, source)) => {
                    return Err(Error::input(
                        format!(
                            "{} is {}, but the first row, {source}, is {}",
                            row.source, row.shape, shape
                        ),
                        "give rows of one form; train on the others in a run of their own, or convert them",
                    ));
                }
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::input(
            format!("there is no record in {}", names.join(", ")),
            form.fields(),
        ));
    }
    Ok(match form {
        Form::Paired | Form::Sft => {
            rows.into_iter().enumerate().flat_map(|(number, row)| row.records(number)).collect()
        }
        Form::Unpaired => unpair(rows),
    })
}

/// All first records of each batch of rows, then all second ones; unpaired rows have no second.
fn unpair(rows: Vec<forms::Row>) -> Vec<Record> {
    let mut records = Vec::with_capacity(rows.len());
    let mut second = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        if number % UNPAIR_BATCH == 0 {
            records.append(&mut second);
        }
        let mut halves = row.records(number).into_iter();
        records.extend(halves.next());
        second.extend(halves);
    }
    records.append(&mut second);
    records
}

#[cfg(test)]
mod tests;
