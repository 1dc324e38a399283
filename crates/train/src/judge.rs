//! Held-out prompts, answered before training and after, and judged by the recipe's rule.

use std::path::{Path, PathBuf};

use data::template::{ChatTemplate, Conversation, Moment};
use data::{Tokenizer, files};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::event::{Answer, Judgement};
use crate::recipe::generate::{Desirable, Generate};

/// The prompts of `[generate]`.
pub struct Prompts {
    path: PathBuf,
    prompts: Vec<Prompt>,
    /// An answer ends here at the latest.
    pub max_new_tokens: usize,
    /// How freely tokens are drawn; 0 takes the likeliest.
    pub temperature: f64,
    rule: Option<Desirable>,
    show: usize,
}

struct Prompt {
    /// The line it stands in, from 1.
    line: usize,
    /// As a person reads it.
    text: String,
    ids: Vec<u32>,
}

impl Prompts {
    /// Reads and tokenizes them.
    pub fn load(generate: &Generate, tokenizer: &Tokenizer, now: Moment) -> Result<Prompts> {
        let path = &generate.prompts;
        let mut template = None;
        let mut prompts = Vec::new();
        for (number, line) in files::read_to_string(path)?.lines().enumerate() {
            if !line.trim().is_empty() {
                prompts.push(prompt(line, path, number + 1, tokenizer, now, &mut template)?);
            }
        }
        if prompts.is_empty() {
            return Err(Error::input(
                format!("'{}' holds no prompt", path.display()),
                "write a row such as {\"prompt\": \"...\"}, or remove [generate]",
            ));
        }
        Ok(Prompts {
            path: path.clone(),
            prompts,
            max_new_tokens: generate.max_new_tokens,
            temperature: generate.temperature,
            rule: generate.desirable.clone(),
            show: generate.show,
        })
    }

    /// An error if a prompt has a token that the model has no row for.
    pub fn check_tokens(&self, vocab_size: usize) -> Result<()> {
        let beyond = |prompt: &&Prompt| prompt.ids.iter().any(|id| *id as usize >= vocab_size);
        match self.prompts.iter().find(beyond) {
            None => Ok(()),
            Some(Prompt { line, .. }) => {
                Err(beyond_vocabulary(&format!("{}:{line}", self.path.display()), vocab_size))
            }
        }
    }

    /// An error if a prompt and its answer take more positions than the model was made for.
    pub fn check(&self, positions: usize) -> Result<()> {
        let Some(longest) = self.prompts.iter().max_by_key(|prompt| prompt.ids.len()) else {
            return Ok(());
        };
        if self.longest() <= positions {
            return Ok(());
        }
        let tokens = longest.ids.len();
        let hint = match positions.checked_sub(tokens).filter(|left| *left > 0) {
            Some(left) => format!("write [generate] max_new_tokens = {left} or less"),
            None => "shorten the prompt".to_owned(),
        };
        Err(Error::input(
            format!(
                "{}:{}: a prompt of {tokens} tokens and an answer of {} are longer than the {positions} positions the model was made for",
                self.path.display(),
                longest.line,
                self.max_new_tokens
            ),
            hint,
        ))
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

/// A token that the tokenizer has and the model has not.
pub(crate) fn beyond_vocabulary(source: &str, vocab_size: usize) -> Error {
    Error::input(
        format!("{source} has a token beyond the {vocab_size} of the model's vocabulary"),
        "the tokenizer has more tokens than the model: take the tokenizer of this model",
    )
}

fn prompt(
    line: &str,
    path: &Path,
    number: usize,
    tokenizer: &Tokenizer,
    now: Moment,
    template: &mut Option<ChatTemplate>,
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
            let template = match template {
                Some(template) => template,
                None => template.insert(ChatTemplate::of(tokenizer, now)?),
            };
            let rendered = template.render(&conversation)?;
            let last =
                messages.last().and_then(|message| message.get("content")).and_then(Value::as_str);
            (last.unwrap_or("").to_owned(), tokenizer.encode(&rendered, false)?)
        }
        _ => return Err(wrong("has no prompt".to_owned())),
    };
    if ids.is_empty() {
        return Err(wrong("the prompt has no token".to_owned()));
    }
    Ok(Prompt { line: number, text, ids })
}
