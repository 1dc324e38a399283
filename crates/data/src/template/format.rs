//! Python's `'...' % values` (the Python library reference, "printf-style String Formatting"), over minijinja's.

use minijinja::Error;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Value, ValueKind};

use super::text::{python_repr, python_str};

pub(super) fn percent(template: &str, value: &Value) -> Result<String, Error> {
    if value.kind() == ValueKind::Map && template.contains("%(") {
        let mut pairs = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            pairs.push((key.as_str().unwrap_or_default().to_string(), printed(item)));
        }
        return format(FormatStyle::Printf, template, &[Value::from(Kwargs::from_iter(pairs))]);
    }
    let mut values: Vec<Value> =
        if value.is_tuple() { value.try_iter()?.collect() } else { vec![value.clone()] };
    // minijinja knows no %r and takes no float for %i: the values are made ready for those that it knows.
    let mut prepared = String::with_capacity(template.len());
    let mut index = 0;
    let mut rest = template;
    while let Some(start) = rest.find('%') {
        let length = rest[start + 1..].find(|c: char| c.is_ascii_alphabetic() || c == '%');
        let Some(length) = length else { break };
        let end = start + 1 + length;
        prepared.push_str(&rest[..end]);
        let kind = &rest[end..=end];
        if kind == "%" {
            prepared.push('%');
        } else {
            index += rest[start..end].matches('*').count();
            let value = values.get_mut(index);
            index += 1;
            prepared.push_str(match kind {
                "r" | "a" => "s",
                "i" | "u" => "d",
                kind => kind,
            });
            if let Some(value) = value {
                *value = match kind {
                    "r" | "a" => Value::from(python_repr(value)),
                    "s" => printed(value.clone()),
                    "d" | "i" | "u" => truncated(value.clone()),
                    _ => value.clone(),
                };
            }
        }
        rest = &rest[end + 1..];
    }
    prepared.push_str(rest);
    format(FormatStyle::Printf, &prepared, &values)
}

/// What `%s` prints: numbers stay what they are, for a mapping's `%(name)d`.
fn printed(value: Value) -> Value {
    match value.kind() {
        ValueKind::String => value,
        ValueKind::Number if value.is_integer() => value,
        _ => Value::from(python_str(&value)),
    }
}

fn truncated(value: Value) -> Value {
    match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or(value, |float| Value::from(float.trunc() as i128))
        }
        _ => value,
    }
}
