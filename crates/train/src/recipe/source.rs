//! A recipe as a tree of keys and values in which everything knows where it was written.
//!
//! The file is parsed by the `toml` crate, which gives byte spans; spans become line numbers here.
//! `--set` flags are laid over the tree: a value from a flag names the flag as its place.

use crate::error::{Error, Result};
use std::fmt;
use std::rc::Rc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a key or value was written.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In the recipe.
    File { path: Rc<str>, line: usize },
    /// In a `--set` flag, kept as it was typed.
    Flag(Rc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line } => write!(f, "{path}:{line}"),
            Place::Flag(flag) => write!(f, "--set {flag}"),
        }
    }
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value, the text it was written as, and where.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) place: Place,
}

/// The kinds of TOML values.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Value>),
    Table(Vec<Entry>),
}

impl Kind {
    /// The kind with its article, for error messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::String(_) => "a string",
            Kind::Integer(_) => "an integer",
            Kind::Float(_) => "a number with a fraction",
            Kind::Boolean(_) => "a boolean",
            Kind::Datetime => "a date",
            Kind::Array(_) => "a list",
            Kind::Table(_) => "a table",
        }
    }
}

/// The entry of `key`, if it was written.
pub(super) fn find<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key == key)
}

/// The tree of a whole recipe.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) entries: Vec<Entry>,
}

impl Tree {
    /// Parses the text of the recipe at `path`.
    pub(super) fn parse(path: &str, text: &str) -> Result<Tree> {
        let writer = Writer { text, origin: Origin::File(path.into()) };
        match DeTable::parse(text) {
            Ok(table) => Ok(Tree { entries: writer.entries(table.get_ref()) }),
            Err(error) => {
                let place = writer.place(error.span().map_or(0, |span| span.start));
                let hint = match error.message() {
                    "duplicate key" => "the key or table stands in the recipe before; keep one",
                    _ => "a line is 'key = value' or '[table]'; strings stand in double quotes",
                };
                Err(Error::input(
                    format!("not valid TOML: {}, {place}", error.message().replace('\n', ", ")),
                    hint,
                ))
            }
        }
    }

    /// The entries at the top that are no tables.
    pub(super) fn head(&self) -> Vec<Entry> {
        let is_table = |entry: &Entry| matches!(entry.value.kind, Kind::Table(_));
        self.entries.iter().filter(|entry| !is_table(entry)).cloned().collect()
    }

    /// The entries of a table; none if it was not written. `table` is a name of one part.
    pub(super) fn table(&self, table: &str) -> &[Entry] {
        match find(&self.entries, table) {
            Some(Entry { value: Value { kind: Kind::Table(entries), .. }, .. }) => entries,
            _ => &[],
        }
    }

    /// The entry of a key in a table, if it was written.
    pub(super) fn given(&self, table: &str, key: &str) -> Option<&Entry> {
        find(self.table(table), key)
    }

    /// Lays `--set table.key=value` over the recipe. The value is TOML; what is not TOML is a string,
    /// so that names and paths need no quotes.
    ///
    /// A flag for one of two keys that exclude each other (`train.max_steps` and `train.epochs`,
    /// `schedule.warmup_steps` and `schedule.warmup_ratio`) takes the place of the other in the file.
    pub(super) fn set(&mut self, flag: &str) -> Result<()> {
        let place = Place::Flag(flag.into());
        let form = "write --set table.key=value, for example --set optimizer.learning_rate=1e-5";
        let Some((path, text)) = flag.split_once('=') else {
            return Err(Error::input(format!("no '=' in {place}"), form));
        };
        let keys: Vec<&str> = path.split('.').map(str::trim).collect();
        if keys.iter().any(|key| key.is_empty()) {
            return Err(Error::input(format!("a key is empty in {place}"), form));
        }
        self.drop_alternative(&keys);
        let value = flag_value(text.trim(), &place);
        insert(&mut self.entries, &keys, 0, value, &place)
    }

    /// Forgets the file's word on the key that excludes the one a flag sets.
    fn drop_alternative(&mut self, keys: &[&str]) {
        let alternative = match keys {
            ["train", "max_steps"] => "epochs",
            ["train", "epochs"] => "max_steps",
            ["schedule", "warmup_steps"] => "warmup_ratio",
            ["schedule", "warmup_ratio"] => "warmup_steps",
            _ => return,
        };
        let table = self.entries.iter_mut().find(|entry| entry.key == keys[0]);
        if let Some(Entry { value: Value { kind: Kind::Table(entries), .. }, .. }) = table {
            entries
                .retain(|entry| entry.key != alternative || matches!(entry.place, Place::Flag(_)));
        }
    }
}

/// The value of a flag: TOML if it is that, else the bare text.
fn flag_value(text: &str, place: &Place) -> Value {
    // Parsed as a document of one key, since a value alone could be followed by anything.
    let document = format!("value = {text}");
    let writer = Writer { text: &document, origin: Origin::Flag(place.clone()) };
    if let Ok(table) = DeTable::parse(&document)
        && let [entry] = &mut writer.entries(table.get_ref())[..]
    {
        return entry.value.clone();
    }
    Value { kind: Kind::String(text.to_owned()), text: text.to_owned(), place: place.clone() }
}

/// Puts `value` at the path `keys`, of which `entries` is the table at `depth`, making tables on the way.
fn insert(
    entries: &mut Vec<Entry>,
    keys: &[&str],
    depth: usize,
    value: Value,
    place: &Place,
) -> Result<()> {
    let key = keys[depth];
    let index = match entries.iter().position(|entry| entry.key == key) {
        Some(index) => index,
        None => {
            let table =
                Value { kind: Kind::Table(Vec::new()), text: String::new(), place: place.clone() };
            entries.push(Entry { key: key.to_owned(), value: table, place: place.clone() });
            entries.len() - 1
        }
    };
    let entry = &mut entries[index];
    if depth + 1 == keys.len() {
        entry.value = value;
        entry.place = place.clone();
        return Ok(());
    }
    match &mut entry.value.kind {
        Kind::Table(entries) => insert(entries, keys, depth + 1, value, place),
        other => {
            let path = keys[..=depth].join(".");
            Err(Error::input(
                format!("{path} is {} and has no key '{}', {place}", other.name(), keys[depth + 1]),
                format!("write --set {path}=VALUE; the recipe has it in {}", entry.place),
            ))
        }
    }
}

/// Where a parsed text comes from.
enum Origin {
    File(Rc<str>),
    Flag(Place),
}

/// Writes the parser's spans as places.
struct Writer<'a> {
    text: &'a str,
    origin: Origin,
}

impl Writer<'_> {
    fn place(&self, offset: usize) -> Place {
        match &self.origin {
            Origin::Flag(place) => place.clone(),
            Origin::File(path) => {
                let before = &self.text.as_bytes()[..offset.min(self.text.len())];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                Place::File { path: path.clone(), line }
            }
        }
    }

    /// The entries of a table in the order of the text, whatever order the parser keeps them in.
    fn entries(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut sorted: Vec<_> = table.iter().collect();
        sorted.sort_by_key(|(key, _)| key.span().start);
        let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| Entry {
            key: AsRef::<str>::as_ref(key.get_ref() as &std::borrow::Cow<'_, str>).to_owned(),
            value: self.value(value),
            place: self.place(key.span().start),
        };
        sorted.into_iter().map(entry).collect()
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::String(text.to_string()),
            DeValue::Integer(integer) => {
                // What exceeds 128 bits is out of every range, and so is the largest of them.
                Kind::Integer(
                    i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX),
                )
            }
            // The grammar is checked by the parser; what f64 cannot hold becomes an infinity.
            DeValue::Float(float) => Kind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Kind::Boolean(*boolean),
            DeValue::Datetime(_) => Kind::Datetime,
            DeValue::Array(values) => {
                Kind::Array(values.iter().map(|value| self.value(value)).collect())
            }
            DeValue::Table(table) => Kind::Table(self.entries(table)),
        };
        Value { kind, text: self.excerpt(value.span()), place: self.place(value.span().start) }
    }

    /// The text of a value as written, on one line and not too long for a message.
    fn excerpt(&self, span: std::ops::Range<usize>) -> String {
        let words: Vec<&str> = self.text.get(span).unwrap_or_default().split_whitespace().collect();
        let line = words.join(" ");
        if line.chars().count() <= 60 {
            return line;
        }
        line.chars().take(57).chain("...".chars()).collect()
    }
}
