//! The search for the fastest policy that fits.
//!
//! Memory buys time in this order: first the embedding table leaves the device, then blocks compute again what they do
//! not keep, then their inputs wait in the host's memory. Passes may be smaller, too: then products are narrower and a
//! group's baseline is a pass of its own, but more is kept; where the inputs of all blocks wait in the host's memory,
//! that pass leaves what the others begin with. For every size of a pass the first of these that fits is
//! found, and of all of them the one taken whose work on this device takes the least time by its figures.
//!
//! The search walks some steps, the heaviest among them; what it finds is then walked whole.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Fit, Policy, SMALLEST_BUDGET, Simulation, bytes, simulate, walk, walk_besides};
use crate::error::Result;
use crate::inputs::Inputs;
use crate::machine::Machine;
use engine::device::Kind;

/// What [`search`] found.
pub enum Found {
    /// The fastest policy that fits.
    Fits(Fit),
    /// None fits: the one that takes least, and what may be taken.
    TooLarge {
        /// What the run takes at the least.
        least: Simulation,
        /// What it may take.
        limit: u64,
    },
}

/// The fastest policy that fits the memory.
pub fn search(inputs: &Inputs, machine: &Machine) -> Result<Found> {
    let search = Search::new(inputs, machine);
    let mut limit = machine.limit;
    loop {
        let Some(chosen) = search.fastest(limit)? else {
            let least = simulate(inputs, machine, search.least())?;
            return Ok(Found::TooLarge { least, limit: machine.limit.unwrap_or(0) });
        };
        let whole = simulate(inputs, machine, chosen.policy)?;
        let excess =
            machine.limit.map_or(0, |limit| (whole.peak_bytes as u64).saturating_sub(limit));
        if excess == 0 {
            let reason = search.reason(&whole, chosen.all_kept);
            return Ok(Found::Fits(Fit { simulation: whole, limit: machine.limit, reason }));
        }
        // A step that the search did not walk takes more than those it did.
        limit = limit.map(|limit| limit.saturating_sub(excess.max(1)));
    }
}

impl Policy {
    /// What takes the least memory in passes of `token_budget`. On a GPU the host's memory is another; there the
    /// embedding table may lie if it is neither trained nor the head.
    pub fn least(inputs: &Inputs, machine: &Machine, token_budget: usize) -> Policy {
        let gpu = machine.arithmetic() == Kind::Cuda;
        Policy {
            token_budget,
            kept_layers: 0,
            host_layers: if gpu { inputs.config.num_hidden_layers } else { 0 },
            host_table: gpu && inputs.lora.is_some() && !inputs.config.tie_word_embeddings,
        }
    }
}

struct Search<'a> {
    inputs: &'a Inputs,
    machine: &'a Machine,
    /// The steps that are walked.
    steps: Vec<usize>,
    /// Tokens of the run's largest group, packed: with so many in one pass no group is split.
    largest_group: usize,
}

/// A policy that fits the steps that were walked.
struct Chosen {
    policy: Policy,
    /// What keeping everything would take in passes of this size, where it does not fit.
    all_kept: Option<usize>,
}

/// A group of the run, packed into one pass.
struct Group {
    step: usize,
    rows: usize,
    /// Scored tokens.
    scored: usize,
}

/// So many of the steps with the most rows, of those with the most scored tokens, and of all.
const HEAVIEST: usize = 3;

impl<'a> Search<'a> {
    fn new(inputs: &'a Inputs, machine: &'a Machine) -> Search<'a> {
        let mut batching = inputs.batching(usize::MAX);
        let per_epoch = inputs.dataset.steps_per_epoch(&batching).max(1);
        let accumulation = batching.gradient_accumulation_steps.max(1);
        batching.gradient_accumulation_steps = 1;
        let all = inputs.steps();
        let mut groups = Vec::new();
        for number in 0..all.div_ceil(per_epoch) {
            let epoch = inputs.dataset.epoch(&batching, number as u64);
            let weigh = |group: usize| {
                let parts = epoch.step(group).micro_batches;
                let rows = parts.iter().map(data::MicroBatch::rows).max().unwrap_or(0);
                let scored = parts.iter().map(|part| part.scored.len()).max().unwrap_or(0);
                Group { step: number * per_epoch + group / accumulation, rows, scored }
            };
            let weights = (0..epoch.steps()).into_par_iter().map(weigh);
            groups.extend(weights.collect::<Vec<_>>());
        }
        groups.retain(|group| group.step < all);
        let mut steps: BTreeSet<usize> = (0..HEAVIEST).map(|i| i * all / HEAVIEST).collect();
        steps.insert(all.saturating_sub(1));
        for by in [|group: &Group| group.rows, |group: &Group| group.scored] {
            groups.sort_by_key(|group| std::cmp::Reverse(by(group)));
            steps.extend(groups.iter().take(HEAVIEST).map(|group| group.step));
        }
        let rows = groups.iter().map(|group| group.rows).max().unwrap_or(0);
        let largest_group = rows.max(SMALLEST_BUDGET);
        Search { inputs, machine, steps: steps.into_iter().collect(), largest_group }
    }

    fn layers(&self) -> usize {
        self.inputs.config.num_hidden_layers
    }

    /// What leaves the device where memory is all that counts.
    fn table_may_leave(&self) -> bool {
        Policy::least(self.inputs, self.machine, 1).host_table
    }

    /// The sizes of a pass that are tried.
    fn budgets(&self) -> Vec<usize> {
        if let Some(written) = self.inputs.recipe.train.token_budget {
            return vec![written];
        }
        let halves = std::iter::successors(Some(self.largest_group), |budget| {
            (*budget > SMALLEST_BUDGET).then(|| (budget / 2).max(SMALLEST_BUDGET))
        });
        halves.collect()
    }

    /// What takes the least memory.
    fn least(&self) -> Policy {
        let budget = self.budgets().last().copied().unwrap_or(SMALLEST_BUDGET);
        Policy::least(self.inputs, self.machine, budget)
    }

    /// The fastest of what fits in passes of each size.
    fn fastest(&self, limit: Option<u64>) -> Result<Option<Chosen>> {
        let mut best: Option<(f64, Chosen)> = None;
        for budget in self.budgets() {
            let Some((simulation, all_kept)) = self.first_that_fits(budget, limit)? else {
                continue;
            };
            let all_is_kept = simulation.policy.kept_layers == self.layers();
            let ahead = match budget < self.largest_group && !all_is_kept {
                true => self.ahead(budget, limit)?,
                false => None,
            };
            for simulation in ahead.into_iter().chain([simulation]) {
                let seconds = self.machine.figures().seconds(&simulation.ledger);
                if best.as_ref().is_none_or(|(least, _)| seconds < *least) {
                    best = Some((seconds, Chosen { policy: simulation.policy, all_kept }));
                }
            }
            // Smaller passes do no more than this.
            if all_is_kept {
                break;
            }
        }
        Ok(best.map(|(_, chosen)| chosen))
    }

    /// The first policy that fits in passes of `token_budget`, in the module's order; with what keeping everything
    /// would take, where it is another one.
    fn first_that_fits(
        &self,
        token_budget: usize,
        limit: Option<u64>,
    ) -> Result<Option<(Simulation, Option<usize>)>> {
        let (inputs, machine) = (self.inputs, self.machine);
        // What is done besides the steps keeps nothing, so it is the same whatever is kept.
        let besides = |host_table| {
            let policy = Policy { host_table, ..Policy::all(token_budget, 0) };
            walk_besides(inputs, machine, policy)
        };
        let mut around = besides(false)?;
        let walked = |policy: Policy, around: &Simulation| -> Result<Simulation> {
            Ok(walk(inputs, machine, policy, &self.steps)?.and(around))
        };
        let fits = |simulation: &Simulation| self.fits(simulation, limit);
        let layers = self.layers();
        let mut policy = Policy::all(token_budget, layers);
        let all = walked(policy, &around)?;
        if fits(&all) {
            return Ok(Some((all, None)));
        }
        let all_kept = Some(all.peak_bytes);
        if self.table_may_leave() {
            policy.host_table = true;
            around = besides(true)?;
            let simulation = walked(policy, &around)?;
            if fits(&simulation) {
                return Ok(Some((simulation, all_kept)));
            }
        }
        // The peak grows with the number of kept blocks, and falls with that of inputs that wait elsewhere.
        let kept = |kept_layers| walked(Policy { kept_layers, ..policy }, &around);
        if let Some(simulation) = most(layers, kept, fits)? {
            return Ok(Some((simulation, all_kept)));
        }
        if self.least().host_layers == 0 {
            return Ok(None);
        }
        let held =
            |held| walked(Policy { kept_layers: 0, host_layers: layers - held, ..policy }, &around);
        Ok(most(layers, held, fits)?.map(|simulation| (simulation, all_kept)))
    }

    /// All inputs in the host's memory, if that fits: then groups that are split run forward once instead of twice.
    fn ahead(&self, token_budget: usize, limit: Option<u64>) -> Result<Option<Simulation>> {
        let policy = Policy::least(self.inputs, self.machine, token_budget);
        if !policy.leaves_inputs(self.layers()) {
            return Ok(None);
        }
        let besides = walk_besides(self.inputs, self.machine, policy)?;
        let simulation = walk(self.inputs, self.machine, policy, &self.steps)?.and(&besides);
        Ok(self.fits(&simulation, limit).then_some(simulation))
    }

    fn fits(&self, simulation: &Simulation, limit: Option<u64>) -> bool {
        let within =
            |bytes: usize, limit: Option<u64>| limit.is_none_or(|limit| bytes as u64 <= limit);
        within(simulation.peak_bytes, limit)
            && within(simulation.host_bytes, self.machine.host_limit)
    }

    /// The policy in words.
    fn reason(&self, fit: &Simulation, all_kept: Option<usize>) -> String {
        let (policy, layers) = (fit.policy, self.layers());
        let whole = policy.token_budget == self.largest_group
            && self.inputs.recipe.train.token_budget.is_none();
        let mut words = match whole {
            true => "a whole group in one pass".to_owned(),
            false => format!("{} tokens in one pass", policy.token_budget),
        };
        if policy.kept_layers >= layers {
            words += ", everything backward reads is kept";
        } else {
            words += &format!(
                "; {} of {layers} blocks keep what backward reads, the others compute it again",
                policy.kept_layers
            );
        }
        if policy.host_layers > 0 {
            words +=
                &format!("; the inputs of {} blocks wait in the host's memory", policy.host_layers);
        }
        if policy.host_table {
            words += "; the embedding table lies in the host's memory";
        }
        if let Some(all) = all_kept {
            words += &format!(": keeping all would take {}", bytes(all as u64));
        }
        words
    }
}

/// The result for the largest number below `end` that fits, the peak growing with it; none if not even 0 does.
fn most(
    end: usize,
    at: impl Fn(usize) -> Result<Simulation>,
    fits: impl Fn(&Simulation) -> bool,
) -> Result<Option<Simulation>> {
    let mut found = at(0)?;
    if !fits(&found) {
        return Ok(None);
    }
    let (mut low, mut high) = (0, end);
    while high - low > 1 {
        let middle = (low + high) / 2;
        let simulation = at(middle)?;
        if fits(&simulation) {
            (low, found) = (middle, simulation);
        } else {
            high = middle;
        }
    }
    Ok(Some(found))
}
