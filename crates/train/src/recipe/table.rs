//! A table of a recipe: declared once, read, written and documented from that declaration.
//!
//! `table!` declares a struct whose fields are the keys of a TOML table. A field's doc comment is the
//! key's documentation, `= value` its default, and the part after a comma the limit on its value:
//!
//! ```text
//! table! {
//!     /// `[schedule]`: how the learning rate runs over the steps.
//!     pub struct Schedule["schedule"] {
//!         /// The share of the steps in which the rate rises from 0.
//!         pub warmup_ratio: Option<f64>, FROM_0_TO_1;
//!     }
//! }
//! ```
//!
//! A field without a default must be written in the recipe, unless its type has an absent value.

use super::hints;
use super::paths::Folders;
use super::setting::Setting;
use super::source::{Entry, Value, find};
use crate::error::{Error, Result};

/// What a recipe may say under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What may stand there, as a noun with its article.
    pub expects: String,
    /// The default as TOML; none if the key must be written or has no value unless written.
    pub default: Option<String>,
    /// Whether a recipe without the key is an error.
    pub required: bool,
    /// What it does, and with what consequence.
    pub doc: &'static str,
}

/// A struct made by `table!`.
pub(super) trait Table: Sized {
    /// The name between the brackets, `""` for the keys at the top.
    const PATH: &'static str;
    /// What the table is about.
    const DOC: &'static str;
    /// Its keys, in the order of the declaration.
    fn keys() -> Vec<Key>;
    /// Reads the entries of the table.
    fn read(entries: &[Entry], folders: &Folders) -> Result<Self>;
    /// The keys that have a value, with that value as TOML.
    fn write(&self) -> Vec<(&'static str, String)>;
}

/// A limit on a number.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// How it reads after "a number" or "an integer".
    pub(super) words: &'static str,
    pub(super) holds: fn(f64) -> bool,
}

pub(super) const ABOVE_0: Limit = Limit { words: "above 0", holds: |x| x > 0.0 };
pub(super) const AT_LEAST_0: Limit = Limit { words: "of at least 0", holds: |x| x >= 0.0 };
pub(super) const AT_LEAST_1: Limit = Limit { words: "of at least 1", holds: |x| x >= 1.0 };
/// A number of things that are held at once: more than a million of them is a slip of the keyboard.
pub(super) const A_MILLION: Limit =
    Limit { words: "from 1 to 1000000", holds: |x| (1.0..=1e6).contains(&x) };
pub(super) const FROM_0_TO_1: Limit =
    Limit { words: "from 0 to 1", holds: |x| (0.0..=1.0).contains(&x) };
pub(super) const FROM_0_TO_BELOW_1: Limit =
    Limit { words: "from 0 to below 1", holds: |x| (0.0..1.0).contains(&x) };
pub(super) const FROM_0_TO_BELOW_HALF: Limit =
    Limit { words: "from 0 to below 0.5", holds: |x| (0.0..0.5).contains(&x) };

/// A key in its table, for messages, with what may stand there.
pub(super) struct At {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) expects: String,
}

impl At {
    /// The value cannot be used: `problem` reads on after it, the hint says what may stand there.
    pub(super) fn wrong(&self, value: &Value, problem: &str) -> Error {
        self.wrong_with(value, problem, format!("write {}", self.expects))
    }

    /// As [`At::wrong`], with another hint.
    pub(super) fn wrong_with(
        &self,
        value: &Value,
        problem: &str,
        hint: impl Into<String>,
    ) -> Error {
        let table =
            if self.table.is_empty() { String::new() } else { format!("[{}] ", self.table) };
        Error::input(
            format!("{table}{} = {} {problem}, {}", self.key, value.text, value.place),
            hint,
        )
    }

    /// The value is of another type.
    pub(super) fn wrong_type(&self, value: &Value) -> Error {
        self.wrong(value, &format!("is {}", value.kind.name()))
    }
}

/// What may stand under a key of type `T` within `limit`, as a noun with its article.
pub(super) fn expects<T: Setting>(limit: Option<&Limit>) -> String {
    match limit {
        Some(limit) => format!("{} {}", T::expects(), limit.words),
        None => T::expects(),
    }
}

/// Reads one key: its value if written, else its default, else the type's absent value.
pub(super) fn read_key<T: Setting>(
    (table, key): (&'static str, &'static str),
    limit: Option<&Limit>,
    default: Option<T>,
    entries: &[Entry],
    folders: &Folders,
) -> Result<T> {
    let at = At { table, key, expects: expects::<T>(limit) };
    let Some(entry) = find(entries, key) else {
        return default.or_else(T::absent).ok_or_else(|| {
            let under = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
            Error::input(
                format!("'{key}' is missing{under}, {}", folders.recipe_name),
                format!("add {key} = ...{}, with {}", under.replace(" in ", " under "), at.expects),
            )
        });
    };
    let value = T::read(&at, &entry.value, folders)?;
    match (value.number(), limit) {
        (Some(number), Some(limit)) if !(limit.holds)(number) => {
            Err(at.wrong(&entry.value, "is out of range"))
        }
        _ => Ok(value),
    }
}

/// An error if an entry is no key of the table.
pub(super) fn refuse_unknown(table: &'static str, keys: &[Key], entries: &[Entry]) -> Result<()> {
    let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
    match entries.iter().find(|entry| !names.contains(&entry.key.as_str())) {
        Some(entry) => Err(Error::input(
            format!("unknown key '{}' in [{table}], {}", entry.key, entry.place),
            hints::for_unknown_key(table, &names, &entry.key),
        )),
        None => Ok(()),
    }
}

/// Declares a table of a recipe; see the head of the module.
macro_rules! table {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $Table:ident[$path:literal] {
            $(
                $(#[doc = $doc:literal])*
                pub $field:ident: $Type:ty $(= $default:expr)? $(, $limit:expr)?;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $Table {
            $(
                $(#[doc = $doc])*
                $(#[doc = concat!("\n\nDefault: `", stringify!($default), "`")])?
                pub $field: $Type,
            )*
        }

        impl $crate::recipe::table::Table for $Table {
            const PATH: &'static str = $path;
            const DOC: &'static str = concat!($($about, "\n"),*);

            fn keys() -> Vec<$crate::recipe::table::Key> {
                use $crate::recipe::setting::Setting;
                vec![$({
                    let default: Option<$Type> = [$($default)?].into_iter().next();
                    $crate::recipe::table::Key {
                        name: stringify!($field),
                        expects: $crate::recipe::table::expects::<$Type>([$(&$limit)?].into_iter().next()),
                        required: default.is_none() && <$Type>::absent().is_none(),
                        default: default.and_then(|default| default.write()),
                        doc: concat!($($doc, "\n"),*),
                    }
                }),*]
            }

            fn read(
                entries: &[$crate::recipe::source::Entry],
                folders: &$crate::recipe::paths::Folders,
            ) -> $crate::error::Result<Self> {
                $crate::recipe::table::refuse_unknown($path, &Self::keys(), entries)?;
                Ok($Table {
                    $($field: $crate::recipe::table::read_key::<$Type>(
                        ($path, stringify!($field)),
                        [$(&$limit)?].into_iter().next(),
                        [$($default)?].into_iter().next(),
                        entries,
                        folders,
                    )?,)*
                })
            }

            fn write(&self) -> Vec<(&'static str, String)> {
                use $crate::recipe::setting::Setting;
                let values = [$((stringify!($field), self.$field.write())),*];
                values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
            }
        }
    };
}
pub(super) use table;
