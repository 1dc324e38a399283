//! Python's methods of strings, lists and dicts, which templates call: what minijinja-contrib's `pycompat` lacks or
//! does otherwise than Python 3 (the Python library reference, "Built-in Types"). Positions count characters.
//!
//! Transformers renders in Jinja's immutable sandbox, so what would change a list or a dict is no method here either.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::splitting::{partition, split, split_lines};

/// The longest string that padding makes; a template that wants more has gone wrong.
const WIDEST: usize = 1 << 20;

/// Calls the method of a value that minijinja does not know.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let known = match value.kind() {
        ValueKind::String => match value.as_str() {
            Some(text) => string(text, method, args)?,
            None => None,
        },
        ValueKind::Map if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        ValueKind::Seq => list(value, method, args)?,
        _ => None,
    };
    match known {
        Some(result) => Ok(result),
        None => unknown_method_callback(state, value, method, args),
    }
}

fn list(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "copy" if !value.is_tuple() => {
            let () = from_args(args)?;
            Ok(Some(value.clone()))
        }
        "index" => {
            let (what, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
            let items: Vec<Value> = value.try_iter()?.collect();
            let (start, end) = bounds(items.len(), start, end);
            let found = (start..end).find(|&at| items[at] == *what);
            match found {
                Some(at) => Ok(Some(Value::from(at))),
                None => Err(wrong(format!("{what} is not in list"))),
            }
        }
        _ => Ok(None),
    }
}

fn string(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let all = |holds: fn(char) -> bool| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(!text.is_empty() && text.chars().all(holds)))
    };
    let plain = |new: fn(&str) -> String| -> Result<Value, Error> {
        let () = from_args(args)?;
        Ok(Value::from(new(text)))
    };
    Ok(Some(match method {
        "strip" => Value::from(strip(text, args, true, true)?),
        "lstrip" => Value::from(strip(text, args, true, false)?),
        "rstrip" => Value::from(strip(text, args, false, true)?),
        "split" | "rsplit" => split(text, args, method == "rsplit")?,
        "splitlines" => split_lines(text, args)?,
        "partition" => partition(text, args, false)?,
        "rpartition" => partition(text, args, true)?,
        "startswith" => affix(text, args, |part, affix| part.starts_with(affix))?,
        "endswith" => affix(text, args, |part, affix| part.ends_with(affix))?,
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "find" | "index" => found(locate(text, args, |part, what| part.find(what))?, method)?,
        "rfind" | "rindex" => found(locate(text, args, |part, what| part.rfind(what))?, method)?,
        "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = part(text, start, end).map_or("", |(part, _)| part);
            let count =
                if what.is_empty() { part.chars().count() + 1 } else { part.matches(what).count() };
            Value::from(count)
        }
        "center" => pad(text, args, |room, width| room / 2 + (room & width & 1))?,
        "ljust" => pad(text, args, |_, _| 0)?,
        "rjust" => pad(text, args, |room, _| room)?,
        "zfill" => zero_fill(text, args)?,
        "expandtabs" => expand_tabs(text, args)?,
        "title" => plain(title)?,
        "swapcase" => plain(swap_case)?,
        "casefold" => plain(|text| text.to_lowercase().replace('ß', "ss"))?,
        "isspace" => all(is_space)?,
        "isdigit" => all(|c| is_decimal(c) || is_superscript(c))?,
        "isdecimal" => all(is_decimal)?,
        "isalpha" => all(char::is_alphabetic)?,
        "isprintable" => {
            let () = from_args(args)?;
            Value::from(text.chars().all(|c| c == ' ' || !(c.is_control() || is_space(c))))
        }
        "isidentifier" => {
            let () = from_args(args)?;
            let mut characters = text.chars();
            let first = characters.next().is_some_and(|c| c.is_alphabetic() || c == '_');
            Value::from(first && characters.all(|c| c.is_alphanumeric() || c == '_'))
        }
        "istitle" => {
            let () = from_args(args)?;
            let cased = text.chars().any(|c| c.is_uppercase() || c.is_lowercase());
            Value::from(cased && title(text) == text)
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            for value in values.try_iter()? {
                if value.kind() != ValueKind::String {
                    return Err(wrong(format!("join expects strings, not {}", value.kind())));
                }
            }
            return Ok(None);
        }
        _ => return Ok(None),
    }))
}

pub(super) fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// White space as Python has it: Unicode's, and four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// The first digit of each script whose ten digits follow each other (Unicode category Nd, the scripts in wide use).
const ZEROS: [u32; 20] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xe50, 0xed0, 0xf20, 0x1040, 0x17e0, 0x1810, 0xff10,
];

fn is_decimal(character: char) -> bool {
    let code = u32::from(character);
    ZEROS.iter().any(|&zero| (zero..zero + 10).contains(&code))
}

fn is_superscript(character: char) -> bool {
    matches!(character, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨')
}

/// `strip` and its kin, with the characters to take away or white space.
fn strip<'a>(text: &'a str, args: &[Value], left: bool, right: bool) -> Result<&'a str, Error> {
    let (characters,): (Option<&str>,) = from_args(args)?;
    let gone = |c: char| characters.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(gone) } else { text };
    Ok(if right { text.trim_end_matches(gone) } else { text })
}

/// Positions as a Python slice takes them, within `0..=len`.
fn bounds(len: usize, start: Option<i64>, end: Option<i64>) -> (usize, usize) {
    let place = |at: i64| {
        let from_end = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
        if at < 0 { len.saturating_sub(from_end) } else { from_end.min(len) }
    };
    (start.map_or(0, place), end.map_or(len, place))
}

/// A slice of a text and where it begins; none where it begins behind the end.
fn part(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(&str, usize)> {
    let len = text.chars().count();
    if start.is_some_and(|start| usize::try_from(start).is_ok_and(|start| start > len)) {
        return None;
    }
    let (start, end) = bounds(len, start, end);
    if start > end {
        return None;
    }
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    Some((&text[byte(start)..byte(end)], start))
}

fn locate(
    text: &str,
    args: &[Value],
    find: fn(&str, &str) -> Option<usize>,
) -> Result<Option<usize>, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let Some((part, before)) = part(text, start, end) else { return Ok(None) };
    Ok(find(part, what).map(|byte| before + part[..byte].chars().count()))
}

/// A position, or what the method says where there is none.
fn found(at: Option<usize>, method: &str) -> Result<Value, Error> {
    match at {
        Some(at) => Ok(Value::from(at)),
        None if method.ends_with("find") => Ok(Value::from(-1)),
        None => Err(wrong("substring not found")),
    }
}

/// `startswith` and `endswith`: one affix, or a tuple of them.
fn affix(text: &str, args: &[Value], holds: fn(&str, &str) -> bool) -> Result<Value, Error> {
    let (affixes, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let part = part(text, start, end);
    let holds = |affix: &str| part.is_some_and(|(part, _)| holds(part, affix));
    if let Some(affix) = affixes.as_str() {
        return Ok(Value::from(holds(affix)));
    }
    let no = || wrong(format!("expects a string or a tuple of strings, not {}", affixes.kind()));
    if !affixes.is_tuple() {
        return Err(no());
    }
    let mut any = false;
    for affix in affixes.try_iter()? {
        any |= holds(affix.as_str().ok_or_else(no)?);
    }
    Ok(Value::from(any))
}

/// Fills up to a width; `left` says how much of the room goes to the left.
fn pad(text: &str, args: &[Value], left: fn(usize, usize) -> usize) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let fill = match fill.unwrap_or(" ") {
        one if one.chars().count() == 1 => one,
        _ => return Err(wrong("the fill is one character")),
    };
    let width = usize::try_from(width).unwrap_or(0);
    let room = width.saturating_sub(text.chars().count());
    if room > WIDEST {
        return Err(wrong(format!("a width of {width} is too large")));
    }
    let left = left(room, width);
    Ok(Value::from(format!("{}{text}{}", fill.repeat(left), fill.repeat(room - left))))
}

fn zero_fill(text: &str, args: &[Value]) -> Result<Value, Error> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    let (width,): (i64,) = from_args(args)?;
    let width = usize::try_from(width).unwrap_or(0);
    let room = width.saturating_sub(text.chars().count());
    if room > WIDEST {
        return Err(wrong(format!("a width of {width} is too large")));
    }
    Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(room))))
}

fn expand_tabs(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (size,): (Option<usize>,) = from_args(args)?;
    let size = size.unwrap_or(8);
    if size > 256 {
        return Err(wrong(format!("a tab of {size} columns is too wide")));
    }
    let mut out = String::new();
    let mut column = 0;
    for character in text.chars() {
        match character {
            '\t' if size > 0 => {
                let width = size - column % size;
                out.extend(std::iter::repeat_n(' ', width));
                column += width;
            }
            '\t' => {}
            _ => {
                out.push(character);
                column = if matches!(character, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::from(out))
}

/// A letter behind anything but a letter is upper case, all others lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        let cased = character.is_lowercase() || character.is_uppercase();
        match (cased, inside) {
            (true, true) => out.extend(character.to_lowercase()),
            (true, false) => out.extend(character.to_uppercase()),
            (false, _) => out.push(character),
        }
        inside = cased;
    }
    out
}

fn swap_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_uppercase() {
            out.extend(character.to_lowercase());
        } else if character.is_lowercase() {
            out.extend(character.to_uppercase());
        } else {
            out.push(character);
        }
    }
    out
}
