//! Conversations: a list of turns under `conversations` or `messages`, each with `from` and `value` or with `role`
//! and `content`, and beside them `system` and `tools`.
//!
//! As LLaMA-Factory 0.9.5 (`SharegptDatasetConverter`): with `kto_tag` (or `label`) the last answer is rated and the
//! rest is the prompt; with `chosen` and `rejected`, each one turn, all of the conversation is the prompt. Speakers
//! are called `human`, `gpt`, `observation` and `function_call` there; the names that Axolotl takes are known too.

use serde_json::{Map, Value, json};

use super::{Form, Source};
use crate::error::{Error, Result};
use crate::reader::kind;

/// What speakers are called, and the role of each.
const SPEAKERS: [(&str, &str); 14] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("model", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("function_call", "assistant"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("tool", "tool"),
    ("system", "system"),
    ("developer", "developer"),
];

/// Whether a value is a list of turns with `from`.
pub(super) fn is_turns(value: &Value) -> bool {
    value.get(0).is_some_and(|turn| turn.get("from").is_some())
}

/// Whether a value is one turn.
pub(super) fn is_message(value: &Value) -> bool {
    ["role", "from"].iter().any(|key| value.get(*key).is_some_and(Value::is_string))
}

/// Whether a value is a list of turns of either kind.
pub(super) fn is_messages(value: &Value) -> bool {
    value.as_array().is_some_and(|turns| !turns.is_empty() && turns.iter().all(is_message))
}

/// A row in one of TRL's forms.
pub(super) fn convert(
    form: Form,
    source: &Source,
    mut row: Map<String, Value>,
) -> Result<Map<String, Value>> {
    let hint = "a row has 'conversations': [{\"from\": \"human\", \"value\": \"...\"}, ...]";
    let named = ["conversations", "messages"].into_iter().find_map(|name| {
        row.shift_remove(name).filter(|turns| !turns.is_null()).map(|it| (name, it))
    });
    let (name, turns) = match named {
        Some((name, Value::Array(turns))) => (name, turns),
        Some((name, other)) => {
            return Err(Error::input(format!("'{name}' is {}, {source}", kind(&other)), hint));
        }
        None => return Err(Error::input(format!("{source} has no 'conversations'"), hint)),
    };
    let mut messages: Vec<Value> = turns
        .into_iter()
        .enumerate()
        .map(|(index, turn)| message(turn, &format!("message {} of '{name}'", index + 1), source))
        .collect::<Result<_>>()?;
    let spoken = messages.first().is_some_and(|first| first["role"] == "system");
    match row.shift_remove("system") {
        Some(Value::String(system)) if !system.is_empty() && !spoken => {
            messages.insert(0, json!({"role": "system", "content": system}));
        }
        _ => {}
    }
    rated(form, source, row, messages, name)
}

/// Puts a conversation where the objective looks for it.
pub(super) fn rated(
    form: Form,
    source: &Source,
    mut row: Map<String, Value>,
    mut messages: Vec<Value>,
    name: &str,
) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for kept in ["tools", "chat_template_kwargs"] {
        // An empty text is how some write that there are none.
        if let Some(value) = row.shift_remove(kept).filter(|value| *value != "") {
            out.insert(kept.to_owned(), value);
        }
    }
    let mut take = |name: &str| row.shift_remove(name).filter(|value| !value.is_null());
    let label = take("label").or_else(|| take("kto_tag"));
    let pair = (take("chosen"), take("rejected"));
    match (form, label, pair) {
        (Form::Sft, None, (None, None)) => {
            out.insert("messages".to_owned(), Value::Array(messages));
        }
        (Form::Sft, ..) => {
            return Err(Error::input(
                format!("{source} is feedback, but sft imitates every row"),
                "train on it with objective.name = \"kto\" or \"dpo\"",
            ));
        }
        (_, _, (Some(chosen), Some(rejected))) => {
            out.insert("prompt".to_owned(), Value::Array(messages));
            for (name, turn) in [("chosen", chosen), ("rejected", rejected)] {
                let turn = message(turn, &format!("'{name}'"), source)?;
                out.insert(name.to_owned(), Value::Array(vec![turn]));
            }
        }
        (Form::Unpaired, Some(label), _) => {
            let Some(answer) = messages.pop().filter(|last| last["role"] == "assistant") else {
                return Err(Error::input(
                    format!("'{name}' does not end with an answer, {source}"),
                    "the last turn is the answer that the label rates",
                ));
            };
            out.insert("prompt".to_owned(), Value::Array(messages));
            out.insert("completion".to_owned(), json!([answer]));
            out.insert("label".to_owned(), label);
        }
        (Form::Unpaired, None, _) => {
            return Err(Error::input(
                format!("{source} has no 'label' and no 'kto_tag'"),
                "an answer is rated by 'label' or 'kto_tag' (true or false), or a row has 'chosen' and 'rejected'",
            ));
        }
        (Form::Paired, ..) => {
            return Err(Error::input(
                format!("{source} has no 'chosen' and 'rejected'"),
                "this objective compares two answers to one conversation",
            ));
        }
    }
    Ok(out)
}

/// A turn as a message of the chat template.
fn message(turn: Value, what: &str, source: &Source) -> Result<Value> {
    let wrong = |problem: String, hint: &str| {
        Err(Error::input(format!("{what} {problem}, {source}"), hint))
    };
    let shape = "a turn is an object such as {\"from\": \"human\", \"value\": \"...\"}";
    let mut turn = match turn {
        Value::Object(turn) => turn,
        // One turn may stand in a list of its own.
        Value::Array(mut turns) if turns.len() == 1 => {
            return message(turns.remove(0), what, source);
        }
        other => return wrong(format!("is {}", kind(&other)), shape),
    };
    let Some(Value::String(speaker)) = turn.shift_remove("from") else {
        return match turn.get("role") {
            Some(Value::String(_)) => Ok(Value::Object(turn)),
            _ => wrong("has no 'from' that is a string".to_owned(), shape),
        };
    };
    let Some((_, role)) = SPEAKERS.iter().find(|(name, _)| *name == speaker) else {
        let names: Vec<&str> = SPEAKERS.iter().map(|(name, _)| *name).collect();
        let shown: String = speaker.chars().take(40).collect();
        return wrong(format!("is from '{shown}'"), &format!("speakers are {}", names.join(", ")));
    };
    let value = turn.shift_remove("value").unwrap_or_default();
    if speaker == "function_call" {
        return match value.as_str().and_then(tool_calls) {
            Some(calls) => Ok(json!({"role": role, "content": "", "tool_calls": calls})),
            None => wrong(
                "is a function_call whose value is no call in JSON".to_owned(),
                "a call is {\"name\": \"...\", \"arguments\": {...}}, or a list of such",
            ),
        };
    }
    Ok(json!({"role": role, "content": value}))
}

/// The calls that a function_call makes, as chat templates read them.
fn tool_calls(json: &str) -> Option<Vec<Value>> {
    let calls = match serde_json::from_str(json).ok()? {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let function = |call: Value| {
        let (name, arguments) = (call.get("name")?.as_str()?, call.get("arguments")?);
        Some(json!({"type": "function", "function": {"name": name, "arguments": arguments}}))
    };
    calls.into_iter().map(function).collect()
}
