//! Writing text: greedy or sampled, several prompts at once, keys and values in a cache.
//!
//! A step of generation is an attention segment of one query whose parent is all of the sequence so far, so the
//! blocks that train are the blocks that write.

use data::Tokenizer;
use engine::device::Device;
use engine::memory::arena::Category;
use engine::ops::attention::Segment;
use engine::ops::embedding;
use engine::random::Stream;
use engine::tensor::{Tensor, View};

use crate::config::ModelConfig;
use crate::decoder::{self, Model, Pass, RowGroup};
use crate::error::{Error, Result};
use crate::head;
use crate::lora::Adapter;

/// Keys and values of one block: a region of rows for each sequence.
pub struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

impl LayerCache {
    fn new(device: &Device, rows: usize, cols: usize) -> Result<LayerCache> {
        let take = || device.scratch((rows, cols), device.activations(), Category::Activations);
        Ok(LayerCache { keys: take()?, values: take()? })
    }

    /// Stores the rows of each segment at its keys' place and hands out the whole cache.
    pub(crate) fn put(
        &mut self,
        segments: &[Segment],
        k: View<'_>,
        v: View<'_>,
    ) -> (View<'_>, View<'_>) {
        for segment in segments {
            let from = segment.query_start..segment.query_start + segment.len;
            let to = segment.key_start..segment.key_start + segment.len;
            self.keys.slice_mut(to.clone()).copy_from(k.slice(from.clone()));
            self.values.slice_mut(to).copy_from(v.slice(from));
        }
        (self.keys.view(), self.values.view())
    }
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; above, logits are divided by it before drawing.
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability are drawn from; 1 for all.
    pub top_p: f32,
    /// Only this many of the likeliest are drawn from; 0 for all.
    pub top_k: usize,
    /// The draws are a function of it, of the sequence and of the position.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The longest continuation.
    pub max_new_tokens: usize,
    /// Tokens that end a continuation; they are not part of it.
    pub stop: &'a [u32],
}

/// The tokens that end an answer: those the model names, and its tokenizer's.
pub fn stop_tokens(config: &ModelConfig, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut stop = config.eos_token_ids.clone();
    stop.extend(tokenizer.eos_token_id());
    stop
}

/// Sequences that are written at the same time.
const BATCH: usize = 32;

/// One continuation per prompt. `on_token` sees every token as it is chosen, with its prompt's index.
pub fn generate(
    model: &Model,
    adapter: Option<&Adapter>,
    prompts: &[Vec<u32>],
    request: &Request<'_>,
    mut on_token: impl FnMut(usize, u32),
) -> Result<Vec<Vec<u32>>> {
    let positions = model.positions;
    for prompt in prompts {
        if prompt.is_empty() {
            return Err(Error::input(
                "a prompt has no token",
                "give the model at least one token to go on from",
            ));
        }
        if prompt.len().saturating_add(request.max_new_tokens) > positions {
            return Err(Error::input(
                format!(
                    "a prompt of {} tokens and {} new ones exceed {positions} positions",
                    prompt.len(),
                    request.max_new_tokens
                ),
                "shorten the prompt or write fewer new tokens",
            ));
        }
    }
    let mut all = Vec::with_capacity(prompts.len());
    for (batch, prompts) in prompts.chunks(BATCH).enumerate() {
        let first = batch * BATCH;
        all.extend(generate_batch(model, adapter, prompts, request, first, &mut on_token)?);
    }
    Ok(all)
}

/// A sequence while it is written.
struct Sequence {
    /// First row of its region in the caches.
    region: usize,
    /// Tokens in the caches.
    len: usize,
    written: Vec<u32>,
    done: bool,
}

fn generate_batch(
    model: &Model,
    adapter: Option<&Adapter>,
    prompts: &[Vec<u32>],
    request: &Request<'_>,
    first: usize,
    on_token: &mut impl FnMut(usize, u32),
) -> Result<Vec<Vec<u32>>> {
    let device = model.device();
    let mut rows = 0;
    let mut sequences: Vec<Sequence> = Vec::new();
    for prompt in prompts {
        sequences.push(Sequence {
            region: rows,
            len: 0,
            written: Vec::new(),
            done: request.max_new_tokens == 0,
        });
        rows += prompt.len() + request.max_new_tokens;
    }
    let mut caches = (0..model.config.num_hidden_layers)
        .map(|_| LayerCache::new(device, rows, model.config.key_value_size()))
        .collect::<Result<Vec<_>>>()?;
    let mut feed: Vec<(usize, Vec<u32>)> = prompts.iter().cloned().enumerate().collect();
    while !feed.is_empty() {
        let logits = feed_tokens(model, adapter, &feed, &mut sequences, &mut caches)?;
        let mut next = Vec::new();
        for ((index, _), logits) in feed.iter().zip(logits.chunks(model.config.vocab_size)) {
            let sequence = &mut sequences[*index];
            if sequence.done {
                continue;
            }
            let token =
                choose(logits, request.sampling, (first + index) as u64, sequence.len as u64);
            // On `plan` all logits are zero: the longest continuation is planned for.
            if request.stop.contains(&token) && !device.is_plan() {
                sequence.done = true;
                continue;
            }
            sequence.written.push(token);
            on_token(first + index, token);
            sequence.done = sequence.written.len() == request.max_new_tokens;
            if sequence.done {
                continue;
            }
            // Keys of a sequence that the next token makes a long one turn otherwise: all of it runs again.
            let mut switches = model.ropes.iter().filter_map(|tables| tables.switch);
            if switches.any(|(longest, _)| sequence.len == longest) {
                sequence.len = 0;
                next.push((*index, [&prompts[*index][..], &sequence.written].concat()));
            } else {
                next.push((*index, vec![token]));
            }
        }
        feed = next;
    }
    Ok(sequences.into_iter().map(|sequence| sequence.written).collect())
}

/// Runs new tokens of some sequences and returns the logits behind the last of each.
fn feed_tokens(
    model: &Model,
    adapter: Option<&Adapter>,
    feed: &[(usize, Vec<u32>)],
    sequences: &mut [Sequence],
    caches: &mut [LayerCache],
) -> Result<Vec<f32>> {
    let device = model.device();
    let (mut tokens, mut positions) = (Vec::<u32>::new(), Vec::<u32>::new());
    let (mut segments, mut last) = (Vec::new(), Vec::new());
    for (index, new) in feed {
        let sequence = &mut sequences[*index];
        segments.push(Segment {
            query_start: tokens.len(),
            key_start: sequence.region + sequence.len,
            len: new.len(),
            parent_start: sequence.region,
            parent_len: sequence.len,
            position0: sequence.len,
        });
        positions.extend((sequence.len..sequence.len + new.len()).map(|position| position as u32));
        tokens.extend(new);
        last.push(tokens.len() as u32 - 1);
        sequence.len += new.len();
    }
    let n = tokens.len();
    let (ids, tokens) = (&tokens, device.upload(&tokens)?);
    let positions = device.upload(&positions)?;
    let pass = Pass {
        tokens: tokens.view(),
        ids,
        positions: positions.view(),
        segments,
        groups: vec![RowGroup { rows: 0..n, adapter }],
        grad_rows: 0,
        dropout: None,
    };
    let hidden = decoder::forward_cached(model, &pass, caches)?;
    let last = device.upload(&last)?;
    let shape = (last.rows(), hidden.cols());
    let mut ends = device.scratch(shape, device.activations(), Category::Workspace)?;
    embedding::forward(last.view(), hidden.view(), ends.view_mut())?;
    head::logits(model, adapter, ends.view())
}

/// The next token, a function of the logits, the seed, the sequence and the position.
fn choose(logits: &[f32], sampling: Sampling, sequence: u64, position: u64) -> u32 {
    let likeliest = || {
        let best = logits
            .iter()
            .enumerate()
            .fold((0, f32::NEG_INFINITY), |best, (i, l)| if *l > best.1 { (i, *l) } else { best });
        best.0 as u32
    };
    if sampling.temperature <= 0.0 {
        return likeliest();
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k);
    }
    let top = f64::from(logits[order[0] as usize]);
    let weight = |token: &u32| {
        ((f64::from(logits[*token as usize]) - top) / f64::from(sampling.temperature)).exp()
    };
    let total: f64 = order.iter().map(weight).sum();
    let mut kept = 0.0;
    let mut nucleus = 0;
    for token in &order {
        kept += weight(token);
        nucleus += 1;
        if kept >= total * f64::from(sampling.top_p) {
            break;
        }
    }
    let mut draw =
        f64::from(Stream::new(sampling.seed, sequence << 32 | position).uniform()) * kept;
    for token in &order[..nucleus] {
        draw -= weight(token);
        if draw < 0.0 {
            return *token;
        }
    }
    order[nucleus - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_follows_the_probabilities_and_its_limits() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 1f32.ln()];
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, seed: 3 };
        let count = |sampling: Sampling, token: u32| {
            (0..4000).filter(|position| choose(&logits, sampling, 0, *position) == token).count()
        };
        assert!((1850..2150).contains(&count(sampling, 1)), "half the draws");
        assert_eq!(count(sampling, 2), 0);
        assert_eq!(count(Sampling { top_k: 1, ..sampling }, 1), 4000);
        assert_eq!(count(Sampling { top_p: 0.5, ..sampling }, 1), 4000);
        assert_eq!(choose(&logits, Sampling::GREEDY, 0, 0), 1);
        assert_eq!(choose(&logits, sampling, 5, 6), choose(&logits, sampling, 5, 6));
    }
}
