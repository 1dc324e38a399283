//! How the rows of a source are read: in which form they are, and which columns are meant.
//!
//! TRL's forms (trl 1.16.0, `docs/source/dataset_formats.md`) are read as they stand. Others become one of them
//! first: ShareGPT and Alpaca as LLaMA-Factory 0.9.5 reads them (`data/converter.py`, its `kto_tag` included), and
//! the literal ones of Axolotl 0.19. Which form it is, the columns of the first row say, unless the recipe does.

use serde_json::{Map, Value};

use super::formats::Format;
use super::literal::{self, Layout, Style};
use super::{Form, Source, alpaca, sharegpt};
use crate::error::{Error, Result};

/// The columns that some form has.
pub const KNOWN: [&str; 19] = [
    "prompt",
    "completion",
    "label",
    "chosen",
    "rejected",
    "messages",
    "text",
    "tools",
    "chat_template_kwargs",
    "conversations",
    "system",
    "kto_tag",
    "instruction",
    "input",
    "output",
    "history",
    "question",
    "chosen_response",
    "rejected_response",
];

/// The form of a source's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reading {
    /// What the columns of the first row say.
    #[default]
    Auto,
    /// TRL's `prompt`, `completion`, `label`.
    Unpaired,
    /// TRL's `chosen` and `rejected`, with or without `prompt`.
    Paired,
    /// TRL's `prompt` and `completion`.
    PromptCompletion,
    /// TRL's `messages`; with a `label` the last answer is rated.
    Messages,
    /// TRL's `text`.
    Text,
    /// `conversations` of `from` and `value`.
    ShareGpt,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// Axolotl's `user_defined`: what [`Columns`] say, and nothing else of the row.
    UserDefined,
    /// Axolotl's forms, written out in the marks of ChatML or Llama 3.
    Literal(Style, Layout),
}

impl Reading {
    /// All of them, by the names a recipe has for them.
    pub const ALL: [(&'static str, Reading); 21] = [
        ("auto", Reading::Auto),
        ("unpaired", Reading::Unpaired),
        ("paired", Reading::Paired),
        ("prompt_completion", Reading::PromptCompletion),
        ("messages", Reading::Messages),
        ("text", Reading::Text),
        ("sharegpt", Reading::ShareGpt),
        ("alpaca", Reading::Alpaca),
        ("user_defined", Reading::UserDefined),
        ("chatml.argilla", Reading::Literal(Style::ChatMl, Layout::Argilla)),
        ("chatml.argilla_chat", Reading::Literal(Style::ChatMl, Layout::ArgillaChat)),
        ("chatml.icr", Reading::Literal(Style::ChatMl, Layout::Icr)),
        ("chatml.intel", Reading::Literal(Style::ChatMl, Layout::Intel)),
        ("chatml.prompt_pairs", Reading::Literal(Style::ChatMl, Layout::PromptPairs)),
        ("chatml.ultra", Reading::Literal(Style::ChatMl, Layout::Ultra)),
        ("llama3.argilla", Reading::Literal(Style::Llama3, Layout::Argilla)),
        ("llama3.argilla_chat", Reading::Literal(Style::Llama3, Layout::ArgillaChat)),
        ("llama3.icr", Reading::Literal(Style::Llama3, Layout::Icr)),
        ("llama3.intel", Reading::Literal(Style::Llama3, Layout::Intel)),
        ("llama3.prompt_pairs", Reading::Literal(Style::Llama3, Layout::PromptPairs)),
        ("llama3.ultra", Reading::Literal(Style::Llama3, Layout::Ultra)),
    ];

    /// The name a recipe has for it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, reading)| *reading == self).map_or("auto", |(name, _)| name)
    }

    /// A row in one of TRL's forms.
    pub(crate) fn convert(
        self,
        form: Form,
        source: &Source,
        mut row: Map<String, Value>,
    ) -> Result<Map<String, Value>> {
        let others: &[&str] = match self {
            Reading::Auto => &[],
            Reading::Unpaired => &["chosen", "rejected", "messages", "text"],
            Reading::Paired => &["completion", "label", "messages", "text"],
            Reading::PromptCompletion => &["label", "chosen", "rejected", "messages", "text"],
            Reading::Text => &["prompt", "completion", "label", "chosen", "rejected", "messages"],
            Reading::UserDefined => &["messages", "text", "conversations"],
            Reading::Messages => return sharegpt::convert(form, source, row),
            Reading::ShareGpt => return sharegpt::convert(form, source, row),
            Reading::Alpaca => return alpaca::convert(form, source, row),
            Reading::Literal(style, layout) => {
                return literal::convert(style, layout, form, source, row);
            }
        };
        row.retain(|name, _| !others.contains(&name.as_str()));
        Ok(row)
    }
}

/// What the columns of a row say about its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Detected {
    /// How to read the rows.
    pub(crate) reading: Reading,
    /// The name of the form.
    pub(crate) name: &'static str,
    /// The columns that say so.
    pub(crate) columns: Vec<&'static str>,
}

/// The form of a row; none if it is of no form that is known, and an error if it is of several.
pub(crate) fn detect(
    form: Form,
    source: &Source,
    row: &Map<String, Value>,
) -> Result<Option<Detected>> {
    let candidates = candidates(form, row);
    match candidates.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [one, other, ..] => {
            let reads = |it: &Detected| {
                let cells =
                    it.columns.iter().map(|name| format!("{name} {}", excerpt(&row[*name])));
                format!("as \"{}\": {}", it.name, cells.collect::<Vec<_>>().join(", "))
            };
            Err(Error::input(
                format!("{source} can be read in two ways: {}; {}", reads(one), reads(other)),
                format!(
                    "say which is meant: form = \"{}\" or form = \"{}\" under [data], or of its source",
                    one.name, other.name
                ),
            ))
        }
    }
}

fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn candidates(form: Form, row: &Map<String, Value>) -> Vec<Detected> {
    let has = |name: &str| row.get(name).is_some_and(|value| !value.is_null());
    let label = ["label", "kto_tag"].into_iter().find(|name| has(name));
    let turns = ["conversations", "messages"].into_iter().find(|name| {
        *name == "conversations" && has(name) || row.get(*name).is_some_and(sharegpt::is_turns)
    });
    let objects =
        ["chosen", "rejected"].iter().all(|name| row.get(*name).is_some_and(Value::is_object));
    let pair = has("chosen") && has("rejected") && !objects;
    let mut found = Vec::new();
    let mut add = |reading, name, columns: &[&'static str]| {
        found.push(Detected { reading, name, columns: columns.to_vec() });
    };
    if form == Form::Sft {
        match turns {
            Some(turns) => add(Reading::ShareGpt, "sharegpt", &[turns]),
            None if has("messages") => add(Reading::Auto, "messages", &["messages"]),
            None => {}
        }
        if has("prompt") && has("completion") {
            add(Reading::Auto, "prompt_completion", &["prompt", "completion"]);
        }
        if has("text") {
            add(Reading::Auto, "text", &["text"]);
        }
        if has("instruction") && has("output") {
            add(Reading::Alpaca, "alpaca", &["instruction", "output"]);
        }
        return found;
    }
    if form == Form::Unpaired {
        if has("prompt") && has("completion") && has("label") {
            add(Reading::Auto, "unpaired", &["prompt", "completion", "label"]);
        }
        match (turns, label) {
            (Some(turns), Some(label)) => add(Reading::ShareGpt, "sharegpt", &[turns, label]),
            (None, Some(label)) if has("messages") => {
                add(Reading::Messages, "messages", &["messages", label]);
            }
            _ => {}
        }
        if let Some(label) = label
            && has("instruction")
            && has("output")
        {
            add(Reading::Alpaca, "alpaca", &["instruction", "output", label]);
        }
    }
    match turns {
        Some(turns) if objects => {
            add(Reading::ShareGpt, "sharegpt", &[turns, "chosen", "rejected"])
        }
        _ if pair && has("prompt") => {
            add(Reading::Auto, "paired", &["prompt", "chosen", "rejected"])
        }
        _ if pair => add(Reading::Auto, "paired", &["chosen", "rejected"]),
        _ => {}
    }
    if has("instruction") && pair && row["chosen"].is_string() {
        add(Reading::Alpaca, "alpaca", &["instruction", "chosen", "rejected"]);
    }
    found
}

/// Which columns of a file are meant by the names that the forms have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Names of forms with the columns that are meant.
    pub names: Vec<(String, String)>,
    /// Texts that are put together from columns, by the names that the forms have for both.
    pub formats: Vec<(String, Format)>,
}

impl Columns {
    /// Whether a column of a file may be read.
    pub(crate) fn wants(&self, column: &str) -> bool {
        KNOWN.contains(&column) || self.names.iter().any(|(_, meant)| meant == column)
    }

    /// An error if a column that is meant is not there.
    pub(crate) fn check(&self, source: &Source, row: &Map<String, Value>) -> Result<()> {
        let Some((name, column)) = self.names.iter().find(|(_, column)| !row.contains_key(column))
        else {
            return Ok(());
        };
        let has: Vec<String> = row.keys().take(20).map(|name| format!("'{name}'")).collect();
        Err(Error::input(
            format!(
                "{source} has no column '{column}', which columns.{name} names; it has {}",
                has.join(", ")
            ),
            "columns = { NAME = \"COLUMN\" } says which column of the file is meant by a name",
        ))
    }

    /// The row under the names of the forms.
    pub(crate) fn rename(&self, mut row: Map<String, Value>) -> Map<String, Value> {
        if self.names.is_empty() {
            return row;
        }
        let meant: Vec<Value> = self
            .names
            .iter()
            .map(|(_, column)| row.get(column).cloned().unwrap_or_default())
            .collect();
        row.retain(|column, _| !self.names.iter().any(|(_, meant)| meant == column));
        for ((name, _), value) in self.names.iter().zip(meant) {
            row.insert(name.clone(), value);
        }
        row
    }
}

/// Cells of text as the values they stand for: labels, and lists or objects in JSON where a form has them.
pub(crate) fn cells(mut row: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in &mut row {
        let Value::String(text) = &*value else { continue };
        let trimmed = text.trim();
        let json = || serde_json::from_str::<Value>(trimmed).ok();
        let read = match name.as_str() {
            "label" | "kto_tag" => match trimmed.to_ascii_lowercase().as_str() {
                "true" | "1" => Some(Value::Bool(true)),
                "false" | "0" => Some(Value::Bool(false)),
                "" => Some(Value::Null),
                _ => None,
            },
            "messages"
            | "conversations"
            | "history"
            | "tools"
            | "chat_template_kwargs"
            | "system"
            | "input"
                if trimmed.is_empty() =>
            {
                Some(Value::Null)
            }
            "messages" | "conversations" | "history" | "chat_template_kwargs" => json(),
            // Text may look like JSON, and then it is text; messages look like nothing else.
            "prompt" | "completion" | "chosen" | "rejected" if trimmed.starts_with(['[', '{']) => {
                json().filter(|value| sharegpt::is_messages(value) || sharegpt::is_message(value))
            }
            _ => None,
        };
        if let Some(read) = read {
            *value = read;
        }
    }
    row
}
