//! A JSON object becomes a row of one of the accepted forms (trl 1.16.0, `data_utils.py`).

use std::fmt;

use serde_json::{Map, Value};

use super::{Form, Message, Source, Text};
use crate::error::{Error, Result};
use crate::reader::kind;

/// The form of a row, which all rows of a run share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    kind: Kind,
    conversational: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unpaired,
    Paired,
    ImplicitPaired,
    PromptCompletion,
    Messages,
    Text,
}

impl Shape {
    /// Whether the rows are messages.
    pub(crate) fn is_conversational(self) -> bool {
        self.conversational
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = match self.kind {
            Kind::Unpaired => "prompt, completion, label",
            Kind::Paired => "prompt, chosen, rejected",
            Kind::ImplicitPaired => "chosen, rejected",
            Kind::PromptCompletion => "prompt, completion",
            Kind::Messages => return formatter.write_str("messages"),
            Kind::Text => return formatter.write_str("text"),
        };
        let text = if self.conversational { "messages" } else { "plain text" };
        write!(formatter, "{fields} of {text}")
    }
}

/// A row: a prompt with one rated completion, or with the two of a pair.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) shape: Shape,
    pub(crate) source: Source,
    pub(crate) prompt: Text,
    /// Completions with their labels.
    pub(crate) completions: Vec<(Text, bool)>,
    pub(crate) tools: Option<Value>,
    pub(crate) template_kwargs: Map<String, Value>,
}

pub(crate) fn parse(form: Form, source: Source, mut row: Map<String, Value>) -> Result<Row> {
    let fields: Vec<String> = row
        .iter()
        .map(|(key, value)| format!("'{key}'{}", if value.is_null() { " (null)" } else { "" }))
        .collect();
    row.retain(|_, value| !value.is_null());
    let has = |key: &str| row.contains_key(key);
    let unfit = |problem: &str| {
        let found = if fields.is_empty() { "no field".to_string() } else { fields.join(", ") };
        Error::input(format!("{source} {problem}; it has {found}"), form.fields())
    };
    let wanted = match form {
        Form::Unpaired | Form::Paired if has("chosen") || has("rejected") => {
            if !has("chosen") {
                return Err(unfit("has no 'chosen'"));
            }
            if !has("rejected") {
                return Err(unfit("has no 'rejected'"));
            }
            if has("prompt") { Kind::Paired } else { Kind::ImplicitPaired }
        }
        Form::Paired if has("label") => {
            return Err(unfit("is rated on its own, but this objective compares pairs"));
        }
        Form::Paired => return Err(unfit("has no 'chosen' and 'rejected'")),
        Form::Unpaired => {
            for field in ["prompt", "completion", "label"] {
                if !has(field) {
                    return Err(unfit(&format!("has no '{field}'")));
                }
            }
            Kind::Unpaired
        }
        Form::Sft if has("label") || has("rejected") => {
            return Err(unfit("is feedback, but sft imitates every row"));
        }
        Form::Sft if has("messages") => Kind::Messages,
        Form::Sft if has("prompt") && has("completion") => Kind::PromptCompletion,
        Form::Sft if has("text") => Kind::Text,
        Form::Sft if has("prompt") => return Err(unfit("has no 'completion'")),
        Form::Sft => return Err(unfit("has no field to train on")),
    };
    let tools = tools(row.remove("tools"), &source)?;
    let template_kwargs = match row.remove("chat_template_kwargs") {
        None => Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => {
            return Err(Error::input(
                format!("'chat_template_kwargs' is {}, {source}", kind(&other)),
                "give an object such as {\"enable_thinking\": false}",
            ));
        }
    };
    let mut take = |key: &str| text(row.remove(key).unwrap_or_default(), key, &source);
    let (kind, prompt, completions) = match wanted {
        Kind::Unpaired => {
            let (prompt, completion) = (take("prompt")?, take("completion")?);
            same_kind(&source, ("prompt", &prompt), ("completion", &completion))?;
            (wanted, prompt, vec![(completion, label(row.remove("label"), &source)?)])
        }
        Kind::Paired | Kind::ImplicitPaired => {
            let (chosen, rejected) = (take("chosen")?, take("rejected")?);
            same_kind(&source, ("chosen", &chosen), ("rejected", &rejected))?;
            let prompt = if wanted == Kind::Paired { Some(take("prompt")?) } else { None };
            let (kind, prompt, chosen, rejected) = match (prompt, &chosen) {
                // Some datasets repeat the question as a string beside whole conversations; the
                // prompt is then the common beginning, as where there is no `prompt`.
                (Some(Text::Plain(_)), Text::Messages(_)) | (None, _) => {
                    let (prompt, chosen, rejected) = extract_prompt(chosen, rejected);
                    (Kind::ImplicitPaired, prompt, chosen, rejected)
                }
                (Some(prompt), _) => {
                    same_kind(&source, ("prompt", &prompt), ("chosen", &chosen))?;
                    (Kind::Paired, prompt, chosen, rejected)
                }
            };
            (kind, prompt, vec![(chosen, true), (rejected, false)])
        }
        Kind::PromptCompletion => {
            let (prompt, completion) = (take("prompt")?, take("completion")?);
            same_kind(&source, ("prompt", &prompt), ("completion", &completion))?;
            (wanted, prompt, vec![(completion, true)])
        }
        Kind::Messages => {
            let (prompt, completion) = last_answer(take("messages")?, &source)?;
            (wanted, prompt, vec![(completion, true)])
        }
        Kind::Text => {
            let text = take("text")?;
            if let Text::Messages(_) = text {
                return Err(Error::input(
                    format!("'text' is a list of messages, {source}"),
                    "call the field 'messages'",
                ));
            }
            (wanted, Text::Plain(String::new()), vec![(text, true)])
        }
    };
    if let Text::Messages(messages) = &prompt
        && messages.is_empty()
    {
        return Err(match kind {
            Kind::ImplicitPaired => Error::input(
                format!("'chosen' and 'rejected' begin with different messages, {source}"),
                "both must begin with the same messages, which are the prompt; or give a 'prompt'",
            ),
            _ => Error::input(
                format!("the prompt has no message, {source}"),
                "a conversation begins with at least one message before the answer",
            ),
        });
    }
    let shape = Shape { kind, conversational: matches!(prompt, Text::Messages(_)) };
    Ok(Row { shape, source, prompt, completions, tools, template_kwargs })
}

fn label(value: Option<Value>, source: &Source) -> Result<bool> {
    match value.unwrap_or_default() {
        Value::Bool(label) => Ok(label),
        other => {
            let text = other.to_string();
            let shown = match text.char_indices().nth(40) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            };
            Err(Error::input(
                format!("'label' is {shown}, not a boolean, {source}"),
                "write true for a desirable completion and false for an undesirable one; \
                 a score or a star rating needs a threshold that only you can choose",
            ))
        }
    }
}

fn text(value: Value, key: &str, source: &Source) -> Result<Text> {
    let list = match value {
        Value::String(text) => return Ok(Text::Plain(text)),
        Value::Array(list) => list,
        other => {
            return Err(Error::input(
                format!("'{key}' is {}, {source}", kind(&other)),
                "give a string or a list of messages {\"role\": \"...\", \"content\": \"...\"}",
            ));
        }
    };
    let messages = list.into_iter().enumerate();
    messages
        .map(|(index, value)| message(value, key, index, source))
        .collect::<Result<_>>()
        .map(Text::Messages)
}

fn message(value: Value, key: &str, index: usize, source: &Source) -> Result<Message> {
    let wrong = |problem: String, hint: &str| {
        Err(Error::input(format!("message {} of '{key}' {problem}, {source}", index + 1), hint))
    };
    let shape = "a message is an object such as {\"role\": \"user\", \"content\": \"...\"}";
    let map = match value {
        Value::Object(map) => map,
        other => return wrong(format!("is {}", kind(&other)), shape),
    };
    match map.get("role") {
        Some(Value::String(_)) => {}
        None if map.contains_key("from") => {
            return wrong(
                "has 'from' and no 'role'".to_string(),
                "rename 'from' to 'role' (human to user, gpt to assistant) and 'value' to 'content'",
            );
        }
        None => return wrong("has no 'role'".to_string(), shape),
        Some(other) => return wrong(format!("has a 'role' that is {}", kind(other)), shape),
    }
    match map.get("content") {
        None | Some(Value::Null | Value::String(_) | Value::Array(_)) => Ok(map),
        Some(other) => wrong(
            format!("has a 'content' that is {}", kind(other)),
            "the content is a string or a list of parts such as {\"type\": \"text\", \"text\": \"...\"}",
        ),
    }
}

fn tools(value: Option<Value>, source: &Source) -> Result<Option<Value>> {
    let hint = "give a list of tool schemas, or that list as a JSON string";
    let value = match value {
        Some(Value::String(json)) => serde_json::from_str(&json).map_err(|error| {
            Error::input(format!("'tools' is not JSON ({error}), {source}"), hint)
        })?,
        other => other.unwrap_or_default(),
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(_) => Ok(Some(value)),
        other => Err(Error::input(format!("'tools' is {}, {source}", kind(&other)), hint)),
    }
}

fn same_kind(source: &Source, one: (&str, &Text), other: (&str, &Text)) -> Result<()> {
    let word = |text: &Text| match text {
        Text::Plain(_) => "plain text",
        Text::Messages(_) => "a list of messages",
    };
    if word(one.1) == word(other.1) {
        return Ok(());
    }
    Err(Error::input(
        format!("'{}' is {} but '{}' is {}, {source}", one.0, word(one.1), other.0, word(other.1)),
        "give strings throughout or lists of messages throughout",
    ))
}

/// Splits a conversation before its last message, which must be the assistant's.
fn last_answer(text: Text, source: &Source) -> Result<(Text, Text)> {
    let Text::Messages(mut messages) = text else {
        return Err(Error::input(
            format!("'messages' is a string, {source}"),
            "give a list of messages, or call the field 'text'",
        ));
    };
    match messages.pop() {
        Some(last) if last.get("role").and_then(Value::as_str) == Some("assistant") => {
            Ok((Text::Messages(messages), Text::Messages(vec![last])))
        }
        Some(last) => Err(Error::input(
            format!("the last message has the role {}, not \"assistant\", {source}", last["role"]),
            "a demonstration ends with the answer to imitate",
        )),
        None => Err(Error::input(
            format!("'messages' is empty, {source}"),
            "a demonstration has at least a question and an answer",
        )),
    }
}

/// TRL's `extract_prompt`: the common beginning, in characters or messages. A space before the
/// first difference goes to the completions, and where one side is the beginning of the other
/// the last common item does.
fn extract_prompt(chosen: Text, rejected: Text) -> (Text, Text, Text) {
    match (chosen, rejected) {
        (Text::Messages(mut chosen), Text::Messages(mut rejected)) => {
            let split = split_point(&chosen, &rejected, |_| false);
            let chosen_end = chosen.split_off(split);
            (
                Text::Messages(chosen),
                Text::Messages(chosen_end),
                Text::Messages(rejected.split_off(split)),
            )
        }
        (Text::Plain(chosen), Text::Plain(rejected)) => {
            let characters = |text: &str| text.chars().collect::<Vec<char>>();
            let (one, other) = (characters(&chosen), characters(&rejected));
            let split = split_point(&one, &other, |&character| character == ' ');
            let join = |characters: &[char]| Text::Plain(characters.iter().collect());
            (join(&one[..split]), join(&one[split..]), join(&other[split..]))
        }
        // The caller has compared the kinds.
        (chosen, rejected) => (Text::Plain(String::new()), chosen, rejected),
    }
}

fn split_point<T: PartialEq>(one: &[T], other: &[T], is_space: impl Fn(&T) -> bool) -> usize {
    let common = one.len().min(other.len());
    match (0..common).find(|&index| one[index] != other[index]) {
        Some(index) if index > 0 && is_space(&one[index - 1]) => index - 1,
        Some(index) => index,
        None => common.saturating_sub(1),
    }
}
