//! The steps of an epoch. The tokens of a step are looked at when it is packed, and those of no other.

use std::borrow::Cow;

use super::{Batching, Dataset};
use crate::batch::PackedStep;
use crate::packing::{Member, PackOptions, pack};
use crate::pairing;
use crate::records::Form;
use crate::tokens::Entry;

/// The steps of one epoch, each computable on its own.
pub struct Epoch<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) batching: Batching,
    pub(super) number: u64,
    /// Examples in order, or pairs.
    pub(super) items: Vec<usize>,
}

impl Epoch<'_> {
    /// How many optimizer steps there are.
    pub fn steps(&self) -> usize {
        self.dataset.steps_per_epoch(&self.batching)
    }

    /// Step `index` of the epoch, packed; one past the last has no group.
    pub fn step(&self, index: usize) -> PackedStep {
        let accumulation = self.batching.gradient_accumulation_steps.max(1);
        let groups: Vec<Group<'_>> = self
            .items
            .chunks(self.batching.batch_size.max(1))
            .enumerate()
            .skip(index.saturating_mul(accumulation))
            .take(accumulation)
            .map(|(group, items)| self.group(group, items))
            .collect();
        let ids: Vec<Vec<Ids<'_>>> = groups
            .iter()
            .map(|group| group.entries.iter().map(|(_, entry)| self.dataset.ids(entry)).collect())
            .collect();
        let groups: Vec<Vec<Member<'_>>> =
            groups.iter().zip(&ids).map(|(group, ids)| group.members(ids)).collect();
        let options = PackOptions {
            max_length: self.dataset.max_length,
            token_budget: self.batching.token_budget,
            mismatched: self.batching.mismatched,
            together: self.batching.together,
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
                let group = self.group(group, items);
                pairing::matched(&group.partners, &group.families)
            })
            .sum()
    }

    fn group(&self, group: usize, items: &[usize]) -> Group<'_> {
        let examples: Vec<usize> = match self.dataset.form {
            Form::Paired => items.iter().flat_map(|&pair| [2 * pair, 2 * pair + 1]).collect(),
            Form::Unpaired | Form::Sft => items.to_vec(),
        };
        let entries: Vec<(usize, &Entry)> =
            examples.iter().map(|&index| (index, &self.dataset.entries[index])).collect();
        let families: Vec<usize> = entries.iter().map(|(_, entry)| entry.family as usize).collect();
        let Batching { order, seed, .. } = self.batching;
        let partners = pairing::partners(order, &families, seed, self.number, group as u64);
        Group { entries, families, partners, paired: self.dataset.form == Form::Paired }
    }
}

/// The tokens of a prompt and its completion.
pub(super) type Ids<'a> = (Cow<'a, [u32]>, Cow<'a, [u32]>);

/// The examples of a KL group, before their tokens are looked at.
struct Group<'a> {
    /// With their indices.
    entries: Vec<(usize, &'a Entry)>,
    families: Vec<usize>,
    partners: Vec<usize>,
    paired: bool,
}

impl Group<'_> {
    fn members<'i>(&self, ids: &'i [Ids<'_>]) -> Vec<Member<'i>> {
        let places = self.entries.iter().zip(ids).enumerate();
        places
            .map(|(place, (&(index, entry), (prompt, completion)))| Member {
                index,
                prompt,
                completion,
                label: entry.label,
                family: self.families[place],
                partner: self.partners[place],
                pair: self.paired.then_some(place ^ 1),
            })
            .collect()
    }
}
