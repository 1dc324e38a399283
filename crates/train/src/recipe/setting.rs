//! The types a key of a recipe may have: how each is read from TOML, named and written back.

use super::hints;
use super::paths::Folders;
use super::source::{Kind, Value};
use super::table::At;
use crate::error::{Error, Result};

/// A type that can stand under a key.
pub(super) trait Setting: Sized {
    /// What may stand there, as a noun with its article.
    fn expects() -> String;

    /// Reads a value that was written.
    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self>;

    /// What the key is if it has no default and was not written; none if it must be.
    fn absent() -> Option<Self> {
        None
    }

    /// The number that a limit is about.
    fn number(&self) -> Option<f64> {
        None
    }

    /// The value as TOML; none if leaving the key out says the same.
    fn write(&self) -> Option<String>;
}

impl Setting for f64 {
    fn expects() -> String {
        "a number".to_owned()
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        match value.kind {
            Kind::Integer(integer) => Ok(integer as f64),
            Kind::Float(float) if float.is_finite() => Ok(float),
            Kind::Float(_) => Err(at.wrong(value, "is no finite number")),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn number(&self) -> Option<f64> {
        Some(*self)
    }

    fn write(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

/// Integers that are never negative.
macro_rules! integer {
    ($($Type:ty),*) => {
        $(impl Setting for $Type {
            fn expects() -> String {
                "an integer".to_owned()
            }

            fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
                match value.kind {
                    Kind::Integer(integer) => {
                        Self::try_from(integer).map_err(|_| at.wrong(value, "is out of range"))
                    }
                    _ => Err(at.wrong_type(value)),
                }
            }

            fn number(&self) -> Option<f64> {
                Some(*self as f64)
            }

            fn write(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}
integer!(u64, usize);

impl Setting for bool {
    fn expects() -> String {
        "true or false".to_owned()
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        match value.kind {
            Kind::Boolean(boolean) => Ok(boolean),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for String {
    fn expects() -> String {
        "a string".to_owned()
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::String(text) if text.is_empty() => Err(at.wrong(value, "is empty")),
            Kind::String(text) => Ok(text.clone()),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        Some(quote(self))
    }
}

/// A list may be written as its one element.
impl<T: Setting> Setting for Vec<T> {
    fn expects() -> String {
        let one = T::expects();
        format!("{one} or a list of {}s", one.trim_start_matches("an ").trim_start_matches("a "))
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::Array(values) if values.is_empty() => Err(at.wrong(value, "is empty")),
            Kind::Array(values) => values.iter().map(|value| T::read(at, value, folders)).collect(),
            _ => Ok(vec![T::read(at, value, folders)?]),
        }
    }

    fn write(&self) -> Option<String> {
        let values: Option<Vec<String>> = self.iter().map(T::write).collect();
        (!self.is_empty()).then_some(format!("[{}]", values?.join(", ")))
    }
}

impl<T: Setting> Setting for Option<T> {
    fn expects() -> String {
        T::expects()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        T::read(at, value, folders).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }

    fn write(&self) -> Option<String> {
        self.as_ref().and_then(T::write)
    }
}

/// A number of bytes, written as `"24GiB"`, `"1.5 GiB"`, `"800MB"` or as an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// The units of [`Bytes`], the largest first.
const UNITS: [(&str, u64); 7] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

impl std::str::FromStr for Bytes {
    type Err = ();

    /// A number and a unit, such as `24GiB`.
    fn from_str(text: &str) -> std::result::Result<Bytes, ()> {
        let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let number: f64 = text[..end].parse().map_err(|_| ())?;
        let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text[end..].trim()));
        unit.map(|(_, bytes)| Bytes((number * *bytes as f64) as u64)).ok_or(())
    }
}

impl Setting for Bytes {
    fn expects() -> String {
        "a size such as \"24GiB\"".to_owned()
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        let bytes = match &value.kind {
            Kind::Integer(integer) => *integer as f64,
            Kind::String(text) => match text.parse::<Bytes>() {
                Ok(bytes) => bytes.0 as f64,
                Err(()) => {
                    let hint = "write a number and a unit: \"24GiB\", \"1.5GiB\", \"800MB\"";
                    return Err(at.wrong_with(value, "is no size", hint));
                }
            },
            _ => return Err(at.wrong_type(value)),
        };
        // 2^53 bytes, beyond any memory, is where f64 stops counting single bytes.
        if !(1.0..9.0e15).contains(&bytes) {
            return Err(at.wrong(value, "is out of range"));
        }
        Ok(Bytes(bytes as u64))
    }

    fn write(&self) -> Option<String> {
        let unit = UNITS
            .iter()
            .find(|(name, bytes)| name.ends_with("iB") && self.0.is_multiple_of(*bytes));
        Some(match unit {
            Some((name, bytes)) => format!("\"{}{name}\"", self.0 / bytes),
            None => self.0.to_string(),
        })
    }
}

/// Declares an enum whose variants are written as the given strings.
macro_rules! choice {
    (
        $(#[doc = $about:literal])*
        pub enum $Choice:ident { $($(#[doc = $doc:literal])* $Variant:ident = $text:literal,)* }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Choice { $($(#[doc = $doc])* $Variant,)* }

        impl $Choice {
            /// As it is written in a recipe.
            pub fn as_str(self) -> &'static str {
                match self { $($Choice::$Variant => $text,)* }
            }
        }

        impl $crate::recipe::setting::Setting for $Choice {
            fn expects() -> String {
                $crate::recipe::setting::any_of(&[$($text),*])
            }

            fn read(
                at: &$crate::recipe::table::At,
                value: &$crate::recipe::source::Value,
                _: &$crate::recipe::paths::Folders,
            ) -> $crate::error::Result<Self> {
                match $crate::recipe::setting::read_choice(at, value, &[$($text),*])? {
                    $($text => Ok($Choice::$Variant),)*
                    _ => Err(at.wrong_type(value)),
                }
            }

            fn write(&self) -> Option<String> {
                Some($crate::recipe::setting::quote(self.as_str()))
            }
        }
    };
}
pub(super) use choice;

/// The written string, if it is one of the choices.
pub(super) fn read_choice<'a>(at: &At, value: &'a Value, choices: &[&str]) -> Result<&'a str> {
    match &value.kind {
        Kind::String(text) if choices.contains(&text.as_str()) => Ok(text),
        Kind::String(text) => Err(unknown_choice(at, value, text, choices)),
        _ => Err(at.wrong_type(value)),
    }
}

fn unknown_choice(at: &At, value: &Value, text: &str, choices: &[&str]) -> Error {
    let hint = match hints::for_unknown_choice(text, choices) {
        Some(meant) => format!("did you mean \"{meant}\"? It may be {}", any_of(choices)),
        None => format!("it may be {}", any_of(choices)),
    };
    at.wrong_with(value, "is not known", hint)
}

/// `"a", "b" or "c"`.
pub(super) fn any_of(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| quote(choice)).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A TOML basic string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
