//! A dataset: files in, optimizer steps out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::PackedStep;
use crate::error::{Error, Result};
use crate::packing::{Member, PackOptions, pack};
use crate::pairing;
use crate::records::{self, Form, Source, Text};
use crate::report::Report;
use crate::sampler::{self, Order};
use crate::template::{ChatTemplate, Moment};
use crate::tokenize::{Example, measure, tokenize};
use crate::tokenizer::Tokenizer;

/// How files become examples.
#[derive(Clone, Copy, Debug)]
pub struct DataOptions {
    /// What the objective needs.
    pub form: Form,
    /// Prompt and completion are cut at this many tokens; `None` cuts nothing.
    pub max_length: Option<usize>,
    /// The moment a chat template may write into prompts; a resumed run gives the moment of the
    /// run it goes on with ([`Report::template_moment`]).
    pub now: Moment,
}

/// How examples become steps. Zero counts as one in the sizes.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// The order within an epoch.
    pub order: Order,
    /// The seed of order and partners.
    pub seed: u64,
    /// Examples in a KL group; pairs, for [`Form::Paired`].
    pub batch_size: usize,
    /// Groups in an optimizer step; the last step of an epoch may have fewer.
    pub gradient_accumulation_steps: usize,
    /// Rows a micro-batch may have.
    pub token_budget: usize,
    /// Whether the objective needs mismatched completions.
    pub mismatched: bool,
    /// Whether the prompts of chosen completions are scored too.
    pub scored_prompts: bool,
}

/// Tokenized examples.
#[derive(Clone, Debug)]
pub struct Dataset {
    examples: Vec<Example>,
    form: Form,
    max_length: Option<usize>,
}

/// The steps of one epoch, each computable on its own.
pub struct Epoch<'a> {
    dataset: &'a Dataset,
    batching: Batching,
    number: u64,
    /// Examples in order, or pairs.
    items: Vec<usize>,
}

/// An example as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// `file:line` of the record.
    pub source: String,
    /// Whether the completion is desirable.
    pub label: bool,
    /// The text the model is given, special tokens included.
    pub prompt: String,
    /// The text that is scored, after cutting.
    pub completion: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the completion that are kept.
    pub completion_tokens: usize,
    /// Tokens of the completion that are cut off.
    pub cut_tokens: usize,
}

impl Dataset {
    /// Reads and tokenizes the files, and reports what was dropped and cut.
    pub fn load(
        paths: &[PathBuf],
        tokenizer: &Tokenizer,
        options: &DataOptions,
    ) -> Result<(Self, Report)> {
        let records = records::read(paths, options.form)?;
        let mut report = Report { files: paths.to_vec(), ..Report::default() };
        let conversational =
            records.first().is_some_and(|record| matches!(record.prompt, Text::Messages(_)));
        let template = match conversational {
            true => Some(ChatTemplate::of(tokenizer, options.now)?),
            false => None,
        };
        if template.as_ref().is_some_and(ChatTemplate::reads_clock) {
            report.template_moment = Some(options.now);
        }
        let (form, max_length) = (options.form, options.max_length);
        let examples =
            tokenize(records, tokenizer, template.as_ref(), form, max_length, &mut report)?;
        Ok((Self { examples, form, max_length }, report))
    }

    /// Made-up examples of one length, for plans: the labels alternate, and no two prompts are the same.
    pub fn made_up(form: Form, count: usize, prompt: usize, completion: usize) -> (Self, Report) {
        let file: Arc<Path> = Path::new("made up").into();
        let example = |index: usize| {
            let mut prompt_ids = vec![0; prompt];
            // Token 0 and token 1 are in every vocabulary: the number in binary, as far as there is room.
            let bits = (0..usize::BITS).map(|bit| (index >> bit & 1) as u32);
            prompt_ids.iter_mut().zip(bits).for_each(|(id, bit)| *id = bit);
            Example {
                prompt_ids,
                completion_ids: vec![0; completion],
                label: index % 2 == 0,
                source: Source { file: file.clone(), line: index + 1 },
                pair: (form == Form::Paired).then_some(index ^ 1),
                family: if form == Form::Paired { index / 2 } else { index },
            }
        };
        let examples: Vec<Example> = (0..count).map(example).collect();
        let mut report = Report { records: count, ..Report::default() };
        measure(&examples, None, &mut report);
        (Self { examples, form, max_length: None }, report)
    }

    /// The examples, in the order of the files.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// What the objective needs.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Where prompt and completion are cut.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }

    /// The optimizer steps of an epoch.
    pub fn steps_per_epoch(&self, batching: &Batching) -> usize {
        let groups = self.item_count().div_ceil(batching.batch_size.max(1));
        groups.div_ceil(batching.gradient_accumulation_steps.max(1))
    }

    /// Epoch `number`, from 0.
    pub fn epoch(&self, batching: &Batching, number: u64) -> Epoch<'_> {
        let classes: Vec<bool> = match self.form {
            Form::Paired => vec![true; self.item_count()],
            Form::Unpaired | Form::Sft => {
                self.examples.iter().map(|example| example.label).collect()
            }
        };
        let items = sampler::epoch(batching.order, &classes, batching.seed, number);
        Epoch { dataset: self, batching: *batching, number, items }
    }

    /// An example with the boundary between prompt and completion visible.
    pub fn rendered(&self, index: usize, tokenizer: &Tokenizer) -> Result<Rendered> {
        let Some(example) = self.examples.get(index) else {
            return Err(Error::input(
                format!("there is no example {index}; the dataset has {}", self.examples.len()),
                "examples are numbered from 0",
            ));
        };
        let kept = example.room_for(&example.completion_ids, self.max_length);
        Ok(Rendered {
            source: example.source.to_string(),
            label: example.label,
            prompt: tokenizer.decode(&example.prompt_ids, false)?,
            completion: tokenizer.decode(&example.completion_ids[..kept], false)?,
            prompt_tokens: example.prompt_ids.len(),
            completion_tokens: kept,
            cut_tokens: example.completion_ids.len() - kept,
        })
    }

    /// Examples, or pairs of them.
    fn item_count(&self) -> usize {
        self.examples.len() / if self.form == Form::Paired { 2 } else { 1 }
    }
}

impl Epoch<'_> {
    /// How many optimizer steps there are.
    pub fn steps(&self) -> usize {
        self.dataset.steps_per_epoch(&self.batching)
    }

    /// Step `index` of the epoch, packed; one past the last has no group.
    pub fn step(&self, index: usize) -> PackedStep {
        let accumulation = self.batching.gradient_accumulation_steps.max(1);
        let groups: Vec<Vec<Member>> = self
            .items
            .chunks(self.batching.batch_size.max(1))
            .enumerate()
            .skip(index.saturating_mul(accumulation))
            .take(accumulation)
            .map(|(group, items)| self.members(group, items))
            .collect();
        let options = PackOptions {
            max_length: self.dataset.max_length,
            token_budget: self.batching.token_budget,
            mismatched: self.batching.mismatched,
            scored_prompts: self.batching.scored_prompts,
        };
        pack(&groups, &options)
    }

    /// Examples whose mismatched completion answers the same prompt, because their group has
    /// too few others.
    pub fn matched_partners(&self) -> usize {
        let groups = self.items.chunks(self.batching.batch_size.max(1)).enumerate();
        groups
            .map(|(group, items)| {
                let members = self.members(group, items);
                let families: Vec<usize> = members.iter().map(|member| member.family).collect();
                let partners: Vec<usize> = members.iter().map(|member| member.partner).collect();
                pairing::matched(&partners, &families)
            })
            .sum()
    }

    fn members(&self, group: usize, items: &[usize]) -> Vec<Member<'_>> {
        let examples: Vec<usize> = match self.dataset.form {
            Form::Paired => items.iter().flat_map(|&pair| [2 * pair, 2 * pair + 1]).collect(),
            Form::Unpaired | Form::Sft => items.to_vec(),
        };
        let example = |index: usize| &self.dataset.examples[index];
        let families: Vec<usize> = examples.iter().map(|&index| example(index).family).collect();
        let Batching { order, seed, .. } = self.batching;
        let partners = pairing::partners(order, &families, seed, self.number, group as u64);
        examples
            .iter()
            .enumerate()
            .map(|(place, &index)| Member {
                index,
                prompt: &example(index).prompt_ids,
                completion: &example(index).completion_ids,
                label: example(index).label,
                family: families[place],
                partner: partners[place],
                pair: example(index).pair.map(|_| place ^ 1),
            })
            .collect()
    }
}
