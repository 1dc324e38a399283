//! `prospect inspect template`: a conversation as the chat template renders it.

use std::io::{self, Write};
use std::path::Path;

use ::train::error::{Error, Result};
use data::template::{ChatTemplate, Conversation, Moment};
use data::{Tokenizer, files};
use serde_json::{Map, Value};

use crate::args;
use crate::ending::Done;
use crate::generate::source::Source;

/// Prints the rendered text, without a newline of its own.
pub(crate) fn run(arguments: &args::Template) -> Result<Done> {
    let template = compile(&arguments.source)?;
    let mut variables = read(&arguments.conversation)?;
    variables.extend(arguments.set.iter().cloned());
    let at = |what: &str| format!("{what} in '{}'", arguments.conversation.display());
    let messages = match variables.remove("messages") {
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err(Error::input(format!("{} is not a list", at("'messages'")), SHAPE)),
        None => return Err(Error::input(format!("there is no {}", at("'messages'")), SHAPE)),
    };
    let messages: Vec<Map<String, Value>> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| match message {
            Value::Object(message) => Ok(message),
            other => {
                let message = format!("message {index}");
                Err(Error::input(format!("{} is {other}, not an object", at(&message)), SHAPE))
            }
        })
        .collect::<Result<_>>()?;
    let tools = match variables.remove("tools") {
        None | Some(Value::Null) => None,
        Some(Value::Array(tools)) => Some(Value::Array(tools)),
        Some(_) => return Err(Error::input(format!("{} is not a list", at("'tools'")), SHAPE)),
    };
    let add_generation_prompt = match variables.remove("add_generation_prompt") {
        None => false,
        Some(Value::Bool(flag)) => flag,
        Some(other) => {
            return Err(Error::input(
                format!("{} is {other}", at("'add_generation_prompt'")),
                "write true or false, or use --add-generation-prompt",
            ));
        }
    };
    let text = template.render(&Conversation {
        messages: &messages.iter().collect::<Vec<_>>(),
        tools: tools.as_ref(),
        template_kwargs: &variables,
        add_generation_prompt: add_generation_prompt || arguments.add_generation_prompt,
    })?;
    let mut stdout = io::stdout().lock();
    // A reader that went away has read enough.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    Ok(Done::Well)
}

const SHAPE: &str = "write a list of messages, [{\"role\": \"user\", \"content\": \"Hi\"}], or an object \
                     {\"messages\": [...], \"tools\": [...], ...}";

/// The template of a model folder with its special tokens, or of a file, which has none.
fn compile(source: &Path) -> Result<ChatTemplate> {
    if source.is_dir() {
        let model = Source::find(source, None)?.model;
        return Ok(ChatTemplate::of(&Tokenizer::load(&model)?, Moment::now())?);
    }
    let text = files::read_to_string(source)?;
    let origin = source.display().to_string();
    Ok(ChatTemplate::compile(&text, None, std::iter::empty(), Moment::now(), origin)?)
}

/// The variables of a conversation's file; a list is the messages.
fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = files::read_to_string(path)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(variables)) => Ok(variables),
        Ok(messages @ Value::Array(_)) => Ok(Map::from_iter([("messages".to_owned(), messages)])),
        Ok(_) => Err(Error::input(format!("'{}' is no conversation", path.display()), SHAPE)),
        Err(error) => {
            Err(Error::input(format!("'{}' is not JSON: {error}", path.display()), SHAPE))
        }
    }
}
