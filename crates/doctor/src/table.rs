//! The facts, named: what the rules compare and the report prints. A fact remembers where it was read.

use pep440_rs::Version;
use std::collections::BTreeMap;
use std::str::FromStr;

/// A fact's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A version by PEP 440; drivers and CUDA versions read as such too.
    Version(Version),
    /// A quantity.
    Number(f64),
    /// A word.
    Text(String),
    /// Whether something is so.
    Flag(bool),
    /// Several words.
    List(Vec<String>),
}

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The value.
    pub value: Value,
    /// The file, or the library that told it.
    pub path: String,
    /// How it was written there, where the value is a normal form of it (`535.54.03` is the version 535.54.3).
    pub written: Option<String>,
}

impl Fact {
    /// The value as the report prints it, cut where a hostile file made it endless.
    pub fn shown(&self) -> String {
        let text = match &self.value {
            Value::Version(v) => self.written.clone().unwrap_or_else(|| v.to_string()),
            Value::Number(n) if n.fract() == 0.0 => format!("{n:.0}"),
            Value::Number(n) => format!("{n:.1}"),
            Value::Text(t) => t.clone(),
            Value::Flag(true) => "yes".into(),
            Value::Flag(false) => "no".into(),
            Value::List(all) if all.is_empty() => "none".into(),
            Value::List(all) => all.join(" "),
        };
        clip(&text, 300)
    }
}

/// The first `most` characters, control characters taken out: what a file says never steers the terminal.
pub fn clip(text: &str, most: usize) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(most).map(clean).collect();
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}

/// Facts under their names.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    facts: BTreeMap<String, Fact>,
}

impl Scope {
    /// A fact, if known.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name)
    }

    /// Adds a fact of any kind.
    pub fn put(&mut self, name: &str, value: Value, path: impl Into<String>) {
        self.facts.insert(name.into(), Fact { value, path: path.into(), written: None });
    }

    /// Adds a word.
    pub fn text(&mut self, name: &str, value: impl Into<String>, path: impl Into<String>) {
        self.put(name, Value::Text(value.into()), path);
    }

    /// Adds a quantity.
    pub fn number(&mut self, name: &str, value: f64, path: impl Into<String>) {
        self.put(name, Value::Number(value), path);
    }

    /// Adds whether something is so.
    pub fn flag(&mut self, name: &str, value: bool, path: impl Into<String>) {
        self.put(name, Value::Flag(value), path);
    }

    /// Adds several words.
    pub fn list(&mut self, name: &str, value: Vec<String>, path: impl Into<String>) {
        self.put(name, Value::List(value), path);
    }

    /// Adds a version; a text that is none stays a word.
    pub fn version(&mut self, name: &str, value: &str, path: impl Into<String>) {
        let value_text = value.trim().to_string();
        let value = match Version::from_str(&value_text) {
            Ok(version) => Value::Version(version),
            Err(_) => Value::Text(value.into()),
        };
        self.facts
            .insert(name.into(), Fact { value, path: path.into(), written: Some(value_text) });
    }

    /// Every fact, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Fact)> {
        self.facts.iter()
    }
}

/// All facts of one diagnosis: those that exist once, and those of each GPU, library, requirement and so on.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The facts that exist once.
    pub all: Scope,
    /// The facts of each thing of a kind.
    pub each: BTreeMap<&'static str, Vec<Scope>>,
}

impl Table {
    /// Adds one thing of a kind.
    pub fn add(&mut self, kind: &'static str, scope: Scope) {
        self.each.entry(kind).or_default().push(scope);
    }
}
