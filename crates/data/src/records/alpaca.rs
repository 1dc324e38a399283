//! Instructions: `instruction`, `input` (may be empty) and `output`, with `system` and `history` where there are
//! some; instead of `output` a pair of `chosen` and `rejected`.
//!
//! As LLaMA-Factory 0.9.5 (`AlpacaDatasetConverter`): instruction and input are one message, a line end between
//! them, and the model's own chat template writes the conversation. `history` is a list of [question, answer].

use serde_json::{Map, Value, json};

use super::{Form, Source, sharegpt};
use crate::error::{Error, Result};
use crate::reader::kind;

/// A row in one of TRL's forms.
pub(super) fn convert(
    form: Form,
    source: &Source,
    mut row: Map<String, Value>,
) -> Result<Map<String, Value>> {
    let mut text = |name: &str| match row.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Error::input(
            format!("'{name}' is {}, {source}", kind(&other)),
            "instruction, input, output and system are strings",
        )),
    };
    let (instruction, input) = (text("instruction")?, text("input")?);
    let (system, output) = (text("system")?, text("output")?);
    let mut messages = Vec::new();
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        messages.push(json!({"role": "system", "content": system}));
    }
    match row.shift_remove("history") {
        None | Some(Value::Null) => {}
        Some(history) => {
            let turns = history.as_array().and_then(|turns| turns.iter().map(exchange).collect());
            let Some(turns): Option<Vec<[Value; 2]>> = turns else {
                return Err(Error::input(
                    format!("'history' is no list of [question, answer], {source}"),
                    "write [[\"question\", \"answer\"], ...], or leave it out",
                ));
            };
            messages.extend(turns.into_iter().flatten());
        }
    }
    let parts: Vec<String> =
        [instruction, input].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(Error::input(
            format!("{source} has no 'instruction'"),
            "a row has 'instruction', 'output', and where there is one an 'input'",
        ));
    }
    messages.push(json!({"role": "user", "content": parts.join("\n")}));
    let mut answer = |name: &str| {
        if let Some(Value::String(text)) = row.get(name) {
            let message = json!({"role": "assistant", "content": text});
            row.insert(name.to_owned(), message);
        }
    };
    answer("chosen");
    answer("rejected");
    let paired =
        ["chosen", "rejected"].iter().all(|name| row.get(*name).is_some_and(Value::is_object));
    if !paired || form == Form::Sft {
        let Some(output) = output else {
            return Err(Error::input(
                format!("{source} has no 'output'"),
                "a row has 'instruction' and 'output', or 'chosen' and 'rejected' instead of an output",
            ));
        };
        messages.push(json!({"role": "assistant", "content": output}));
    }
    sharegpt::rated(form, source, row, messages, "output")
}

fn exchange(turn: &Value) -> Option<[Value; 2]> {
    let (question, answer) = (turn.get(0)?.as_str()?, turn.get(1)?.as_str()?);
    Some([
        json!({"role": "user", "content": question}),
        json!({"role": "assistant", "content": answer}),
    ])
}
