//! Values as Python's `str` writes them where a template prints them: a list or a dict inside a
//! prompt looks like Python, not like JSON. (Where `~` joins a list or a dict to text, minijinja
//! writes it, with double quotes.)

use std::fmt::Write;

use minijinja::value::{Value as Jinja, ValueKind};

use super::json::float_repr;

/// Python's `str`; an undefined value is empty.
pub(super) fn python_str(value: &Jinja) -> String {
    match value.as_str() {
        Some(text) => text.to_string(),
        None if value.is_undefined() => String::new(),
        None => {
            let mut out = String::new();
            repr(value, &mut out);
            out
        }
    }
}

// The depth is bounded as that of the JSON writer is.
fn repr(value: &Jinja, out: &mut String) {
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(float) => out.push_str(&float_repr(float)),
            Err(_) => _ = write!(out, "{value}"),
        },
        ValueKind::Seq => {
            out.push('[');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                separate(index, out);
                repr(&item, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                separate(index, out);
                repr(&key, out);
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), out);
            }
            out.push('}');
        }
        _ => _ = write!(out, "{value}"),
    }
}

fn separate(index: usize, out: &mut String) {
    if index > 0 {
        out.push_str(", ");
    }
}

/// A string in the quotes Python chooses: single ones, unless it has those and no double ones.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", character as u32);
            }
            _ => {
                if character == quote {
                    out.push('\\');
                }
                out.push(character);
            }
        }
    }
    out.push(quote);
}
