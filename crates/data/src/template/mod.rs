//! Chat templates: Jinja sources that turn messages into text, rendered as transformers 5.23
//! renders them (`utils/chat_template_utils.py`).
//!
//! Transformers compiles with `trim_blocks` and `lstrip_blocks`, loop controls, a `tojson` that is
//! `json.dumps(ensure_ascii=False)`, `raise_exception`, `strftime_now` and a `generation` block;
//! `tools` and `documents` are None when absent; the special tokens are variables. Keys of
//! messages whose value is null are dropped, and reasoning text is there under each of its names.
//!
//! ```text
//! source        what minijinja's grammar lacks      text     values as Python prints them
//! environment   settings, transformers' additions   json     `tojson`
//! filters       Jinja2's, where minijinja differs   format   `'...' % values`
//! methods       Python's of strings, lists, dicts   clock    the moment a template sees
//! splitting     those that take strings apart
//! ```

mod clock;
mod environment;
mod filters;
mod format;
mod json;
mod methods;
mod source;
mod splitting;
mod text;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};

pub use clock::Moment;
pub use json::float_repr;

use environment::{Raised, environment};

use crate::confined::confined;
use crate::error::{Error, Result};
use crate::records::Message;
use crate::tokenizer::Tokenizer;

/// The longest source: several times the longest that is known.
const LONGEST: usize = 128 << 10;

/// The stack to compile on: as deep as an expression of [`LONGEST`] bytes can be.
const STACK: usize = 256 << 20;

/// What to do about a template that takes all memory or time.
const ENDLESS: &str = "look at its loops, or take the model's own template";

/// The names under which messages carry reasoning, the one that is read first at the front.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The compiled chat templates of a tokenizer.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: Vec<(String, Jinja)>,
    origin: String,
    reads_clock: bool,
    /// What was asked of the clock, with the answers.
    asked: Asked,
}

/// How many formats are kept: no template has more than a few.
pub(crate) const ASKED: usize = 16;

/// Formats of times with the times they were answered by.
type Asked = Arc<Mutex<BTreeMap<String, String>>>;

/// What a template renders.
#[derive(Clone, Copy)]
pub struct Conversation<'a> {
    /// The messages, in order.
    pub messages: &'a [&'a Message],
    /// The tools offered, if any.
    pub tools: Option<&'a Value>,
    /// Further variables; they go before special tokens of the same name.
    pub template_kwargs: &'a Map<String, Value>,
    /// Whether to end with the beginning of an answer.
    pub add_generation_prompt: bool,
}

impl ChatTemplate {
    /// Compiles the tokenizer's templates; `now` is what `strftime_now` shows.
    pub fn of(tokenizer: &Tokenizer, now: Moment) -> Result<Self> {
        let origin = tokenizer.folder().display().to_string();
        let Some(default) = tokenizer.chat_template(false) else {
            return Err(Error::input(
                format!("'{origin}' has no chat template, but the data is conversations"),
                "use a model with a chat template (chat_template.jinja or 'chat_template' in \
                 tokenizer_config.json), or give prompts and completions as strings",
            ));
        };
        Self::compile(
            default,
            tokenizer.chat_template(true),
            tokenizer.special_tokens(),
            now,
            origin,
        )
    }

    /// Compiles a template, and perhaps another for conversations with tools. `origin` names
    /// where they are from.
    pub fn compile<'a>(
        default: &str,
        tool_use: Option<&str>,
        special_tokens: impl Iterator<Item = (&'a str, &'a str)>,
        now: Moment,
        origin: String,
    ) -> Result<Self> {
        let asked = Asked::default();
        let mut environment = environment(now, asked.clone());
        let tool_use = tool_use.unwrap_or(default);
        for (name, source) in [("default", default), ("tool_use", tool_use)] {
            if source.len() > LONGEST {
                return Err(Error::input(
                    format!("the chat template of '{origin}' has {} bytes", source.len()),
                    format!("a template has some thousands, and {LONGEST} at the most"),
                ));
            }
            environment = add(environment, name, source, &origin)?;
        }
        let special_tokens =
            special_tokens.map(|(name, token)| (name.to_string(), Jinja::from(token))).collect();
        let reads_clock = [default, tool_use].iter().any(|text| text.contains("strftime_now"));
        Ok(Self { environment, special_tokens, origin, reads_clock, asked })
    }

    /// Whether what it renders depends on the moment given.
    pub fn reads_clock(&self) -> bool {
        self.reads_clock
    }

    /// What was asked of the clock so far, with the answers.
    pub(crate) fn clock(&self) -> Vec<(String, String)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().map(|(format, time)| (format.clone(), time.clone())).collect()
    }

    /// The text of a conversation.
    pub fn render(&self, conversation: &Conversation) -> Result<String> {
        let messages: Vec<Message> =
            conversation.messages.iter().map(|message| seen(message)).collect();
        // What comes later goes before what has the same name.
        let mut variables: BTreeMap<String, Jinja> = self.special_tokens.iter().cloned().collect();
        variables.insert("documents".to_string(), Jinja::from(()));
        for (name, value) in conversation.template_kwargs {
            variables.insert(name.clone(), Jinja::from(Serde(value)));
        }
        let tools = conversation.tools.map_or(Jinja::from(()), |tools| Jinja::from(Serde(tools)));
        for (name, value) in [
            ("messages", Jinja::from(Serde(&messages))),
            ("tools", tools),
            ("add_generation_prompt", Jinja::from(conversation.add_generation_prompt)),
        ] {
            variables.insert(name.to_string(), value);
        }
        let variables = Jinja::from_pairs(variables);
        let name = if conversation.tools.is_some() { "tool_use" } else { "default" };
        let render = || self.environment.get_template(name)?.render(variables.clone());
        let bytes: usize = messages.iter().map(bytes_of).sum();
        let what = format!("the chat template of '{}'", self.origin);
        confined(bytes, &what, ENDLESS, render).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(raised) = inner.downcast_ref::<Raised>() {
                return Error::input(
                    format!("the chat template refuses the conversation: {}", raised.0),
                    "the roles and their order must be those the model was trained with; \
                     correct the record, or use a model whose template allows it",
                );
            }
            cause = inner.source();
        }
        if error.kind() == ErrorKind::OutOfFuel {
            return Error::input(
                format!("the chat template of '{}' runs without end", self.origin),
                "check its loops",
            );
        }
        Error::input(
            format!("the chat template of '{}' failed: {}", self.origin, describe(error)),
            "the record may lack a field the template reads, or the template uses what only \
             Python has",
        )
    }
}

/// Compiles a template. The parser descends as deep as expressions are nested, so it has a stack of its own.
fn add(
    mut environment: Environment<'static>,
    name: &'static str,
    source: &str,
    origin: &str,
) -> Result<Environment<'static>> {
    let source = source::prepared(source);
    let what = format!("compiling the chat template of '{origin}'");
    let compile = move || {
        confined(source.len(), &what, ENDLESS, || {
            environment.add_template_owned(name, source).map(|()| environment)
        })
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(compile).map_err(|error| {
        Error::machine(
            format!("cannot start a thread to compile the chat template of '{origin}': {error}"),
            "raise the limits of processes and memory (ulimit -u, ulimit -v)",
        )
    })?;
    match thread.join() {
        Ok(Ok(environment)) => Ok(environment),
        Ok(Err(error)) => Err(Error::input(
            format!("the chat template of '{origin}' is not valid: {}", describe(&error)),
            "compare it with the model's own; Prospect reads Jinja as transformers does",
        )),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Bytes of text in a message.
fn bytes_of(message: &Message) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(of).sum(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| name.len() + of(value)).sum()
            }
            _ => 8,
        }
    }
    message.iter().map(|(name, value)| name.len() + of(value)).sum()
}

/// A message as templates see it: without null values, its reasoning under every name.
fn seen(message: &Message) -> Message {
    let mut message = message.clone();
    message.retain(|_, value| !value.is_null());
    if let Some(reasoning) = REASONING.iter().find_map(|&name| message.get(name)).cloned() {
        if !message.contains_key("thinking") {
            message.shift_insert(0, "thinking".to_string(), reasoning.clone());
        }
        message.insert("reasoning_content".to_string(), reasoning);
    }
    message
}

fn describe(error: &minijinja::Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

#[cfg(test)]
mod tests;
