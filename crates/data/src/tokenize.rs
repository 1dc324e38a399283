//! Records become examples of token ids, as TRL 1.16.0's KTO, DPO and SFT trainers make them
//! (`_prepare_dataset` of each).
//!
//! Plain text: the eos token's text is appended where it is missing, and prompt and prompt with
//! completion are tokenized with the tokenizer's default special tokens. Conversations: both are
//! rendered by the chat template (the prompt with the beginning of an answer) and tokenized
//! without adding special tokens. The prompt is what both have in common at the front; the rest
//! of the longer one is the completion.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::records::{Form, Message, Record, Source, Text};
use crate::report::{Lengths, Report};
use crate::template::{ChatTemplate, Conversation};
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

/// A record's tokens before its prompt is cut to the common beginning.
struct Tokenized {
    prompt: Vec<u32>,
    whole: Vec<u32>,
    prompt_len: usize,
}

/// Tokenizes the records in their order, drops what cannot be trained on, and reports it.
pub(crate) fn tokenize(
    mut records: Vec<Record>,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    form: Form,
    max_length: Option<usize>,
    report: &mut Report,
) -> Result<Vec<Example>> {
    report.records = records.len();
    drop_empty(&mut records, form, report);
    if records.is_empty() {
        return Err(Error::input(
            format!("every completion is empty, first at {}", report.empty_completions.first[0]),
            "check the names and contents of the fields",
        ));
    }
    // Collected first and only then looked through, so that the error reported is always the
    // first one in the files.
    let tokenized: Vec<Result<Tokenized>> = records
        .par_iter()
        .map(|record| {
            tokens_of(record, tokenizer, template).map_err(|error| error.at(&record.source))
        })
        .collect();
    let mut tokenized = tokenized.into_iter().collect::<Result<Vec<_>>>()?;
    if form == Form::Paired {
        // The halves of a pair share one prompt.
        for pair in tokenized.chunks_exact_mut(2) {
            let shorter = pair[0].prompt_len.min(pair[1].prompt_len);
            pair[0].prompt_len = shorter;
            pair[1].prompt_len = shorter;
        }
    }
    let families = families(&tokenized);
    let unit = if form == Form::Paired { 2 } else { 1 };
    let mut examples = Vec::with_capacity(records.len());
    let fates: Vec<Fate> = tokenized.iter().map(|tokens| fate(tokens, max_length)).collect();
    for (index, (record, mut tokens)) in records.into_iter().zip(tokenized).enumerate() {
        let fate = fates[index];
        let other = fates[if unit == 2 { index ^ 1 } else { index }];
        match (fate, other) {
            (Fate::PromptTooLong, _) => report.prompts_too_long.add(&record.source),
            (Fate::NothingScored, _) => report.nothing_scored.add(&record.source),
            (Fate::Kept { .. }, Fate::Kept { .. }) => {
                if tokens.prompt_len < tokens.prompt.len() {
                    report.moved_prompt_tokens.add(&record.source);
                }
                if matches!(fate, Fate::Kept { cut: true }) {
                    report.cut_completions.add(&record.source);
                }
                let here = examples.len();
                examples.push(Example {
                    completion_ids: tokens.whole.split_off(tokens.prompt_len),
                    prompt_ids: tokens.whole,
                    label: record.label,
                    source: record.source,
                    pair: (unit == 2).then_some(here ^ 1),
                    family: families[index],
                });
            }
            (Fate::Kept { .. }, _) => report.halves.add(&record.source),
        }
    }
    if examples.is_empty() {
        return Err(Error::input(
            format!(
                "no example is left of {} records: {}",
                report.records,
                report.lost().join("; ")
            ),
            "raise max_length, or check that prompts and completions are in the right fields",
        ));
    }
    measure(&examples, max_length, report);
    Ok(examples)
}

/// Drops records whose completion has no text; of a pair to compare, both halves.
fn drop_empty(records: &mut Vec<Record>, form: Form, report: &mut Report) {
    let mut broken: Vec<Option<u32>> = Vec::new();
    records.retain(|record| {
        let empty = record.completion.is_empty();
        if empty {
            report.empty_completions.add(&record.source);
            broken.push(record.pair);
        }
        !empty
    });
    if form == Form::Paired && !broken.is_empty() {
        let broken: std::collections::HashSet<Option<u32>> = broken.into_iter().collect();
        records.retain(|record| {
            let half = broken.contains(&record.pair);
            if half {
                report.halves.add(&record.source);
            }
            !half
        });
    }
}

fn tokens_of(
    record: &Record,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Result<Tokenized> {
    let (prompt, whole) = match (&record.prompt, &record.completion) {
        (Text::Plain(prompt), Text::Plain(completion)) => {
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
            let whole = format!("{prompt}{completion}{end}");
            (tokenizer.encode(prompt, true)?, tokenizer.encode(&whole, true)?)
        }
        (Text::Messages(prompt), Text::Messages(completion)) => {
            let Some(template) = template else {
                return Err(Error::input(
                    "a conversation needs a chat template, and none was given",
                    "use a model with a chat template, or give prompts and completions as strings",
                ));
            };
            let render = |messages: &[&Message], add_generation_prompt: bool| {
                let conversation = Conversation {
                    messages,
                    tools: record.tools.as_ref(),
                    template_kwargs: &record.template_kwargs,
                    add_generation_prompt,
                };
                tokenizer.encode(&template.render(&conversation)?, false)
            };
            let mut messages: Vec<&Message> = prompt.iter().collect();
            let prompt = render(&messages, true)?;
            messages.extend(completion);
            (prompt, render(&messages, false)?)
        }
        _ => {
            return Err(Error::input(
                "the prompt and the completion are not both text or both messages",
                "give strings throughout or lists of messages throughout",
            ));
        }
    };
    let prompt_len = prompt.iter().zip(&whole).take_while(|(one, other)| one == other).count();
    Ok(Tokenized { prompt, whole, prompt_len })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    PromptTooLong,
    NothingScored,
    Kept { cut: bool },
}

fn fate(tokens: &Tokenized, max_length: Option<usize>) -> Fate {
    let max_length = max_length.unwrap_or(usize::MAX);
    if tokens.prompt_len >= max_length {
        return Fate::PromptTooLong;
    }
    // Without a prompt the first token of the completion has no row that scores it.
    let end = tokens.whole.len().min(max_length);
    if end <= tokens.prompt_len.max(1) {
        return Fate::NothingScored;
    }
    Fate::Kept { cut: tokens.whole.len() > max_length }
}

/// Numbers the prompts: two records are of one family if their prompts are equal before or after
/// the cut to the common beginning, or through others that are.
fn families(tokenized: &[Tokenized]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..tokenized.len()).collect();
    fn root(parent: &mut [usize], mut node: usize) -> usize {
        while parent[node] != node {
            parent[node] = parent[parent[node]];
            node = parent[node];
        }
        node
    }
    let mut uncut: HashMap<&[u32], usize> = HashMap::new();
    let mut cut: HashMap<&[u32], usize> = HashMap::new();
    for (index, tokens) in tokenized.iter().enumerate() {
        let same_uncut = *uncut.entry(&tokens.prompt).or_insert(index);
        let same_cut = *cut.entry(&tokens.whole[..tokens.prompt_len]).or_insert(index);
        for same in [same_uncut, same_cut] {
            let (one, other) = (root(&mut parent, index), root(&mut parent, same));
            // The earlier record names the family.
            parent[one.max(other)] = one.min(other);
        }
    }
    (0..tokenized.len()).map(|index| root(&mut parent, index)).collect()
}

/// Counts what is left.
pub(crate) fn measure(examples: &[Example], max_length: Option<usize>, report: &mut Report) {
    report.examples = examples.len();
    report.desirable = examples.iter().filter(|example| example.label).count();
    report.undesirable = report.examples - report.desirable;
    report.prompt_tokens = Lengths::of(examples.iter().map(|example| example.prompt_ids.len()));
    report.completion_tokens =
        Lengths::of(examples.iter().map(|example| example.completion_ids.len()));
    report.tokens = Lengths::of(examples.iter().map(|example| {
        example.prompt_ids.len() + example.room_for(&example.completion_ids, max_length)
    }));
    let distinct: std::collections::HashSet<usize> =
        examples.iter().map(|example| example.family).collect();
    report.distinct_prompts = distinct.len();
}
