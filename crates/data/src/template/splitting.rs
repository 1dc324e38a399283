//! Python's methods that take strings apart: `split`, `rsplit`, `splitlines`, `partition`, `rpartition`.

use minijinja::Error;
use minijinja::value::{Kwargs, Tuple, Value, from_args};

use super::methods::{is_space, wrong};

/// `split` and `rsplit`.
pub(super) fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => named.get::<Option<Value>>("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => named.get::<Option<i64>>("maxsplit")?,
    };
    named.assert_all_used()?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let pieces: Vec<&str> = match &separator {
        None => words(text, most, from_right),
        Some(separator) if separator.is_none() => words(text, most, from_right),
        Some(separator) => {
            let Some(separator) = separator.as_str() else {
                return Err(wrong(format!("a separator is a string, not {}", separator.kind())));
            };
            if separator.is_empty() {
                return Err(wrong("empty separator"));
            }
            let pieces = most.saturating_add(1);
            if from_right {
                let mut pieces: Vec<&str> = text.rsplitn(pieces, separator).collect();
                pieces.reverse();
                pieces
            } else {
                text.splitn(pieces, separator).collect()
            }
        }
    };
    Ok(pieces.into_iter().map(Value::from).collect())
}

/// Splits at runs of white space, `most` times at the most; what is left then keeps the white space at its far end.
fn words(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    fn near(text: &str, from_right: bool) -> &str {
        if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) }
    }
    let mut pieces = Vec::new();
    let mut rest = near(text, from_right);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let (piece, other) = match cut {
            Some(at) if pieces.len() < most => {
                let width = rest[at..].chars().next().map_or(0, char::len_utf8);
                let (before, after) = (&rest[..at], &rest[at + width..]);
                if from_right { (after, before) } else { (before, after) }
            }
            _ => (rest, ""),
        };
        pieces.push(piece);
        rest = near(other, from_right);
    }
    if from_right {
        pieces.reverse();
    }
    pieces
}

/// Where Python's `splitlines` ends a line.
fn is_line_end(character: char) -> bool {
    matches!(
        character,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// The lines of a text, with what ends them or without.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_line_end) {
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(0, char::len_utf8)
        };
        lines.push(&rest[..if keep_ends { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

pub(super) fn split_lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, named): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = match keep {
        Some(keep) => keep,
        None => named.get::<Option<bool>>("keepends")?.unwrap_or(false),
    };
    named.assert_all_used()?;
    Ok(lines(text, keep).into_iter().map(Value::from).collect())
}

pub(super) fn partition(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    if separator.is_empty() {
        return Err(wrong("empty separator"));
    }
    let (parts, none) = if from_right {
        (text.rsplit_once(separator), ["", "", text])
    } else {
        (text.split_once(separator), [text, "", ""])
    };
    let parts = parts.map_or(none, |(before, after)| [before, separator, after]);
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}
