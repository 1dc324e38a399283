//! Records become examples of token ids, as TRL 1.16.0's KTO, DPO and SFT trainers make them
//! (`_prepare_dataset` of each).
//!
//! Plain text: the eos token's text is appended where it is missing, and prompt and prompt with
//! completion are tokenized with the tokenizer's default special tokens. Conversations: both are
//! rendered by the chat template (the prompt with the beginning of an answer) and tokenized
//! without adding special tokens. The prompt is what both have in common at the front; the rest
//! of the longer one is the completion.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::records::{Form, Message, Row, Source, Text};
use crate::template::{ChatTemplate, Conversation, Moment};
use crate::tokenizer::Tokenizer;

/// One rated completion, tokenized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The prompt; shorter than `max_length`.
    pub prompt_ids: Vec<u32>,
    /// The whole completion; it is cut where it is used, because as a mismatched completion it
    /// follows another prompt.
    pub completion_ids: Vec<u32>,
    /// Whether the completion is desirable.
    pub label: bool,
    /// Where the record was read.
    pub source: Source,
    /// Index of the other half of the pair, for [`Form::Paired`].
    pub pair: Option<usize>,
    /// Examples with the same number have the same prompt, up to an end that tokenized
    /// differently; examples with equal prompt ids have the same number.
    pub family: usize,
}

impl Example {
    /// How many tokens of `completion` fit behind this prompt.
    pub fn room_for(&self, completion: &[u32], max_length: Option<usize>) -> usize {
        let room = max_length.map_or(usize::MAX, |max| max.saturating_sub(self.prompt_ids.len()));
        completion.len().min(room)
    }
}

/// What rows are tokenized with.
pub(crate) struct Tokenization<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) form: Form,
    now: Moment,
    /// Compiled when the first conversation comes.
    template: OnceLock<Result<ChatTemplate>>,
}

/// A row of tokens.
pub(crate) struct Tokenized {
    pub(crate) source: Source,
    pub(crate) completions: Vec<Fate>,
}

/// What became of a completion.
pub(crate) enum Fate {
    /// It has no text.
    Empty,
    /// The other half of its pair has no text.
    Half,
    /// It is tokenized.
    Kept(Kept),
}

/// A prompt and its completion.
pub(crate) struct Kept {
    /// Both.
    pub(crate) whole: Vec<u32>,
    /// Tokens of the prompt that stand before the completion too.
    pub(crate) prompt: usize,
    /// Tokens of the prompt alone.
    pub(crate) alone: usize,
    pub(crate) label: bool,
    /// The prompt alone and what is left of it, in 128 bits: equal ones make a family.
    pub(crate) fingerprints: [u128; 2],
}

impl<'a> Tokenization<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, form: Form, now: Moment) -> Self {
        Self { tokenizer, form, now, template: OnceLock::new() }
    }

    /// The template, if there was a conversation.
    pub(crate) fn template(&self) -> Option<&ChatTemplate> {
        self.template.get().and_then(|template| template.as_ref().ok())
    }

    /// Compiles the template, for conversations to come: its errors are of no row.
    pub(crate) fn compile(&self) -> Result<&ChatTemplate> {
        let compile = || ChatTemplate::of(self.tokenizer, self.now);
        self.template.get_or_init(compile).as_ref().map_err(Error::clone)
    }

    /// Tokenizes a row. The prompt is tokenized once for all its completions.
    pub(crate) fn row(&self, row: Row) -> Result<Tokenized> {
        let empty: Vec<bool> = row.completions.iter().map(|(text, _)| text.is_empty()).collect();
        // Of a pair to compare, both halves are dropped.
        let broken = self.form == Form::Paired && empty.contains(&true);
        let mut alone = None;
        let mut completions = Vec::with_capacity(row.completions.len());
        for ((completion, label), empty) in row.completions.iter().zip(empty) {
            if empty || broken {
                completions.push(if empty { Fate::Empty } else { Fate::Half });
                continue;
            }
            let tokens = self.tokens_of(&row, completion, &mut alone);
            let (alone, whole) = tokens.map_err(|error| error.at(&row.source))?;
            let prompt = alone.iter().zip(&whole).take_while(|(one, other)| one == other).count();
            let fingerprints = [fingerprint(alone), 0];
            let alone = alone.len();
            completions.push(Fate::Kept(Kept {
                whole,
                prompt,
                alone,
                label: *label,
                fingerprints,
            }));
        }
        if let [Fate::Kept(one), Fate::Kept(other)] = completions.as_mut_slice()
            && self.form == Form::Paired
        {
            // The halves of a pair share one prompt.
            let shorter = one.prompt.min(other.prompt);
            (one.prompt, other.prompt) = (shorter, shorter);
        }
        for fate in &mut completions {
            if let Fate::Kept(kept) = fate {
                kept.fingerprints[1] = fingerprint(&kept.whole[..kept.prompt]);
            }
        }
        Ok(Tokenized { source: row.source, completions })
    }

    /// The prompt alone, and prompt and completion.
    fn tokens_of<'p>(
        &self,
        row: &Row,
        completion: &Text,
        alone: &'p mut Option<Vec<u32>>,
    ) -> Result<(&'p [u32], Vec<u32>)> {
        let tokenizer = self.tokenizer;
        let prompt = |text: &str, special: bool, alone: &'p mut Option<Vec<u32>>| {
            Ok::<&'p [u32], Error>(match alone {
                Some(ids) => ids,
                None => alone.insert(tokenizer.encode(text, special)?),
            })
        };
        match (&row.prompt, completion) {
            (Text::Plain(text), Text::Plain(completion)) => {
                let Some(eos) = tokenizer.eos_token() else {
                    return Err(Error::input(
                        format!(
                            "the tokenizer of '{}' has no eos_token to end a completion with",
                            tokenizer.folder().display()
                        ),
                        "set 'eos_token' in tokenizer_config.json",
                    ));
                };
                let end = if completion.ends_with(eos) { "" } else { eos };
                let whole = format!("{text}{completion}{end}");
                Ok((prompt(text, true, alone)?, tokenizer.encode(&whole, true)?))
            }
            (Text::Messages(before), Text::Messages(completion)) => {
                let mut messages: Vec<&Message> = before.iter().collect();
                let text = match alone {
                    Some(_) => String::new(),
                    None => self.rendered(row, &messages, true)?,
                };
                let ids = prompt(&text, false, alone)?;
                messages.extend(completion);
                Ok((ids, tokenizer.encode(&self.rendered(row, &messages, false)?, false)?))
            }
            _ => Err(Error::input(
                "the prompt and the completion are not both text or both messages",
                "give strings throughout or lists of messages throughout",
            )),
        }
    }

    fn rendered(
        &self,
        row: &Row,
        messages: &[&Message],
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.compile()?.render(&Conversation {
            messages,
            tools: row.tools.as_ref(),
            template_kwargs: &row.template_kwargs,
            add_generation_prompt,
        })
    }
}

/// 128 bits of a list of ids: no two lists of a dataset share them.
fn fingerprint(ids: &[u32]) -> u128 {
    let half = |which: u8| {
        let mut hasher = DefaultHasher::new();
        which.hash(&mut hasher);
        ids.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}
