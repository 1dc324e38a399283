//! One optimizer step: packed micro-batches up, log-probabilities down, the objective on the host, gradients
//! back, one update.
//!
//! A group that fits one micro-batch is computed in one pass: its baseline needs nothing from elsewhere. Of a
//! group that was split, phase 1 computes the baseline without gradient and phase 2 the rest, part by part: the
//! result is the same.

use data::{MicroBatch, PackedStep, Role};
use engine::ops::adamw::Hyper;
use engine::ops::attention::Segment;
use engine::ops::grad_norm;
use models::decoder::{self, Dropout, Keep, Model, Pass, RowGroup};
use models::head;
use models::lora::Adapter;
use objectives::kto::{self, Kl, KtoConfig};
use objectives::metrics::{Averaging, Step as StepMetrics};
use objectives::{Logps, Outcome, Rated, apo_zero_unpaired, dpo, sft};

use crate::error::Result;
use crate::event::Metrics;
use crate::learner::{Learner, Reference};
use crate::recipe::Recipe;
use crate::recipe::data::Order;
use crate::recipe::objective::ObjectiveName;

/// What a step needs besides the learner and its micro-batches.
pub struct StepContext<'a> {
    /// The objective's and the optimizer's numbers.
    pub recipe: &'a Recipe,
    /// What each block keeps for backward.
    pub keep: &'a [Keep],
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Which step of the run this is, from 0.
    pub index: u64,
}

/// What came out of a step.
pub struct Stepped {
    /// By TRL's names.
    pub metrics: Metrics,
    /// False if something was not finite: then nothing was changed.
    pub applied: bool,
}

/// Log-probabilities of one micro-batch's completions, in their order.
struct Scores {
    policy: Vec<f64>,
    reference: Vec<f64>,
}

/// Runs one optimizer step.
pub fn step(
    learner: &mut Learner,
    packed: &PackedStep,
    context: &StepContext<'_>,
) -> Result<Stepped> {
    let mut board = Board::new(packed, context.recipe);
    for micro_batch in &packed.kl_micro_batches {
        let scores = score(learner, micro_batch, context.recipe.objective.name)?;
        board.enter(micro_batch, &scores);
    }
    learner.zero_gradient();
    for (number, micro_batch) in packed.micro_batches.iter().enumerate() {
        let pass = context.index << 24 | number as u64;
        train_on(learner, micro_batch, &mut board, context, pass)?;
    }
    let (mut metrics, finite) = board.finish(averaging(context.recipe));
    let norm = learner.gradient_norm()?;
    let applied = finite && norm.is_finite();
    let optimizer = &context.recipe.optimizer;
    if applied {
        let hyper = Hyper {
            learning_rate: context.learning_rate,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
            step: learner.updates + 1,
            gradient_scale: if optimizer.max_grad_norm > 0.0 {
                grad_norm::clip_factor(norm, optimizer.max_grad_norm)
            } else {
                1.0
            },
        };
        learner.update(hyper)?;
    }
    metrics.push(("grad_norm".to_owned(), norm));
    metrics.push(("learning_rate".to_owned(), context.learning_rate));
    Ok(Stepped { metrics, applied })
}

/// Forward, objective and backward of one micro-batch.
fn train_on(
    learner: &mut Learner,
    micro_batch: &MicroBatch,
    board: &mut Board<'_>,
    context: &StepContext<'_>,
    pass_number: u64,
) -> Result<()> {
    let objective = context.recipe.objective.name;
    let apart = match learner.reference(objective) {
        Reference::Apart(model) => Some(reference_apart(model, micro_batch)?),
        _ => None,
    };
    let along = matches!(learner.reference(objective), Reference::Along(_));
    let device = learner.model.device().clone();
    let rows = Rows::new(micro_batch, along);
    let (tokens, positions) = (device.upload(&rows.tokens)?, device.upload(&rows.positions)?);
    let dropout = (objective == ObjectiveName::Sft)
        .then_some(Dropout { seed: context.recipe.seed, pass: pass_number });
    let (mut hidden, kept, scored, scores) = {
        let Learned { model, policy, reference } = Learned::of(learner, objective);
        let pass = rows.pass(
            tokens.view(),
            positions.view(),
            policy,
            reference,
            micro_batch.rated_rows,
            dropout,
        );
        let (hidden, kept) = decoder::forward(model, &pass, context.keep)?.into_parts();
        let scored = head::forward(model, hidden.view(), &rows.items, micro_batch.rated_rows)?;
        let scores = rows.sums(micro_batch, &scored.logps, apart);
        (hidden, kept, scored, scores)
    };
    board.enter(micro_batch, &scores);
    let dlogps = rows.spread(micro_batch, &board.gradients(micro_batch));
    // The rows of the hidden stream that gradient flows through become its gradient.
    let mut dhidden = hidden.slice_mut(0..micro_batch.rated_rows);
    let (model, policy, mut gradients) = learner.for_backward();
    head::backward(model, &scored, &dlogps, dhidden.reborrow(), &mut gradients)?;
    drop(scored);
    let pass =
        rows.pass(tokens.view(), positions.view(), policy, None, micro_batch.rated_rows, dropout);
    decoder::backward(model, &pass, kept, dhidden, &mut gradients)?;
    Ok(())
}

/// The parts of a learner that forward reads.
struct Learned<'a> {
    model: &'a Model,
    policy: Option<&'a Adapter>,
    reference: Option<&'a Adapter>,
}

impl<'a> Learned<'a> {
    fn of(learner: &'a Learner, objective: ObjectiveName) -> Learned<'a> {
        let reference = match learner.reference(objective) {
            Reference::Along(adapter) => adapter,
            Reference::None | Reference::Apart(_) => None,
        };
        Learned { model: &learner.model, policy: learner.policy(), reference }
    }
}

/// Log-probabilities of a micro-batch without gradient: phase 1, and evaluation.
fn score(learner: &Learner, micro_batch: &MicroBatch, objective: ObjectiveName) -> Result<Scores> {
    let apart = match learner.reference(objective) {
        Reference::Apart(model) => Some(reference_apart(model, micro_batch)?),
        _ => None,
    };
    let rows = Rows::new(micro_batch, matches!(learner.reference(objective), Reference::Along(_)));
    let Learned { model, policy, reference } = Learned::of(learner, objective);
    let logps = rows.logps(model, policy, reference)?;
    Ok(rows.sums(micro_batch, &logps, apart))
}

/// The reference's log-probabilities under a model of its own.
fn reference_apart(model: &Model, micro_batch: &MicroBatch) -> Result<Vec<f64>> {
    let rows = Rows::new(micro_batch, false);
    let logps = rows.logps(model, None, None)?;
    Ok(rows.sums(micro_batch, &logps, None).policy)
}

/// A micro-batch as rows of a pass: the policy's, and behind them the same again for a reference that rides along.
struct Rows {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
    /// (row, target) of each scored token: the policy's, then the reference's.
    items: Vec<(u32, u32)>,
    /// Rows of the policy.
    policy_rows: usize,
    along: bool,
}

impl Rows {
    fn new(micro_batch: &MicroBatch, along: bool) -> Rows {
        let n = micro_batch.rows();
        let copies = if along { 2 } else { 1 };
        let (tokens, positions) =
            (micro_batch.tokens.repeat(copies), micro_batch.positions().repeat(copies));
        let mut segments = Vec::new();
        let mut items = Vec::new();
        for base in (0..copies).map(|copy| copy * n) {
            segments.extend(micro_batch.segments.iter().map(|segment| {
                let parent = segment.parent.map(|parent| &micro_batch.segments[parent]);
                Segment {
                    query_start: base + segment.start,
                    key_start: base + segment.start,
                    len: segment.len,
                    parent_start: base + parent.map_or(0, |parent| parent.start),
                    parent_len: parent.map_or(0, |parent| parent.len),
                    position0: segment.position0,
                }
            }));
            items.extend(
                micro_batch.scored.iter().map(|scored| ((base + scored.row) as u32, scored.target)),
            );
        }
        Rows { tokens, positions, segments, items, policy_rows: n, along }
    }

    fn pass<'a>(
        &'a self,
        tokens: engine::tensor::View<'a>,
        positions: engine::tensor::View<'a>,
        policy: Option<&'a Adapter>,
        reference: Option<&'a Adapter>,
        grad_rows: usize,
        dropout: Option<Dropout>,
    ) -> Pass<'a> {
        let n = self.policy_rows;
        let mut groups = vec![RowGroup { rows: 0..n, adapter: policy }];
        if self.along {
            groups.push(RowGroup { rows: n..2 * n, adapter: reference });
        }
        let (ids, segments) = (&self.tokens[..], self.segments.clone());
        Pass { tokens, ids, positions, segments, groups, grad_rows, dropout }
    }

    /// The log-probability of every item, without gradient.
    fn logps(
        &self,
        model: &Model,
        policy: Option<&Adapter>,
        reference: Option<&Adapter>,
    ) -> Result<Vec<f32>> {
        let device = model.device();
        let (tokens, positions) = (device.upload(&self.tokens)?, device.upload(&self.positions)?);
        let pass = self.pass(tokens.view(), positions.view(), policy, reference, 0, None);
        let (hidden, _) = decoder::forward(model, &pass, &[])?.into_parts();
        Ok(head::forward(model, hidden.view(), &self.items, 0)?.logps)
    }

    /// Sums over the tokens of each completion, in order, in f64.
    fn sums(&self, micro_batch: &MicroBatch, logps: &[f32], apart: Option<Vec<f64>>) -> Scores {
        let sum = |logps: &[f32]| {
            let mut sums = vec![0f64; micro_batch.completions.len()];
            for (scored, logp) in micro_batch.scored.iter().zip(logps) {
                sums[scored.completion] += f64::from(*logp);
            }
            sums
        };
        let (policy, behind) = logps.split_at(micro_batch.scored.len());
        let reference = apart.unwrap_or_else(|| sum(behind));
        Scores { policy: sum(policy), reference }
    }

    /// From a gradient per completion to one per item; the reference's items have none.
    fn spread(&self, micro_batch: &MicroBatch, dlogps: &[f64]) -> Vec<f32> {
        let mut all = vec![0f32; self.items.len()];
        for (item, scored) in all.iter_mut().zip(&micro_batch.scored) {
            *item = dlogps[scored.completion] as f32;
        }
        all
    }
}

/// The log-probabilities of a step's completions as they come in, by group.
struct Board<'a> {
    recipe: &'a Recipe,
    packed: &'a PackedStep,
    groups: Vec<GroupScores>,
    /// Scored tokens of the step's rated completions, for SFT.
    scored_tokens: usize,
}

#[derive(Clone, Default)]
struct GroupScores {
    rated: Vec<Logps>,
    mismatched: Vec<Logps>,
}

impl<'a> Board<'a> {
    fn new(packed: &'a PackedStep, recipe: &'a Recipe) -> Board<'a> {
        let unknown = Logps { policy: f64::NAN, reference: f64::NAN };
        let groups = packed.groups.iter().map(|group| GroupScores {
            rated: vec![unknown; group.examples.len()],
            mismatched: vec![unknown; group.examples.len()],
        });
        let scored_tokens =
            packed.micro_batches.iter().map(|micro_batch| micro_batch.scored.len()).sum();
        Board { recipe, packed, groups: groups.collect(), scored_tokens }
    }

    fn enter(&mut self, micro_batch: &MicroBatch, scores: &Scores) {
        for (i, completion) in micro_batch.completions.iter().enumerate() {
            let group = &mut self.groups[completion.group];
            let place = match completion.role {
                Role::Rated => &mut group.rated[completion.example],
                Role::Mismatched => &mut group.mismatched[completion.example],
            };
            *place = Logps { policy: scores.policy[i], reference: scores.reference[i] };
        }
    }

    /// What one example's loss is multiplied with: one over the examples of the effective batch, or, as TRL does,
    /// one over the group's and one over the number of groups.
    fn scale(&self, group: usize) -> f64 {
        let pairs = if self.recipe.objective.name == ObjectiveName::Dpo { 2 } else { 1 };
        match self.recipe.data.order {
            Order::Sequential => {
                let examples = self.packed.groups[group].examples.len() / pairs;
                1.0 / (examples * self.packed.groups.len()).max(1) as f64
            }
            Order::Shuffled => {
                let examples: usize =
                    self.packed.groups.iter().map(|group| group.examples.len() / pairs).sum();
                1.0 / examples.max(1) as f64
            }
        }
    }

    fn kl(&self, group: usize) -> Option<Kl> {
        let of = |which: fn(&Logps) -> f64| {
            self.groups[group].mismatched.iter().map(which).collect::<Vec<f64>>()
        };
        self.recipe
            .objective
            .name
            .needs_kl()
            .then(|| kto::kl(&of(|l| l.policy), &of(|l| l.reference)))
    }

    /// Some examples of a group under the objective. For pairs, `examples` holds both halves, the chosen first.
    fn outcome(&self, group: usize, examples: &[usize]) -> Outcome {
        let objective = &self.recipe.objective;
        let scale = self.scale(group);
        let weights = KtoConfig {
            beta: objective.beta,
            desirable_weight: objective.desirable_weight,
            undesirable_weight: objective.undesirable_weight,
        };
        match objective.name {
            ObjectiveName::Kto => {
                let kl = self.kl(group).map_or(0.0, |kl| kl.clamped);
                kto::loss(&weights, &self.rated(group, examples), kl, scale)
            }
            ObjectiveName::ApoZeroUnpaired => {
                apo_zero_unpaired::loss(&weights, &self.rated(group, examples), scale)
            }
            ObjectiveName::Dpo => {
                let config = dpo::DpoConfig {
                    beta: objective.beta,
                    label_smoothing: objective.label_smoothing,
                };
                dpo::loss(&config, &self.pairs(group, examples), scale)
            }
            ObjectiveName::Sft => {
                let policy: Vec<f64> =
                    examples.iter().map(|i| self.groups[group].rated[*i].policy).collect();
                sft::loss(&policy, self.scored_tokens)
            }
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

    fn pairs(&self, group: usize, examples: &[usize]) -> Vec<dpo::Pair> {
        let logps = &self.groups[group].rated;
        examples
            .chunks(2)
            .map(|pair| dpo::Pair { chosen: logps[pair[0]], rejected: logps[pair[1]] })
            .collect()
    }

    /// `dloss / dlogp` of each completion of a micro-batch; zero for mismatched ones.
    fn gradients(&self, micro_batch: &MicroBatch) -> Vec<f64> {
        let mut gradients = vec![0f64; micro_batch.completions.len()];
        for group in 0..self.groups.len() {
            // Completions of this group that are rated here, by example, so that a pair's halves are neighbours.
            let mut here: Vec<(usize, usize)> = (0..micro_batch.completions.len())
                .filter(|i| {
                    let completion = micro_batch.completions[*i];
                    completion.group == group && completion.role == Role::Rated
                })
                .map(|i| (micro_batch.completions[i].example, i))
                .collect();
            here.sort_unstable();
            let examples: Vec<usize> = here.iter().map(|(example, _)| *example).collect();
            let outcome = self.outcome(group, &examples);
            for ((_, completion), dlogp) in here.iter().zip(outcome.dlogps) {
                gradients[*completion] = dlogp;
            }
        }
        gradients
    }

    /// The step's metrics, and whether all of them are finite.
    fn finish(&self, averaging: Averaging) -> (Metrics, bool) {
        let mut metrics = StepMetrics::new(averaging);
        for (group, scores) in self.groups.iter().enumerate() {
            let examples: Vec<usize> = (0..scores.rated.len()).collect();
            let outcome = self.outcome(group, &examples);
            match self.recipe.objective.name {
                ObjectiveName::Kto | ObjectiveName::ApoZeroUnpaired => {
                    metrics.add_rated(
                        &self.rated(group, &examples),
                        self.kl(group).as_ref(),
                        &outcome,
                    );
                }
                ObjectiveName::Dpo => metrics.add_pairs(&self.pairs(group, &examples), &outcome),
                ObjectiveName::Sft => metrics.add_unrated(&outcome),
            }
        }
        let metrics: Metrics =
            metrics.report().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let finite = metrics.iter().all(|(_, value)| value.is_finite());
        (metrics, finite)
    }
}

/// Under `sequential` metrics are averaged as TRL averages them.
fn averaging(recipe: &Recipe) -> Averaging {
    match recipe.data.order {
        Order::Sequential => Averaging::PerGroup,
        Order::Shuffled => Averaging::PerExample,
    }
}

/// The metrics of held-out groups, each scored without gradient and counted by its examples.
pub fn evaluate(
    learner: &Learner,
    steps: impl Iterator<Item = PackedStep>,
    recipe: &Recipe,
) -> Result<Metrics> {
    let mut all =
        PackedStep { groups: Vec::new(), kl_micro_batches: Vec::new(), micro_batches: Vec::new() };
    let mut scores: Vec<GroupScores> = Vec::new();
    let mut tokens = 0;
    for packed in steps {
        let mut board = Board::new(&packed, recipe);
        for micro_batch in packed.kl_micro_batches.iter().chain(&packed.micro_batches) {
            board.enter(micro_batch, &score(learner, micro_batch, recipe.objective.name)?);
        }
        tokens += board.scored_tokens;
        scores.append(&mut board.groups);
        all.groups.extend(packed.groups);
    }
    // The loss is a mean over examples whatever the order, as TRL's evaluation has it; the other metrics follow it.
    let mut by_example = recipe.clone();
    by_example.data.order = Order::Shuffled;
    let board = Board { recipe: &by_example, packed: &all, groups: scores, scored_tokens: tokens };
    let (metrics, _) = board.finish(averaging(recipe));
    Ok(metrics.into_iter().map(|(name, value)| (format!("eval_{name}"), value)).collect())
}
