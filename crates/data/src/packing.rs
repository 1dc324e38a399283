//! One optimizer step laid out as micro-batches of packed token trees.
//!
//! Groups fill micro-batches in order, as many as the token budget (in rows) holds, never going
//! back to an earlier one. A group that alone is larger than the budget is split by families of
//! examples with the same prompt: its mismatched completions, each family with its prompt, go
//! to the first phase, its rated ones to the second; or, where the first phase leaves what the
//! second begins with, both stay together. A family larger than the budget is split
//! into its examples (pairs stay whole), so only a single example or pair can make a
//! micro-batch larger than the budget.

use std::collections::HashMap;

use crate::batch::{
    Completion, Group, GroupExample, MicroBatch, PackedStep, Role, Scored, Segment,
};

/// One example of a KL group.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Index into the dataset's examples.
    pub index: usize,
    /// Its prompt, shorter than the maximal length.
    pub prompt: &'a [u32],
    /// Its completion, not cut and not empty.
    pub completion: &'a [u32],
    /// Whether the completion is desirable.
    pub label: bool,
    /// Members of the same family share the beginning of their prompts.
    pub family: usize,
    /// The member of the group whose completion is scored after this prompt for the KL term.
    pub partner: usize,
    /// The other half of the pair in the group.
    pub pair: Option<usize>,
}

/// How to lay a step out.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// Prompt and completion are cut at this many tokens, each completion on its own.
    pub max_length: Option<usize>,
    /// Rows a micro-batch may have.
    pub token_budget: usize,
    /// Whether there are mismatched completions.
    pub mismatched: bool,
    /// Whether those of a group that is split stay with its rated completions.
    pub together: bool,
    /// Whether the prompts of desirable completions are scored too.
    pub scored_prompts: bool,
}

/// A completion behind its prompt, before it has a place.
#[derive(Clone, Copy)]
struct Leaf<'a> {
    completion: Completion,
    family: usize,
    prompt: &'a [u32],
    answer: &'a [u32],
    /// Whether its prompt is scored.
    scored_prompt: bool,
}

/// Packs the groups of one optimizer step.
pub fn pack(groups: &[Vec<Member>], options: &PackOptions) -> PackedStep {
    let cut = |prompt: &[u32], completion: &[u32]| match options.max_length {
        Some(max_length) => completion.len().min(max_length.saturating_sub(prompt.len())),
        None => completion.len(),
    };
    let (mut first_phase, mut second_phase) = (Vec::new(), Vec::new());
    for (group, members) in groups.iter().enumerate() {
        let leaf = |example: usize, role: Role| {
            let Member { prompt, family, partner, .. } = members[example];
            let answer = members[if role == Role::Rated { example } else { partner }].completion;
            let completion = Completion { group, example, role };
            let scored_prompt =
                options.scored_prompts && role == Role::Rated && members[example].label;
            let answer = &answer[..cut(prompt, answer)];
            Leaf { completion, family, prompt, answer, scored_prompt }
        };
        let rated: Vec<Leaf> = (0..members.len()).map(|i| leaf(i, Role::Rated)).collect();
        let mismatched: Vec<Leaf> = if options.mismatched {
            (0..members.len()).map(|i| leaf(i, Role::Mismatched)).collect()
        } else {
            Vec::new()
        };
        let whole = [rated.as_slice(), &mismatched].concat();
        if rows(&whole) <= options.token_budget {
            second_phase.push(whole);
        } else if options.together {
            second_phase.extend(split(whole, members, options.token_budget));
        } else {
            first_phase.extend(split(mismatched, members, options.token_budget));
            second_phase.extend(split(rated, members, options.token_budget));
        }
    }
    let groups = groups.iter().map(|members| Group {
        examples: members
            .iter()
            .map(|member| GroupExample {
                index: member.index,
                label: member.label,
                tokens: member.prompt.len() + cut(member.prompt, member.completion),
                pair: member.pair,
            })
            .collect(),
    });
    let lay_out =
        |units| fill(units, options.token_budget).iter().map(|bin| lay_out(bin)).collect();
    PackedStep {
        groups: groups.collect(),
        kl_micro_batches: lay_out(first_phase),
        micro_batches: lay_out(second_phase),
    }
}

/// The leaves of each family, families by first appearance.
fn by_family<'a>(leaves: &[Leaf<'a>]) -> Vec<Vec<Leaf<'a>>> {
    let mut place: HashMap<usize, usize> = HashMap::new();
    let mut families: Vec<Vec<Leaf>> = Vec::new();
    for leaf in leaves {
        let place = *place.entry(leaf.family).or_insert(families.len());
        if place == families.len() {
            families.push(Vec::new());
        }
        families[place].push(*leaf);
    }
    families
}

/// How many tokens the prompts of a family have in common at their beginning.
fn shared(family: &[Leaf]) -> usize {
    let first = family[0].prompt;
    family.iter().skip(1).fold(first.len(), |shared, leaf| {
        first[..shared].iter().zip(leaf.prompt).take_while(|(one, other)| one == other).count()
    })
}

/// How many rows leaves take when prompts are shared.
fn rows(leaves: &[Leaf]) -> usize {
    let family_rows = |family: &Vec<Leaf>| {
        let shared = shared(family);
        let own = |leaf: &Leaf| leaf.prompt.len() - shared + leaf.answer.len();
        shared + family.iter().map(own).sum::<usize>()
    };
    by_family(leaves).iter().map(family_rows).sum()
}

/// The parts of a group too large for one micro-batch: families, or of a family too large its
/// examples.
fn split<'a>(leaves: Vec<Leaf<'a>>, members: &[Member], budget: usize) -> Vec<Vec<Leaf<'a>>> {
    let mut units = Vec::new();
    for family in by_family(&leaves) {
        if rows(&family) <= budget {
            units.push(family);
            continue;
        }
        let mut pairs: HashMap<usize, usize> = HashMap::new();
        for leaf in family {
            let example = leaf.completion.example;
            let first_half = members[example].pair.map_or(example, |other| other.min(example));
            let unit = *pairs.entry(first_half).or_insert(units.len());
            if unit == units.len() {
                units.push(Vec::new());
            }
            units[unit].push(leaf);
        }
    }
    units
}

/// Fills micro-batches with units in order.
fn fill<'a>(units: Vec<Vec<Leaf<'a>>>, budget: usize) -> Vec<Vec<Leaf<'a>>> {
    let mut bins: Vec<Vec<Leaf>> = Vec::new();
    for unit in units {
        if let Some(bin) = bins.last_mut() {
            let before = bin.len();
            bin.extend_from_slice(&unit);
            if rows(bin) <= budget {
                continue;
            }
            bin.truncate(before);
        }
        bins.push(unit);
    }
    bins
}

fn lay_out(leaves: &[Leaf]) -> MicroBatch {
    let families = by_family(leaves);
    let mut batch = MicroBatch::default();
    let mut parents: Vec<Option<usize>> = Vec::with_capacity(families.len());
    let mut shares: Vec<usize> = Vec::with_capacity(families.len());
    let mut prompts: Vec<(Completion, Vec<(usize, u32)>)> = Vec::new();
    let any_rated = leaves.iter().any(|leaf| leaf.completion.role == Role::Rated);
    for family in &families {
        let shared = shared(family);
        let parent = (shared > 0).then_some(batch.segments.len());
        if shared > 0 {
            let prompt = &family[0].prompt[..shared];
            batch.segments.push(Segment {
                start: batch.tokens.len(),
                len: shared,
                parent: None,
                position0: 0,
            });
            batch.tokens.extend_from_slice(prompt);
        }
        parents.push(parent);
        shares.push(shared);
        for leaf in family.iter().filter(|leaf| leaf.completion.role == Role::Rated) {
            let start = batch.tokens.len();
            append(&mut batch, leaf, parent, shared);
            if leaf.scored_prompt {
                let before = parent.map_or(0, |parent| batch.segments[parent].start);
                let row = |at: usize| if at < shared { before + at } else { start + at - shared };
                let scored =
                    (1..leaf.prompt.len()).map(|at| (row(at - 1), leaf.prompt[at])).collect();
                prompts.push((Completion { role: Role::Prompt, ..leaf.completion }, scored));
            }
        }
    }
    batch.rated_rows = if any_rated { batch.tokens.len() } else { 0 };
    for (family, (&parent, &shared)) in families.iter().zip(parents.iter().zip(&shares)) {
        for leaf in family.iter().filter(|leaf| leaf.completion.role == Role::Mismatched) {
            append(&mut batch, leaf, parent, shared);
        }
    }
    for (prompt, scored) in prompts {
        let completion = batch.completions.len();
        batch.scored.extend(scored.into_iter().map(|(row, target)| Scored {
            row,
            target,
            completion,
        }));
        batch.completions.push(prompt);
    }
    batch
}

/// Appends a leaf as a segment: the part of its prompt that is not shared, then the answer.
fn append(batch: &mut MicroBatch, leaf: &Leaf, parent: Option<usize>, shared: usize) {
    let start = batch.tokens.len();
    batch.tokens.extend_from_slice(&leaf.prompt[shared..]);
    let mut before = match (batch.tokens.len().checked_sub(1), parent) {
        (Some(last), _) if last >= start => Some(last),
        (_, Some(parent)) => Some(batch.segments[parent].start + batch.segments[parent].len - 1),
        _ => None,
    };
    for &target in leaf.answer {
        if let Some(row) = before {
            batch.scored.push(Scored { row, target, completion: batch.completions.len() });
        }
        before = Some(batch.tokens.len());
        batch.tokens.push(target);
    }
    let len = batch.tokens.len() - start;
    batch.segments.push(Segment { start, len, parent, position0: shared });
    batch.completions.push(leaf.completion);
}

#[cfg(test)]
mod tests;
