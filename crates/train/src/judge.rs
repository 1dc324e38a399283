//! Held-out prompts, answered before training and after, and judged by the recipe's rule.

use std::path::Path;

use data::template::{ChatTemplate, Conversation, Moment};
use data::{Tokenizer, files};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::event::{Answer, Judgement};
use crate::recipe::generate::{Desirable, Generate};

/// The prompts of `[generate]`.
pub struct Prompts {
    prompts: Vec<Prompt>,
    /// An answer ends here at the latest.
    pub max_new_tokens: usize,
    /// How freely tokens are drawn; 0 takes the likeliest.
    pub temperature: f64,
    rule: Option<Desirable>,
    show: usize,
}

struct Prompt {
    /// As a person reads it.
    text: String,
    ids: Vec<u32>,
}

impl Prompts {
    /// Reads and tokenizes them.
    pub fn load(generate: &Generate, tokenizer: &Tokenizer, now: Moment) -> Result<Prompts> {
        let path = &generate.prompts;
        let mut prompts = Vec::new();
        for (number, line) in files::read_to_string(path)?.lines().enumerate() {
            if !line.trim().is_empty() {
                prompts.push(prompt(line, path, number + 1, tokenizer, now)?);
            }
        }
        if prompts.is_empty() {
            return Err(Error::input(
                format!("'{}' holds no prompt", path.display()),
                "write a row such as {\"prompt\": \"...\"}, or remove [generate]",
            ));
        }
        Ok(Prompts {
            prompts,
            max_new_tokens: generate.max_new_tokens,
            temperature: generate.temperature,
            rule: generate.desirable.clone(),
            show: generate.show,
        })
    }

    /// Tokens of the longest prompt and answer together.
    pub fn longest(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0) + self.max_new_tokens
    }

    /// Token ids of each prompt.
    pub fn ids(&self) -> Vec<Vec<u32>> {
        self.prompts.iter().map(|prompt| prompt.ids.clone()).collect()
    }

    /// Compares the answers.
    pub fn judge(&self, before: Vec<String>, after: Vec<String>) -> Judgement {
        let follows = |answer: &str| self.rule.as_ref().is_some_and(|rule| rule.judge(answer));
        let answers = self.prompts.iter().zip(before.into_iter().zip(after)).map(
            |(prompt, (before, after))| Answer {
                prompt: prompt.text.clone(),
                desirable_before: follows(&before),
                desirable_after: follows(&after),
                before,
                after,
            },
        );
        Judgement { answers: answers.collect(), judged: self.rule.is_some(), show: self.show }
    }
}

fn prompt(
    line: &str,
    path: &Path,
    number: usize,
    tokenizer: &Tokenizer,
    now: Moment,
) -> Result<Prompt> {
    let wrong = |what: String| {
        Error::input(
            format!("{}:{number}: {what}", path.display()),
            "a row has a prompt: text, or a list of messages with role and content",
        )
    };
    let row: Value =
        serde_json::from_str(line).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let (text, ids) = match row.get("prompt") {
        Some(Value::String(text)) if !text.is_empty() => {
            (text.clone(), tokenizer.encode(text, true)?)
        }
        Some(Value::Array(messages)) => {
            let messages: Option<Vec<&Map<String, Value>>> =
                messages.iter().map(Value::as_object).collect();
            let Some(messages) = messages else {
                return Err(wrong("a message is no object".to_owned()));
            };
            let conversation = Conversation {
                messages: &messages,
                tools: row.get("tools"),
                template_kwargs: &Map::new(),
                add_generation_prompt: true,
            };
            let rendered = ChatTemplate::of(tokenizer, now)?.render(&conversation)?;
            let last =
                messages.last().and_then(|message| message.get("content")).and_then(Value::as_str);
            (last.unwrap_or("").to_owned(), tokenizer.encode(&rendered, false)?)
        }
        _ => return Err(wrong("has no prompt".to_owned())),
    };
    if ids.is_empty() {
        return Err(wrong("the prompt has no token".to_owned()));
    }
    Ok(Prompt { text, ids })
}
