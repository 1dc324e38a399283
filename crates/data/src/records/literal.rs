//! Axolotl's forms: feedback whose prompt is written out here in the marks of ChatML or Llama 3, whatever the
//! model's own template is (Axolotl 0.19, `prompt_strategies/{kto,dpo}/{chatml,llama3}.py`; the columns of each are
//! facts of those files). What comes out is plain text, which ends with the style's own mark.
//!
//! Where Axolotl takes the first two turns of a conversation, all turns before the last one are the prompt here.

use serde_json::{Map, Value};

use super::{Form, Source};
use crate::error::{Error, Result};

/// The marks around a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `<|im_start|>` and `<|im_end|>`.
    ChatMl,
    /// `<|start_header_id|>` and `<|eot_id|>`.
    Llama3,
}

impl Style {
    fn turn(self, role: &str, text: &str) -> String {
        match self {
            Style::ChatMl => format!("<|im_start|>{role}\n{text}<|im_end|>\n"),
            Style::Llama3 => {
                format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>")
            }
        }
    }

    fn answer_begins(self) -> &'static str {
        match self {
            Style::ChatMl => "<|im_start|>assistant\n",
            Style::Llama3 => "<|start_header_id|>assistant<|end_header_id|>\n\n",
        }
    }

    fn answer_ends(self) -> &'static str {
        match self {
            Style::ChatMl => "<|im_end|>",
            Style::Llama3 => "<|eot_id|>",
        }
    }
}

/// Which columns hold what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `instruction` (in pairs also `prompt`, `input` or `question`) and `completion`, or `chosen_response` and
    /// `rejected_response`.
    Argilla,
    /// Whole conversations under `completion`, or under `chosen` and `rejected`.
    ArgillaChat,
    /// `input`.
    Icr,
    /// `question`.
    Intel,
    /// `prompt`.
    PromptPairs,
    /// `prompt`; in pairs, answers are the last turns of conversations.
    Ultra,
}

/// A row in one of TRL's forms, of plain text.
pub(super) fn convert(
    style: Style,
    layout: Layout,
    form: Form,
    source: &Source,
    row: Map<String, Value>,
) -> Result<Map<String, Value>> {
    let has = |name: &str| row.get(name).is_some_and(|value| !value.is_null());
    let paired = !has("completion");
    let question: &[&str] = match (layout, paired) {
        (Layout::Argilla, true) => &["prompt", "input", "question", "instruction"],
        (Layout::Argilla, false) => &["instruction"],
        (Layout::Icr, _) => &["input"],
        (Layout::Intel, _) => &["question"],
        (Layout::PromptPairs | Layout::Ultra, _) => &["prompt"],
        (Layout::ArgillaChat, _) => &[],
    };
    let lacks = |name: &str| {
        let fields: Vec<String> = row.keys().take(20).map(|name| format!("'{name}'")).collect();
        Error::input(
            format!("{source} has no '{name}' of text; it has {}", fields.join(", ")),
            "columns = { NAME = \"COLUMN\" } says which column is meant by a name; or write another form",
        )
    };
    if form == Form::Sft {
        return Err(Error::input(
            format!("{source} is feedback, but sft imitates every row"),
            "Axolotl's forms are for objective.name = \"kto\" or \"dpo\"",
        ));
    }
    let answers: [&[&str]; 2] = match (paired, layout) {
        (false, _) => [&["completion"], &[]],
        (true, Layout::Argilla) => {
            [&["chosen", "chosen_response"], &["rejected", "rejected_response"]]
        }
        (true, _) => [&["chosen"], &["rejected"]],
    };
    let find = |names: &[&'static str]| -> Result<(&'static str, &Value)> {
        let found = names.iter().find_map(|name| row.get(*name).map(|value| (*name, value)));
        found.filter(|(_, value)| !value.is_null()).ok_or_else(|| lacks(names[names.len() - 1]))
    };
    let mut prompt = String::new();
    if let Some(Value::String(system)) = row.get("system")
        && !system.is_empty()
        && layout != Layout::ArgillaChat
    {
        prompt += &style.turn("system", system);
    }
    if question.is_empty() {
        let (name, conversation) = find(answers[0])?;
        let turns = conversation.as_array().filter(|turns| !turns.is_empty());
        for turn in turns.map(|turns| &turns[..turns.len() - 1]).ok_or_else(|| lacks(name))? {
            let role = turn.get("role").and_then(Value::as_str);
            let text = turn.get("content").and_then(Value::as_str);
            let (Some(role), Some(text)) = (role, text) else { return Err(lacks(name)) };
            prompt += &style.turn(role, text);
        }
    } else {
        let (name, text) = find(question)?;
        prompt += &style.turn("user", text.as_str().ok_or_else(|| lacks(name))?);
    }
    prompt += style.answer_begins();
    let mut out = Map::new();
    out.insert("prompt".to_owned(), Value::String(prompt));
    let in_turns = layout == Layout::ArgillaChat || (paired && layout == Layout::Ultra);
    for (names, key) in answers.into_iter().zip([["completion", "chosen"], ["", "rejected"]]) {
        if names.is_empty() {
            continue;
        }
        let (name, value) = find(names)?;
        let text = match in_turns {
            true => value.as_array().and_then(|it| it.last()).and_then(|it| it.get("content")),
            false => Some(value),
        };
        let text = text.and_then(Value::as_str).ok_or_else(|| lacks(name))?;
        let answer = format!("{text}{}", style.answer_ends());
        out.insert(key[usize::from(paired)].to_owned(), Value::String(answer));
    }
    if !paired {
        out.insert("label".to_owned(), row.get("label").cloned().unwrap_or_default());
    }
    Ok(out)
}
