//! Texts put together from columns: Axolotl's `user_defined` forms (Axolotl 0.19,
//! `prompt_strategies/{kto,dpo}/user_defined.py`), where a recipe says how a prompt is written and Axolotl's
//! `field_*` are the recipe's `columns`.
//!
//! `{name}` is the text of a column under the name that the forms have for it, `{{` and `}}` are braces, as in Python. A
//! row without `system` or `input` has nothing there; any other column that is named must be there.

use serde_json::{Map, Value};

use super::Source;
use super::reading::KNOWN;
use crate::error::{Error, Result};
use crate::reader::kind;

/// The texts that can be put together.
pub const TARGETS: [&str; 4] = ["prompt", "completion", "chosen", "rejected"];

/// What a row need not have.
const OPTIONAL: [&str; 2] = ["system", "input"];

/// How a text is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(String),
}

impl Format {
    /// Reads what a recipe says; what is wrong with it otherwise.
    pub fn read(text: &str) -> std::result::Result<Format, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let Some((name, behind)) = rest.split_once('}').filter(|_| brace == "{") else {
                return Err(format!("has a single {brace}"));
            };
            if !KNOWN.contains(&name) {
                return Err(format!("names {{{name}}}, which no form has"));
            }
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Column(name.to_owned()));
            rest = behind;
        }
        parts.push(Part::Text(plain + rest));
        if !parts.iter().any(|part| matches!(part, Part::Column(_))) {
            return Err("names no column".to_owned());
        }
        Ok(Format { text: text.to_owned(), parts })
    }

    /// What the recipe says.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a row.
    fn of(&self, source: &Source, row: &Map<String, Value>) -> Result<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Column(name) => match row.get(name) {
                    Some(Value::String(text)) => out.push_str(text),
                    None | Some(Value::Null) if OPTIONAL.contains(&name.as_str()) => {}
                    None | Some(Value::Null) => {
                        let has: Vec<String> =
                            row.keys().take(20).map(|name| format!("'{name}'")).collect();
                        return Err(Error::input(
                            format!(
                                "{source} has no '{name}', which formats name; it has {}",
                                has.join(", ")
                            ),
                            "columns = { NAME = \"COLUMN\" } says which column of the file is meant by a name",
                        ));
                    }
                    Some(other) => {
                        return Err(Error::input(
                            format!("'{name}' is {}, {source}", kind(other)),
                            "formats put strings together; messages are written by the model's chat template",
                        ));
                    }
                },
            }
        }
        Ok(out)
    }
}

/// The row with its texts put together.
pub(crate) fn written(
    formats: &[(String, Format)],
    source: &Source,
    mut row: Map<String, Value>,
) -> Result<Map<String, Value>> {
    let texts: Vec<(&String, String)> = formats
        .iter()
        .map(|(target, format)| Ok((target, format.of(source, &row)?)))
        .collect::<Result<_>>()?;
    for (target, text) in texts {
        row.insert(target.clone(), Value::String(text));
    }
    Ok(row)
}
