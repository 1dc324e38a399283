//! Files of JSON rows: JSON lines (one object per line, blank lines skipped), or one JSON array
//! of objects.

use std::path::Path;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::Source;
use crate::error::{Error, Result};
use crate::files;

/// The rows of a file with the line each begins on.
pub(super) fn read(path: &Path) -> Result<Vec<(Source, Map<String, Value>)>> {
    let bytes = files::read(path)?;
    for (magic, what) in [(&b"PAR1"[..], "a Parquet file"), (&b"\x1f\x8b"[..], "compressed (gzip)")]
    {
        if bytes.starts_with(magic) {
            return Err(Error::input(
                format!("'{}' is {what}", path.display()),
                "convert it to JSON lines first, one object per line",
            ));
        }
    }
    let text = files::into_text(path, bytes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let file: Arc<Path> = Arc::from(path);
    if text.trim_start().starts_with('[') { array(text, &file) } else { json_lines(text, &file) }
}

fn json_lines(text: &str, file: &Arc<Path>) -> Result<Vec<(Source, Map<String, Value>)>> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let source = Source { file: file.clone(), line: index + 1 };
        let value = serde_json::from_str(line)
            .map_err(|error| malformed(&error, &source, error.column()))?;
        rows.push((source.clone(), object(value, &source)?));
    }
    Ok(rows)
}

fn array(text: &str, file: &Arc<Path>) -> Result<Vec<(Source, Map<String, Value>)>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
        let source = Source { file: file.clone(), line: error.line() };
        malformed(&error, &source, error.column())
    })?;
    let mut rows = Vec::with_capacity(elements.len());
    let (mut line, mut counted) = (1, 0);
    for element in elements {
        // A raw element borrows from the text, so its address tells where it begins.
        let offset = element.get().as_ptr() as usize - text.as_ptr() as usize;
        line += text.as_bytes()[counted..offset].iter().filter(|&&byte| byte == b'\n').count();
        counted = offset;
        let source = Source { file: file.clone(), line };
        let value = serde_json::from_str(element.get()).map_err(|error| {
            let at = Source { file: file.clone(), line: line + error.line() - 1 };
            malformed(&error, &at, error.column())
        })?;
        rows.push((source.clone(), object(value, &source)?));
    }
    Ok(rows)
}

fn malformed(error: &serde_json::Error, source: &Source, column: usize) -> Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    Error::input(
        format!("malformed JSON at {source}, column {column}: {reason}"),
        "each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array",
    )
}

fn object(value: Value, source: &Source) -> Result<Map<String, Value>> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(Error::input(
            format!("{source} is {}, not an object", kind(&other)),
            "each row is an object such as {\"prompt\": \"...\", \"completion\": \"...\", \"label\": true}",
        )),
    }
}

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
