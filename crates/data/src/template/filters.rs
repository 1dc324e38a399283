//! Filters and tests that Jinja2 3.1 (`jinja2/filters.py`, `jinja2/tests.py`) has otherwise than minijinja: other
//! arguments, other results, or not at all.

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::methods::{is_space, wrong};
use super::source::{BOUNDED, EACH};
use super::splitting::lines;
use super::text::python_str;

/// The longest list `range` makes, as in Jinja's sandbox.
const LONGEST_RANGE: usize = 100_000;

/// How deep a variable's value may be nested: JSON rows nest 128 deep at most.
const DEEPEST: usize = 200;

/// The widest text that a filter fills up to.
const WIDEST: usize = 1 << 20;

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("string", |value: &Value| python_str(value));
    environment.add_filter("trim", trim);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("indent", indent);
    environment.add_filter("center", center);
    environment.add_filter("wordcount", word_count);
    environment.add_filter("attr", attribute);
    for name in ["e", "escape", "forceescape"] {
        environment.add_filter(name, |value: &Value| Value::from_safe_string(escaped(value)));
    }
    environment.add_filter(EACH, each);
    environment.add_filter(BOUNDED, bounded);
    environment.add_filter("sort", |state: &State, value: Value, args: Rest<ValueOrKwargs>| {
        let named = named(&["reverse", "case_sensitive", "attribute"], args)?;
        filters::sort(state, value, named)
    });
    environment.add_filter("dictsort", |value: &Value, args: Rest<ValueOrKwargs>| {
        filters::dictsort(value, named(&["case_sensitive", "by", "reverse"], args)?)
    });
    environment.add_filter("unique", |state: &State, value: Value, args: Rest<ValueOrKwargs>| {
        filters::unique(state, value, named(&["case_sensitive", "attribute"], args)?)
    });
    environment.add_filter("min", |state: &State, value: Value, args: Rest<ValueOrKwargs>| {
        filters::min(state, value, named(&["case_sensitive", "attribute"], args)?)
    });
    environment.add_filter("max", |state: &State, value: Value, args: Rest<ValueOrKwargs>| {
        filters::max(state, value, named(&["case_sensitive", "attribute"], args)?)
    });
    environment.add_filter(
        "truncate",
        |state: &mut State, value: &Value, args: Rest<ValueOrKwargs>| {
            let named = named(&["length", "killwords", "end", "leeway"], args)?;
            minijinja_contrib::filters::truncate(state, value, named)
        },
    );
    environment.add_filter("striptags", minijinja_contrib::filters::striptags);
    environment.add_filter("filesizeformat", minijinja_contrib::filters::filesizeformat);

    environment.add_test("iterable", |value: &Value| is_iterable(value));
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map
        )
    });
    environment.add_test("callable", |value: &Value| {
        value.kind() == ValueKind::Plain && value.as_object().is_some()
    });

    environment.add_function("range", range);
    environment
        .add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.0));
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
}

/// Arguments that Python takes by place as well as by name, all by name.
fn named(names: &[&str], args: Rest<ValueOrKwargs>) -> Result<Kwargs, Error> {
    let mut args = args.into_values();
    let given = match args.last() {
        Some(last) if last.is_kwargs() => args.pop(),
        _ => None,
    };
    if args.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut pairs: Vec<(String, Value)> =
        names.iter().map(|name| name.to_string()).zip(args).collect();
    if let Some(given) = given {
        for key in given.try_iter()? {
            let value = given.get_item(&key)?;
            pairs.push((key.as_str().unwrap_or_default().to_string(), value));
        }
    }
    Ok(Kwargs::from_iter(pairs))
}

fn is_iterable(value: &Value) -> bool {
    !value.is_none() && (value.is_undefined() || value.try_iter().is_ok())
}

/// What a loop goes through: None is nothing to go through in Python.
fn each(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(wrong("None is not iterable"));
    }
    Ok(value)
}

/// What a variable is set to. A loop may nest a value in itself without end, and what is nested a hundred thousand
/// times overflows the stack when it is dropped.
fn bounded(state: &State, value: Value) -> Result<Value, Error> {
    fn look(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth > DEEPEST {
            return Err(wrong(format!("a value is nested more than {DEEPEST} deep")));
        }
        // Looking is work like any other: a list may be as long as it likes without taking memory.
        let item = |item: Value| {
            state.consume_fuel(2)?;
            look(state, &item, depth + 1)
        };
        match value.kind() {
            ValueKind::Map => {
                object.try_iter_pairs().into_iter().flatten().try_for_each(|pair| item(pair.1))
            }
            ValueKind::Seq | ValueKind::Iterable => {
                object.try_iter().into_iter().flatten().try_for_each(item)
            }
            _ => Ok(()),
        }
    }
    look(state, &value, 0)?;
    Ok(value)
}

fn trim(value: &Value, characters: Option<String>) -> String {
    let text = python_str(value);
    match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_string(),
        None => text.trim_matches(is_space).to_string(),
    }
}

/// `int(value, default=0, base=10)`: what is no number becomes the default.
fn int(
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = match default {
        Some(default) => default,
        None => named.get::<Option<Value>>("default")?.unwrap_or_else(|| Value::from(0)),
    };
    let base = match base {
        Some(base) => base,
        None => named.get::<Option<u32>>("base")?.unwrap_or(10),
    };
    named.assert_all_used()?;
    if value.is_integer() {
        return Ok(value.clone());
    }
    if value.kind() == ValueKind::Bool {
        return Ok(Value::from(i64::from(value.is_true())));
    }
    if let Some(text) = value.as_str() {
        let text = text.trim_matches(is_space).replace('_', "");
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        let lower = digits.to_lowercase();
        let digits = match base {
            16 => lower.strip_prefix("0x").unwrap_or(&lower),
            8 => lower.strip_prefix("0o").unwrap_or(&lower),
            2 => lower.strip_prefix("0b").unwrap_or(&lower),
            _ => &lower,
        };
        if (2..=36).contains(&base)
            && !digits.starts_with(['+', '-'])
            && let Ok(number) = i128::from_str_radix(digits, base)
        {
            return Ok(Value::from(sign * number));
        }
    }
    match number(value) {
        // Beyond i128 a template has no use for an exact number.
        Some(float) if float.is_finite() => Ok(Value::from(float.trunc() as i128)),
        _ => Ok(default),
    }
}

/// `float(value, default=0.0)`: what is no number becomes the default.
fn float(value: &Value, default: Option<Value>) -> Value {
    match number(value) {
        Some(float) => Value::from(float),
        None => default.unwrap_or_else(|| Value::from(0.0)),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::String => {
            let text = value.as_str()?.trim_matches(is_space).replace('_', "");
            text.parse().ok()
        }
        _ => None,
    }
}

/// `indent(s, width=4, first=False, blank=False)`; the width may be a text.
fn indent(value: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let named = named(&["width", "first", "blank"], args)?;
    let width = match named.get::<Option<Value>>("width")? {
        None => " ".repeat(4),
        Some(text) if text.as_str().is_some() => text.as_str().unwrap_or_default().to_string(),
        Some(width) => match usize::try_from(width)? {
            width if width <= WIDEST => " ".repeat(width),
            width => return Err(wrong(format!("an indent of {width} is too large"))),
        },
    };
    let first = named.get::<Option<bool>>("first")?.unwrap_or(false);
    let blank = named.get::<Option<bool>>("blank")?.unwrap_or(false);
    named.assert_all_used()?;
    let text = python_str(value);
    let mut out = String::new();
    // Jinja2 adds a line end before it takes the lines, so one at the end stays.
    for (index, line) in lines(&(text + "\n"), false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(&width);
        }
        out.push_str(line);
        if out.len() > 64 << 20 {
            return Err(wrong("an indented text grows too large"));
        }
    }
    Ok(out)
}

fn center(value: &Value, width: Option<usize>) -> Result<String, Error> {
    let text = python_str(value);
    let width = width.unwrap_or(80);
    if width > WIDEST {
        return Err(wrong(format!("a width of {width} is too large")));
    }
    let room = width.saturating_sub(text.chars().count());
    let left = room / 2 + (room & width & 1);
    Ok(format!("{}{text}{}", " ".repeat(left), " ".repeat(room - left)))
}

fn word_count(value: &Value) -> usize {
    let text = python_str(value);
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count()
}

/// An attribute as Python has it: the keys of a dict are none.
fn attribute(value: &Value, name: &str) -> Result<Value, Error> {
    if value.kind() == ValueKind::Map && value.downcast_object_ref::<Kwargs>().is_none() {
        return Ok(Value::UNDEFINED);
    }
    value.get_attr(name)
}

/// Text with HTML's characters escaped as markupsafe does.
fn escaped(value: &Value) -> String {
    let text = python_str(value);
    if value.is_safe() {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            _ => out.push(character),
        }
    }
    out
}

/// The numbers themselves: minijinja's `range` is no sequence, Python's is.
fn range(start: i64, stop: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, stop) = stop.map_or((0, start), |stop| (start, stop));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(wrong("the step of a range must not be zero"));
    }
    let mut numbers = Vec::new();
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        if numbers.len() == LONGEST_RANGE {
            return Err(wrong(format!("a range has more than {LONGEST_RANGE} numbers")));
        }
        numbers.push(Value::from(at));
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    Ok(Value::from(numbers))
}
