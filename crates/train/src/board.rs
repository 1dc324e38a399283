//! The log-probabilities of a step's completions as they come in, by group, and what the objective makes of them.

use std::collections::BTreeMap;

use data::{MicroBatch, PackedStep, Role};
use objectives::bco::{self, RunningMean};
use objectives::dpo::{self, DpoConfig};
use objectives::kto::{self, Kl, KtoConfig};
use objectives::metrics::{Averaging, Baseline, LogpsAs, Step as StepMetrics};
use objectives::simpo::{self, SimpoConfig};
use objectives::{Logps, Outcome, Pair, Rated, apo_zero_unpaired, cpo, orpo, sft};

use crate::event::Metrics;
use crate::recipe::Recipe;
use crate::recipe::data::Order;
use crate::recipe::objective::{LossType, ObjectiveName};

/// Log-probabilities of one micro-batch's completions, in their order.
pub(crate) struct Scores {
    pub(crate) policy: Vec<f64>,
    pub(crate) reference: Vec<f64>,
}

/// Whether the groups are a step to learn from or held-out data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Training,
    Evaluation,
}

/// See the module.
pub(crate) struct Board<'a> {
    recipe: &'a Recipe,
    packed: &'a PackedStep,
    of: Of,
    groups: Vec<GroupScores>,
    totals: Totals,
    /// The rewards before this step.
    before: RunningMean,
}

/// What all groups have together.
struct Totals {
    /// Completions; a pair has two.
    completions: usize,
    /// Scored tokens of rated completions.
    tokens: usize,
    /// Scored tokens of what SFT is mixed in for.
    preferred_tokens: usize,
}

impl Totals {
    fn of(groups: &[GroupScores]) -> Totals {
        let rated = || groups.iter().flat_map(|group| &group.rated);
        Totals {
            completions: rated().count(),
            tokens: rated().map(|logps| logps.tokens).sum(),
            preferred_tokens: groups.iter().map(|group| group.preferred_tokens).sum(),
        }
    }
}

/// What is known of a group's examples.
#[derive(Clone, Default)]
pub(crate) struct GroupScores {
    rated: Vec<Logps>,
    mismatched: Vec<Logps>,
    /// The log-probabilities of prompts that are scored; else 0.
    prompts: Vec<f64>,
    /// Scored tokens of chosen or desirable completions, and of prompts.
    preferred_tokens: usize,
}

impl<'a> Board<'a> {
    /// A board on which nothing is known but the lengths.
    pub(crate) fn new(
        packed: &'a PackedStep,
        recipe: &'a Recipe,
        before: RunningMean,
    ) -> Board<'a> {
        let unknown = Logps { policy: f64::NAN, reference: f64::NAN, tokens: 0 };
        let groups = packed.groups.iter().map(|group| GroupScores {
            rated: vec![unknown; group.examples.len()],
            mismatched: vec![unknown; group.examples.len()],
            prompts: vec![0.0; group.examples.len()],
            preferred_tokens: 0,
        });
        let mut groups: Vec<GroupScores> = groups.collect();
        for micro_batch in &packed.micro_batches {
            for scored in &micro_batch.scored {
                let completion = micro_batch.completions[scored.completion];
                let (group, example) = (&mut groups[completion.group], completion.example);
                let preferred = packed.groups[completion.group].examples[example].label;
                match completion.role {
                    Role::Rated => {
                        group.rated[example].tokens += 1;
                        group.preferred_tokens += usize::from(preferred);
                    }
                    Role::Prompt => group.preferred_tokens += 1,
                    Role::Mismatched => group.mismatched[example].tokens += 1,
                }
            }
        }
        let totals = Totals::of(&groups);
        Board { recipe, packed, of: Of::Training, groups, totals, before }
    }

    /// Of held-out groups that were scored on boards of their own.
    pub(crate) fn of_evaluation(
        packed: &'a PackedStep,
        recipe: &'a Recipe,
        groups: Vec<GroupScores>,
        before: RunningMean,
    ) -> Board<'a> {
        let totals = Totals::of(&groups);
        Board { recipe, packed, of: Of::Evaluation, groups, totals, before }
    }

    /// What is known of the groups.
    pub(crate) fn into_groups(self) -> Vec<GroupScores> {
        self.groups
    }

    /// Takes in what a micro-batch was scored.
    pub(crate) fn enter(&mut self, micro_batch: &MicroBatch, scores: &Scores) {
        for (i, completion) in micro_batch.completions.iter().enumerate() {
            let group = &mut self.groups[completion.group];
            let (policy, reference) = (scores.policy[i], scores.reference[i]);
            let place = match completion.role {
                Role::Rated => &mut group.rated[completion.example],
                Role::Mismatched => &mut group.mismatched[completion.example],
                Role::Prompt => {
                    group.prompts[completion.example] = policy;
                    continue;
                }
            };
            *place = Logps { policy, reference, tokens: place.tokens };
        }
    }

    /// Whether a micro-batch holds some of a group's rated completions and not all.
    pub(crate) fn splits_a_group(&self, micro_batch: &MicroBatch) -> bool {
        let mut here = BTreeMap::<usize, usize>::new();
        for completion in micro_batch.completions.iter().filter(|c| c.role == Role::Rated) {
            *here.entry(completion.group).or_default() += 1;
        }
        here.into_iter().any(|(group, count)| count < self.groups[group].rated.len())
    }

    /// `dloss / dlogp` of each completion of a micro-batch; zero for mismatched ones.
    pub(crate) fn gradients(&self, micro_batch: &MicroBatch) -> Vec<f64> {
        let mut gradients = vec![0f64; micro_batch.completions.len()];
        // Completions that are rated here, by group and example, so that a pair's halves are neighbours.
        let mut rated = BTreeMap::<usize, BTreeMap<usize, usize>>::new();
        for (i, completion) in micro_batch.completions.iter().enumerate() {
            match completion.role {
                Role::Rated => {
                    let group = rated.entry(completion.group).or_default();
                    group.insert(completion.example, i);
                }
                Role::Prompt => gradients[i] = -self.sft_scale(completion.group),
                Role::Mismatched => {}
            }
        }
        let baselines = self.baselines();
        for (group, here) in rated {
            let examples: Vec<usize> = here.keys().copied().collect();
            let outcome = self.outcome(group, &examples, baselines[group]);
            for ((example, i), dlogp) in here.into_iter().zip(outcome.dlogps) {
                let preferred = self.packed.groups[group].examples[example].label;
                let mixed_in = if preferred { self.sft_scale(group) } else { 0.0 };
                gradients[i] = dlogp - mixed_in;
            }
        }
        gradients
    }

    /// The step's metrics, and whether all of them are finite.
    pub(crate) fn finish(&self) -> (Metrics, bool) {
        let mut metrics = StepMetrics::new(self.averaging());
        for (group, baseline) in self.baselines().into_iter().enumerate() {
            let examples: Vec<usize> = (0..self.groups[group].rated.len()).collect();
            let outcome = self.outcome(group, &examples, baseline);
            match self.recipe.objective.name {
                ObjectiveName::Kto | ObjectiveName::ApoZeroUnpaired | ObjectiveName::Bco => {
                    metrics.add_rated(&self.rated(group, &examples), baseline, &outcome);
                }
                ObjectiveName::Dpo
                | ObjectiveName::Orpo
                | ObjectiveName::Simpo
                | ObjectiveName::Cpo => {
                    metrics.add_pairs(&self.pairs(group, &examples), self.logps_as(), &outcome);
                }
                ObjectiveName::Sft => metrics.add_loss(outcome.loss),
            }
            self.add_sft(group, &mut metrics);
            if self.recipe.objective.name == ObjectiveName::Orpo {
                let pairs = self.pairs(group, &examples);
                let count = pairs.len().max(1) as f64;
                let mean = |of: fn(&Pair) -> f64| pairs.iter().map(of).sum::<f64>() / count;
                metrics.add_mean("log_odds_ratio", mean(orpo::log_odds_ratio), count);
                metrics.add_mean("log_odds_chosen", mean(orpo::log_odds), count);
            }
        }
        let metrics: Metrics =
            metrics.report().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let finite = metrics.iter().all(|(_, value)| value.is_finite());
        (metrics, finite)
    }

    /// The rewards including this step's, where the objective compares with their mean.
    pub(crate) fn after(&self) -> RunningMean {
        let mut running = self.before;
        if self.recipe.objective.name == ObjectiveName::Bco {
            (0..self.groups.len()).for_each(|group| running.update(&self.rewards(group)));
        }
        running
    }

    /// What the rated completions of each group are judged against. Of groups that are not yet known whole it is NaN.
    fn baselines(&self) -> Vec<Baseline> {
        let mut running = self.before;
        let baseline = |group: usize| match self.recipe.objective.name {
            ObjectiveName::Kto => Baseline::Kl(self.kl(group)),
            ObjectiveName::Bco => {
                if self.of == Of::Training {
                    running.update(&self.rewards(group));
                }
                Baseline::Delta(running.mean)
            }
            _ => Baseline::Zero,
        };
        (0..self.groups.len()).map(baseline).collect()
    }

    fn kl(&self, group: usize) -> Kl {
        let of = |which: fn(&Logps) -> f64| {
            self.groups[group].mismatched.iter().map(which).collect::<Vec<f64>>()
        };
        kto::kl(&of(|l| l.policy), &of(|l| l.reference))
    }

    fn rewards(&self, group: usize) -> Vec<f64> {
        let beta = self.recipe.objective.beta;
        self.groups[group].rated.iter().map(|logps| beta * logps.log_ratio()).collect()
    }

    /// Some examples of a group under the objective. For pairs, `examples` holds both halves, the chosen first.
    fn outcome(&self, group: usize, examples: &[usize], baseline: Baseline) -> Outcome {
        let objective = &self.recipe.objective;
        let scale = self.scale(group);
        let rated = || self.rated(group, examples);
        let pairs = || self.pairs(group, examples);
        let weights = KtoConfig {
            beta: objective.beta,
            desirable_weight: objective.desirable_weight,
            undesirable_weight: objective.undesirable_weight,
        };
        let differences = DpoConfig {
            loss_type: loss_type(objective.loss_type),
            beta: objective.beta,
            label_smoothing: objective.label_smoothing,
            discopop_tau: objective.discopop_tau,
        };
        match (objective.name, baseline) {
            (ObjectiveName::Kto, Baseline::Kl(kl)) => {
                kto::loss(&weights, &rated(), kl.clamped, scale)
            }
            (ObjectiveName::Kto | ObjectiveName::ApoZeroUnpaired, _) => {
                apo_zero_unpaired::loss(&weights, &rated(), scale)
            }
            (ObjectiveName::Bco, baseline) => {
                let delta = if let Baseline::Delta(delta) = baseline { delta } else { 0.0 };
                bco::loss(objective.beta, &rated(), delta, scale)
            }
            (ObjectiveName::Dpo, _) => dpo::loss(&differences, &pairs(), scale),
            (ObjectiveName::Orpo, _) => orpo::loss(objective.beta, &pairs(), scale),
            (ObjectiveName::Simpo, _) => {
                let config = SimpoConfig {
                    beta: objective.beta,
                    simpo_gamma: objective.simpo_gamma,
                    label_smoothing: objective.label_smoothing,
                };
                simpo::loss(&config, &pairs(), scale)
            }
            (ObjectiveName::Cpo, _) => cpo::loss(&differences, &pairs(), scale),
            (ObjectiveName::Sft, _) => {
                let policy: Vec<f64> =
                    examples.iter().map(|i| self.groups[group].rated[*i].policy).collect();
                sft::loss(&policy, self.totals.tokens)
            }
        }
    }

    /// What one example's loss is multiplied with: one over the examples of the effective batch, or, as TRL does in
    /// training, one over the group's and one over the number of groups.
    fn scale(&self, group: usize) -> f64 {
        if self.is_mean_of_groups() {
            return 1.0 / (self.examples(group) * self.groups.len()).max(1) as f64;
        }
        1.0 / (self.totals.completions / self.halves()).max(1) as f64
    }

    /// What the negative log-probability of each preferred token is multiplied with: its weight, over the tokens of the
    /// effective batch; under `sequential`, as TRL does, over those of the group, which then counts as `scale` has it.
    fn sft_scale(&self, group: usize) -> f64 {
        let Some(weight) = self.recipe.objective.sft_weight else { return 0.0 };
        let tokens = |group: &GroupScores| group.preferred_tokens.max(1) as f64;
        match self.recipe.data.order {
            Order::Sequential => {
                let share = self.scale(group) * self.examples(group) as f64;
                weight * share / tokens(&self.groups[group])
            }
            Order::Shuffled => weight / self.totals.preferred_tokens.max(1) as f64,
        }
    }

    /// Adds what is mixed in of SFT to the loss, and what it is of.
    fn add_sft(&self, group: usize, metrics: &mut StepMetrics) {
        let scores = &self.groups[group];
        let mixed_in = self.recipe.objective.sft_weight.is_some_and(|weight| weight > 0.0);
        if !mixed_in || scores.preferred_tokens == 0 {
            return;
        }
        let labels = self.packed.groups[group].examples.iter().map(|example| example.label);
        let preferred = scores.rated.iter().zip(labels).filter(|(_, label)| *label);
        let logp: f64 = preferred.map(|(logps, _)| logps.policy).sum::<f64>()
            + scores.prompts.iter().sum::<f64>();
        metrics.add_loss(-self.sft_scale(group) * logp);
        let tokens = scores.preferred_tokens as f64;
        metrics.add_mean("nll_loss", -logp / tokens, tokens);
    }

    /// TRL averages the groups' own means in training. Its evaluation weighs every example alike.
    fn is_mean_of_groups(&self) -> bool {
        self.recipe.data.order == Order::Sequential && self.of == Of::Training
    }

    /// Under `sequential` metrics are averaged as TRL averages them; its BCO weighs every example alike.
    fn averaging(&self) -> Averaging {
        match (self.recipe.data.order, self.recipe.objective.name) {
            (Order::Sequential, name) if name != ObjectiveName::Bco => Averaging::PerGroup,
            _ => Averaging::PerExample,
        }
    }

    /// Examples of a group; pairs, where the objective has them.
    fn examples(&self, group: usize) -> usize {
        self.groups[group].rated.len() / self.halves()
    }

    /// Completions that make an example.
    fn halves(&self) -> usize {
        if self.recipe.objective.name.has_pairs() { 2 } else { 1 }
    }

    /// What is compared, and so reported.
    fn logps_as(&self) -> LogpsAs {
        let objective = &self.recipe.objective;
        match objective.name {
            ObjectiveName::Orpo | ObjectiveName::Simpo => LogpsAs::Mean,
            ObjectiveName::Cpo if cpo::averages(loss_type(objective.loss_type)) => LogpsAs::Mean,
            _ => LogpsAs::Sum,
        }
    }

    fn rated(&self, group: usize, examples: &[usize]) -> Vec<Rated> {
        let rated = |example: &usize| {
            let logps = self.groups[group].rated[*example];
            let label = self.packed.groups[group].examples[*example].label;
            Rated { label, policy: logps.policy, reference: logps.reference }
        };
        examples.iter().map(rated).collect()
    }

    fn pairs(&self, group: usize, examples: &[usize]) -> Vec<Pair> {
        let logps = &self.groups[group].rated;
        examples
            .chunks_exact(2)
            .map(|pair| Pair { chosen: logps[pair[0]], rejected: logps[pair[1]] })
            .collect()
    }
}

fn loss_type(written: LossType) -> dpo::LossType {
    match written {
        LossType::Sigmoid => dpo::LossType::Sigmoid,
        LossType::SigmoidNorm => dpo::LossType::SigmoidNorm,
        LossType::Hinge => dpo::LossType::Hinge,
        LossType::Ipo => dpo::LossType::Ipo,
        LossType::ExoPair => dpo::LossType::ExoPair,
        LossType::NcaPair => dpo::LossType::NcaPair,
        LossType::Robust => dpo::LossType::Robust,
        LossType::BcoPair => dpo::LossType::BcoPair,
        LossType::SppoHard => dpo::LossType::SppoHard,
        LossType::ApoZero => dpo::LossType::ApoZero,
        LossType::ApoDown => dpo::LossType::ApoDown,
        LossType::Discopop => dpo::LossType::Discopop,
    }
}
