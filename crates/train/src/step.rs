//! One optimizer step: packed micro-batches up, log-probabilities down, the objective on the host, gradients
//! back, one update.
//!
//! A group that fits one micro-batch is computed in one pass: its baseline needs nothing from elsewhere. Of a
//! group that was split, phase 1 computes the baseline without gradient and phase 2 the rest, part by part: the
//! result is the same. Where the baseline is of the rated completions themselves, phase 1 scores those.
//!
//! Where the inputs of all blocks wait beside the device, phase 1 runs the parts as they are and leaves their inputs
//! there; phase 2 begins with those, in reverse order, so no part runs forward twice.

use data::{MicroBatch, PackedStep};
use engine::ops::adamw::Hyper;
use engine::ops::attention::Segment;
use engine::ops::grad_norm;
use models::decoder::{self, Dropout, Keep, Kepts, Model, Pass, RowGroup};
use models::head;
use models::lora::Adapter;

use crate::board::{Board, Scores};
use crate::error::Result;
use crate::event::Metrics;
use crate::learner::{Learner, Reference};
use crate::recipe::Recipe;
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

/// Runs one optimizer step.
pub fn step(
    learner: &mut Learner,
    packed: &PackedStep,
    context: &StepContext<'_>,
) -> Result<Stepped> {
    let mut board = Board::new(packed, context.recipe, learner.rewards);
    let objective = context.recipe.objective.name;
    let leaves_inputs = context.keep.iter().all(|keep| *keep == Keep::Host);
    let in_two_phases = objective.needs_whole_groups() || objective.needs_kl() && leaves_inputs;
    let (parts, rest): (Vec<_>, Vec<_>) = packed
        .micro_batches
        .iter()
        .enumerate()
        .partition(|(_, micro_batch)| in_two_phases && board.splits_a_group(micro_batch));
    let longest = parts.iter().map(|(_, part)| part.rated_rows).max();
    let mut left = match longest.filter(|_| leaves_inputs) {
        Some(rows) => Some(Kepts::beside(&learner.model, rows)?),
        None => None,
    };
    for micro_batch in &packed.kl_micro_batches {
        board.enter(micro_batch, &score(learner, micro_batch, objective, None)?);
    }
    for (_, micro_batch) in &parts {
        let leaving = left.as_mut().map(|left| (context.keep, left));
        board.enter(micro_batch, &score(learner, micro_batch, objective, leaving)?);
    }
    learner.zero_gradient();
    let rest = match &mut left {
        Some(left) => {
            for (_, micro_batch) in parts.iter().rev() {
                go_back(learner, micro_batch, &board, objective, left)?;
            }
            rest
        }
        None => packed.micro_batches.iter().enumerate().collect(),
    };
    drop(left);
    for (number, micro_batch) in rest {
        let pass = context.index << 24 | number as u64;
        train_on(learner, micro_batch, &mut board, context, pass)?;
    }
    let (mut metrics, finite) = board.finish();
    let rewards = board.after();
    let norm = learner.gradient_norm()?;
    // The plan scores nothing, and plans for a step that is applied.
    let applied = (finite && norm.is_finite()) || learner.model.device().is_plan();
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
        learner.rewards = rewards;
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
    let (mut hidden, mut kept, scored, scores) = {
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
        let (groups, items) = (&pass.groups, &rows.items);
        let scored = head::forward(model, hidden.view(), groups, items, micro_batch.rated_rows)?;
        let scores = rows.sums(micro_batch, &scored.logps, apart);
        (hidden, kept, scored, scores)
    };
    board.enter(micro_batch, &scores);
    let dlogps = rows.spread(micro_batch, &board.gradients(micro_batch));
    // The rows of the hidden stream that gradient flows through become its gradient.
    let mut dhidden = hidden.slice_mut(0..micro_batch.rated_rows);
    let (model, policy, mut gradients) = learner.for_backward();
    head::backward(model, policy, &scored, &dlogps, dhidden.reborrow(), &mut gradients)?;
    drop(scored);
    let pass =
        rows.pass(tokens.view(), positions.view(), policy, None, micro_batch.rated_rows, dropout);
    decoder::backward(model, &pass, &mut kept, dhidden, &mut gradients)?;
    Ok(())
}

/// Backward of a micro-batch whose forward pass has left the inputs of its blocks in `left`.
fn go_back(
    learner: &mut Learner,
    micro_batch: &MicroBatch,
    board: &Board<'_>,
    objective: ObjectiveName,
    left: &mut Kepts,
) -> Result<()> {
    let along = matches!(learner.reference(objective), Reference::Along(_));
    let device = learner.model.device().clone();
    let rows = Rows::new(micro_batch, along);
    let (tokens, positions) = (device.upload(&rows.tokens)?, device.upload(&rows.positions)?);
    let count = micro_batch.rated_rows;
    let dlogps = rows.spread(micro_batch, &board.gradients(micro_batch));
    // The reference's items lie behind the policy's, and behind those of the rated rows come rows without gradient.
    let scored_here =
        rows.items.iter().zip(&dlogps).filter(|((row, _), _)| (*row as usize) < count);
    let (items, dlogps): (Vec<(u32, u32)>, Vec<f32>) = scored_here.unzip();
    let (mut hidden, scored) = {
        let Learned { model, policy, .. } = Learned::of(learner, objective);
        let pass = rows.pass(tokens.view(), positions.view(), policy, None, count, None);
        let hidden = decoder::hidden_again(model, &pass, left)?;
        let groups = [RowGroup { rows: 0..count, adapter: policy }];
        let scored = head::forward(model, hidden.view(), &groups, &items, count)?;
        (hidden, scored)
    };
    let (model, policy, mut gradients) = learner.for_backward();
    head::backward(model, policy, &scored, &dlogps, hidden.view_mut(), &mut gradients)?;
    drop(scored);
    let pass = rows.pass(tokens.view(), positions.view(), policy, None, count, None);
    decoder::backward(model, &pass, left, hidden.view_mut(), &mut gradients)?;
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

/// Log-probabilities of a micro-batch without gradient: phase 1, and evaluation. With `leaving`, what each block keeps of
/// the rows that will have one stays there.
fn score(
    learner: &Learner,
    micro_batch: &MicroBatch,
    objective: ObjectiveName,
    leaving: Option<(&[Keep], &mut Kepts)>,
) -> Result<Scores> {
    let apart = match learner.reference(objective) {
        Reference::Apart(model) => Some(reference_apart(model, micro_batch)?),
        _ => None,
    };
    let rows = Rows::new(micro_batch, matches!(learner.reference(objective), Reference::Along(_)));
    let Learned { model, policy, reference } = Learned::of(learner, objective);
    let leaving = leaving.map(|(keep, left)| (micro_batch.rated_rows, keep, left));
    let logps = rows.logps(model, policy, reference, leaving)?;
    Ok(rows.sums(micro_batch, &logps, apart))
}

/// The reference's log-probabilities under a model of its own.
fn reference_apart(model: &Model, micro_batch: &MicroBatch) -> Result<Vec<f64>> {
    let rows = Rows::new(micro_batch, false);
    let logps = rows.logps(model, None, None, None)?;
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
        leaving: Option<(usize, &[Keep], &mut Kepts)>,
    ) -> Result<Vec<f32>> {
        let device = model.device();
        let (tokens, positions) = (device.upload(&self.tokens)?, device.upload(&self.positions)?);
        let grad_rows = leaving.as_ref().map_or(0, |(rows, ..)| *rows);
        let pass = self.pass(tokens.view(), positions.view(), policy, reference, grad_rows, None);
        let hidden = match leaving {
            None => decoder::forward(model, &pass, &[])?.hidden,
            Some((_, keep, left)) => decoder::forward_keeping(model, &pass, keep, left)?,
        };
        Ok(head::forward(model, hidden.view(), &pass.groups, &self.items, 0)?.logps)
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

/// The metrics of held-out groups, each scored without gradient and counted by its examples.
pub fn evaluate(
    learner: &Learner,
    steps: impl Iterator<Item = PackedStep>,
    recipe: &Recipe,
) -> Result<Metrics> {
    let mut all =
        PackedStep { groups: Vec::new(), kl_micro_batches: Vec::new(), micro_batches: Vec::new() };
    let mut groups = Vec::new();
    for packed in steps {
        let mut board = Board::new(&packed, recipe, learner.rewards);
        for micro_batch in packed.kl_micro_batches.iter().chain(&packed.micro_batches) {
            board.enter(micro_batch, &score(learner, micro_batch, recipe.objective.name, None)?);
        }
        groups.extend(board.into_groups());
        all.groups.extend(packed.groups);
    }
    let (metrics, _) = Board::of_evaluation(&all, recipe, groups, learner.rewards).finish();
    Ok(metrics.into_iter().map(|(name, value)| (format!("eval_{name}"), value)).collect())
}
