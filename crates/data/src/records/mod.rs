//! Rows of feedback in the forms TRL's trainers accept, and in those that become one of them.
//!
//! | form | fields |
//! |---|---|
//! | unpaired | `prompt`, `completion`, `label` |
//! | paired | `prompt`, `chosen`, `rejected`; without `prompt` it is the common beginning of both |
//! | sft | `messages`, or `prompt` and `completion`, or `text` |
//!
//! Text is a string or a list of messages `{role, content, ...}`. Rows may carry `tools` (a list
//! or its JSON as a string) and `chat_template_kwargs`. Other fields are ignored. [`reading`] has the other forms.

mod alpaca;
pub mod formats;
mod forms;
pub mod literal;
pub mod reading;
mod sharegpt;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

pub(crate) use forms::{Row, Shape, parse};

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
    /// The line the record begins on, or in a file without lines its row; from 1.
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
    pub(crate) fn fields(self) -> &'static str {
        match self {
            Self::Unpaired => {
                "a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"
            }
            Self::Paired => "a row has 'chosen' and 'rejected', with or without 'prompt'",
            Self::Sft => "a row has 'messages', or 'prompt' and 'completion', or 'text'",
        }
    }
}

/// Puts the completions of rows in the order that they are learnt in.
///
/// For [`Form::Paired`] the two halves of a pair are neighbours, the chosen first. For
/// [`Form::Unpaired`] paired rows come in TRL's order: of every 1000 rows first all chosen
/// completions, then all rejected ones.
pub(crate) struct Ordered<T> {
    form: Form,
    rows: usize,
    /// The second halves of the batch.
    second: Vec<T>,
}

impl<T> Ordered<T> {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, rows: 0, second: Vec::new() }
    }

    /// Adds the completions of the next row to `out`, or keeps them for later.
    pub(crate) fn push(&mut self, completions: Vec<T>, out: &mut Vec<T>) {
        if self.form != Form::Unpaired {
            out.extend(completions);
            return;
        }
        if self.rows.is_multiple_of(UNPAIR_BATCH) {
            self.end(out);
        }
        self.rows += 1;
        let mut completions = completions.into_iter();
        out.extend(completions.next());
        self.second.extend(completions);
    }

    /// Adds what was kept.
    pub(crate) fn end(&mut self, out: &mut Vec<T>) {
        out.append(&mut self.second);
    }
}

#[cfg(test)]
mod tests;
