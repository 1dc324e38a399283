//! The fields of one JSON object, read by kind; what was asked for is what is known.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use data::files;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The largest size a field may have: no model is near it.
const MAX: u64 = 1 << 24;

/// A JSON object with its file's path, for messages.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) fields: Map<String, Value>,
    /// Keys that were asked for.
    known: RefCell<BTreeSet<String>>,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Source> {
        Source::parse(path, &files::read_to_string(path)?)
    }

    /// The text of a file; `path` is what messages call it.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Source> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Source::of(path, fields)),
            Ok(_) => Err(Error::input(
                format!("{} is not a JSON object", path.display()),
                "download it again",
            )),
            Err(error) => Err(Error::input(
                format!(
                    "{}:{}:{} is not JSON: {error}",
                    path.display(),
                    error.line(),
                    error.column()
                ),
                "download it again; it may be cut short or be a Git LFS pointer",
            )),
        }
    }

    pub(super) fn of(path: &Path, fields: Map<String, Value>) -> Source {
        Source { path: path.to_path_buf(), fields, known: RefCell::default() }
    }

    /// A value that is neither missing nor null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.know(key);
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// Says that a key is understood.
    pub(super) fn know(&self, key: &str) {
        self.known.borrow_mut().insert(key.to_owned());
    }

    /// The keys that nobody asked for and that hold something.
    pub(super) fn unknown(&self) -> impl Iterator<Item = (&str, &Value)> {
        let known = self.known.borrow().clone();
        self.fields
            .iter()
            .filter(move |(key, value)| !known.contains(*key) && !says_nothing(value))
            .map(|(key, value)| (key.as_str(), value))
    }

    /// True where the key is missing; a null is an answer of its own.
    pub(super) fn lacks(&self, key: &str) -> bool {
        self.know(key);
        !self.fields.contains_key(key)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(
                format!("{key} = {other} is neither true nor false"),
                "download config.json again",
            )),
        }
    }

    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| {
                self.wrong(format!("{key} = {value} is not a number"), "download config.json again")
            }),
        }
    }

    pub(super) fn numbers(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let numbers: Option<Vec<f64>> = match self.get(key) {
            Some(Value::Array(values)) => values.iter().map(Value::as_f64).collect(),
            _ => None,
        };
        numbers.filter(|numbers| numbers.len() == count).ok_or_else(|| {
            self.wrong(
                format!("{key} is not a list of {count} numbers"),
                "download config.json again",
            )
        })
    }

    pub(super) fn required(&self, key: &str) -> Result<f64> {
        let value = self.number(key, f64::NAN)?;
        if value.is_nan() {
            return Err(self.wrong(
                format!("{key} of the rotary embedding is missing"),
                "download config.json again",
            ));
        }
        Ok(value)
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size) if (1..=MAX).contains(&size) => Ok(Some(size as usize)),
                _ => Err(self.wrong(
                    format!("{key} = {value} is not a size from 1 to {MAX}"),
                    "download config.json again",
                )),
            },
        }
    }

    pub(super) fn size(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_size(key)?.unwrap_or(default))
    }

    pub(super) fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let one = |value: &Value| {
            value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
                self.wrong(
                    format!("{key} holds {value}, which is no token id"),
                    "download it again",
                )
            })
        };
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(one).collect(),
            Some(id) => Ok(vec![one(id)?]),
        }
    }

    /// An object within this one, where there is one.
    pub(super) fn table(&self, key: &str) -> Result<Option<Source>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Source::of(&self.path, fields.clone()))),
            Some(other) => Err(self
                .wrong(format!("{key} = {other} is not an object"), "download config.json again")),
        }
    }

    pub(super) fn wrong(&self, message: String, hint: impl Into<String>) -> Error {
        Error::input(format!("{}: {message}", self.path.display()), hint)
    }
}

/// Null, false and what is empty ask for nothing.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
