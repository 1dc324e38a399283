//! The environment templates run in: the settings, filters and functions of transformers 5.23's own
//! (`utils/chat_template_utils.py`), over minijinja's.

use std::fmt;
use std::sync::PoisonError;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};

use super::clock::Moment;
use super::methods::wrong;
use super::source::PERCENT;
use super::{ASKED, Asked};
use super::{filters, format, json, methods, text};

/// Instructions a rendering may take. A long conversation takes some tens of thousands.
const FUEL: u64 = 20_000_000;

/// Calls inside calls a template may make; each takes some kilobytes of a thread's stack.
const DEPTH: usize = 100;

/// The message of a template's `raise_exception`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

pub(super) fn environment(now: Moment, asked: Asked) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax); // what may be wrong with a syntax are delimiters, and these are the usual ones
    }
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(methods::call);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    environment.set_formatter(|out, _, value| {
        out.write_str(&text::python_str(value))?;
        Ok(())
    });
    filters::add(&mut environment);
    environment.add_filter("tojson", to_json);
    environment.add_filter(PERCENT, format::percent);
    environment.add_function("raise_exception", |message: &Jinja| -> Result<Jinja, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "the template raised an exception")
            .with_source(Raised(text::python_str(message))))
    });
    environment.add_function("strftime_now", move |directives: &str| {
        let time = now.strftime(directives);
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < ASKED && !asked.contains_key(directives) {
            asked.insert(directives.to_owned(), time.clone());
        }
        time
    });
    environment
}

/// `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, the arguments by name or in
/// this order.
fn to_json(
    value: &Jinja,
    ensure_ascii: Option<bool>,
    indent: Option<Jinja>,
    separators: Option<Jinja>,
    named: Kwargs,
) -> Result<String, Error> {
    fn either(given: Option<Jinja>, named: &Kwargs, name: &str) -> Result<Option<Jinja>, Error> {
        let value = match given {
            Some(value) => Some(value),
            None => named.get::<Option<Jinja>>(name)?,
        };
        Ok(value.filter(|value| !value.is_none()))
    }
    let ensure_ascii = match ensure_ascii {
        Some(flag) => flag,
        None => named.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    let indent = match either(indent, &named, "indent")? {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_string),
        Some(width) => {
            let width = i64::try_from(width)?;
            if width > 64 {
                return Err(wrong(format!("an indent of {width} is too large")));
            }
            Some(" ".repeat(usize::try_from(width).unwrap_or(0)))
        }
    };
    let separators = match either(separators, &named, "separators")? {
        None => None,
        Some(pair) => {
            let pair: Vec<Jinja> = pair.try_iter()?.collect();
            match pair.iter().map(|text| text.as_str()).collect::<Vec<_>>()[..] {
                [Some(item), Some(key)] => Some((item.to_string(), key.to_string())),
                _ => return Err(wrong("separators are two strings")),
            }
        }
    };
    let sort_keys = named.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    named.assert_all_used()?;
    json::dumps(value, &json::Style { ensure_ascii, indent, separators, sort_keys })
}
