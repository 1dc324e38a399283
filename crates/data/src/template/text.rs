//! Values as Python's `str` writes them where a template prints them: a list or a dict inside a
//! prompt looks like Python, not like JSON.

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
            repr(value, 0, &mut out);
            out
        }
    }
}

/// Python's `repr`.
pub(super) fn python_repr(value: &Jinja) -> String {
    let mut out = String::new();
    repr(value, 0, &mut out);
    out
}

/// How deep values are printed, which bounds the stack: rows nest 128 deep at most.
const DEEPEST: usize = 500;

fn repr(value: &Jinja, depth: usize, out: &mut String) {
    if depth > DEEPEST {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(float) => out.push_str(&float_repr(float)),
            Err(_) => _ = write!(out, "{value}"),
        },
        ValueKind::Seq if value.is_tuple() => {
            out.push('(');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                separate(index, out);
                repr(&item, depth + 1, out);
            }
            out.push_str(if value.len() == Some(1) { ",)" } else { ")" });
        }
        ValueKind::Seq => {
            out.push('[');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                separate(index, out);
                repr(&item, depth + 1, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                separate(index, out);
                repr(&key, depth + 1, out);
                out.push_str(": ");
                repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
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
            _ if is_unprintable(character) => {
                let _ = match character as u32 {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x10000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
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

/// What Python's `repr` escapes: controls, formats, separators but the space, and private use.
fn is_unprintable(character: char) -> bool {
    matches!(character,
        '\0'..='\x1f' | '\x7f'..='\u{a0}' | '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}'
        | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{1680}' | '\u{180e}'
        | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}'
        | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e00ff}' | '\u{f0000}'..='\u{10ffff}')
}
