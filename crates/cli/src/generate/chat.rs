//! What the model reads: the conversation through the model's chat template, or without a template the text alone.

use ::train::error::{Error, Result};
use data::Tokenizer;
use data::template::{ChatTemplate, Conversation, Moment};
use serde_json::{Map, Value, json};

use crate::args;

type Message = Map<String, Value>;

/// A conversation.
pub(crate) struct Chat<'a> {
    tokenizer: &'a Tokenizer,
    /// None where the text goes to the model as it is.
    template: Option<ChatTemplate>,
    system: Option<Message>,
    messages: Vec<Message>,
    turns: u64,
}

fn message(role: &str, content: &str) -> Message {
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    message.insert("content".to_owned(), json!(content));
    message
}

impl<'a> Chat<'a> {
    /// Nothing said yet.
    pub(crate) fn new(tokenizer: &'a Tokenizer, arguments: &args::Generate) -> Result<Chat<'a>> {
        let plain = arguments.raw || tokenizer.chat_template(false).is_none();
        if plain && arguments.system.is_some() {
            let why =
                if arguments.raw { "--raw is given" } else { "the model has no chat template" };
            return Err(Error::input(
                format!("--system has no place: {why}"),
                "write it into the prompt instead",
            ));
        }
        Ok(Chat {
            tokenizer,
            template: if plain { None } else { Some(ChatTemplate::of(tokenizer, Moment::now())?) },
            system: arguments.system.as_ref().map(|text| message("system", text)),
            messages: Vec::new(),
            turns: 0,
        })
    }

    /// What the model makes of what is typed.
    pub(crate) fn greeting(&self) -> &'static str {
        match self.template {
            Some(_) => "Talk to the model.",
            None => "The model goes on with what you type; it has no memory of earlier lines.",
        }
    }

    /// Adds a question and returns what the model reads.
    pub(crate) fn ask(&mut self, text: &str) -> Result<Vec<u32>> {
        if self.template.is_none() {
            self.messages.clear();
        }
        self.messages.push(message("user", text));
        let ids = self.ids()?;
        if ids.is_empty() {
            return Err(Error::input("the prompt has no token", "give at least one word"));
        }
        Ok(ids)
    }

    /// What the model reads now.
    pub(crate) fn ids(&self) -> Result<Vec<u32>> {
        let Some(template) = &self.template else {
            let text = self.messages.last().and_then(|message| message.get("content"));
            return Ok(self.tokenizer.encode(text.and_then(Value::as_str).unwrap_or(""), true)?);
        };
        let messages: Vec<&Message> = self.system.iter().chain(&self.messages).collect();
        let text = template.render(&Conversation {
            messages: &messages,
            tools: None,
            template_kwargs: &Map::new(),
            add_generation_prompt: true,
        })?;
        Ok(self.tokenizer.encode(&text, false)?)
    }

    /// Adds the model's answer.
    pub(crate) fn answered(&mut self, text: String) {
        self.messages.push(message("assistant", text.trim()));
        self.turns += 1;
    }

    /// Drops the oldest question and its answer; false where there is only the question of now.
    pub(crate) fn forget_oldest(&mut self) -> bool {
        let more = self.messages.len() > 2;
        if more {
            self.messages.drain(..2);
        }
        more
    }

    /// Drops all that was said.
    pub(crate) fn reset(&mut self) {
        self.messages.clear();
    }

    /// Answers given so far: each draws its own random numbers.
    pub(crate) fn turns(&self) -> u64 {
        self.turns
    }
}
