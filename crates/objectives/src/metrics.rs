//! What one optimizer step reports, by TRL's names.
//!
//! | name | meaning |
//! |---|---|
//! | `loss` | what was minimized: the sum of the groups' losses, each already scaled by the caller |
//! | `kl` | the KL baseline the loss used (0 in `apo_zero_unpaired`, as TRL reports it) |
//! | `kl_raw` | the same before the clamp at 0; a mean far below 0 says the baseline is idle |
//! | `kl_clamped` | share of the groups whose baseline was clamped |
//! | `delta` | the threshold of `bco`: the mean of all rewards so far |
//! | `rewards/chosen`, `rewards/rejected` | mean `beta * r` of the desirable and of the undesirable |
//! | `rewards/margins` | the first minus the second |
//! | `rewards/accuracy` | see below |
//! | `auc` | see [`auc`] |
//! | `logps/chosen`, `logps/rejected` | mean summed log-probability under the policy; see below |
//! | `nll_loss` | mean negative log-probability per token of the chosen or desirable: what `sft_weight` weighs |
//! | `log_odds_chosen` | mean of the log-odds of the chosen completion over the rejected one, in `orpo` |
//! | `log_odds_ratio` | mean of their log-sigmoid, in `orpo` |
//!
//! `rewards/accuracy` of rated completions is the share on the right side of the baseline: a
//! desirable one counts if `r_i > KL`, an undesirable one if `r_i < KL`, both strictly, so a policy that
//! equals its reference scores 0; in `bco` the reward is compared with `delta`. Of pairs it is the share with the
//! chosen reward above the rejected one. `orpo`, `simpo` and `cpo` with `ipo` compare means per token, and their
//! `logps` are means of those.
//!
//! A name whose class did not occur is absent. SFT has `loss` alone.
//!
//! A *group* is what the KL baseline is a mean over and what TRL calls a micro-batch. [`Averaging`] says
//! how groups are averaged: TRL 1.16 averages the groups' own means, so that a class with one example in
//! a group weighs as much as one with seven; the default weighs every example alike.

use crate::kto::Kl;
use crate::{Logps, Outcome, Pair, Rated};

/// What rated completions are judged against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Baseline {
    /// Nothing: a log-ratio of 0.
    Zero,
    /// A log-ratio: KTO's estimate of the KL.
    Kl(Kl),
    /// A reward: BCO's running mean.
    Delta(f64),
}

/// What of a completion is compared, and reported as `logps/...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogpsAs {
    /// The sum over its tokens.
    Sum,
    /// The mean per token.
    Mean,
}

/// How the means of several groups become the mean of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Averaging {
    /// Every example counts alike.
    PerExample,
    /// As trl 1.16.0: each group's own mean counts alike, over the groups that have the class;
    /// `rewards/margins` is the mean over groups that have both.
    PerGroup,
}

/// The measurements of one optimizer step, or of one evaluation, as its groups come in.
#[derive(Clone, Debug)]
pub struct Step {
    averaging: Averaging,
    loss: f64,
    kl: Mean,
    delta: Mean,
    kl_raw: Mean,
    kl_clamped: Mean,
    accuracy: Mean,
    margins: Mean,
    chosen: Class,
    rejected: Class,
    /// By name, in the order in which they came first.
    terms: Vec<(&'static str, Mean)>,
}

impl Step {
    /// A step that has seen nothing.
    pub fn new(averaging: Averaging) -> Self {
        Step {
            averaging,
            loss: 0.0,
            kl: Mean::default(),
            delta: Mean::default(),
            kl_raw: Mean::default(),
            kl_clamped: Mean::default(),
            accuracy: Mean::default(),
            margins: Mean::default(),
            chosen: Class::default(),
            rejected: Class::default(),
            terms: Vec::new(),
        }
    }

    /// Adds a group of rated completions.
    ///
    /// # Panics
    /// If `outcome` is not that of `rated`.
    pub fn add_rated(&mut self, rated: &[Rated], baseline: Baseline, outcome: &Outcome) {
        assert_eq!(
            rated.len(),
            outcome.rewards.len(),
            "the outcome must be that of these completions"
        );
        let count = rated.len() as f64;
        let weight = self.weight(count);
        match baseline {
            Baseline::Zero => self.kl.add(0.0, weight),
            Baseline::Kl(kl) => {
                self.kl.add(kl.clamped, weight);
                self.kl_raw.add(kl.raw, weight);
                self.kl_clamped.add(if kl.was_clamped { 1.0 } else { 0.0 }, 1.0);
            }
            Baseline::Delta(delta) => self.delta.add(delta, 1.0),
        }
        let (mut chosen, mut rejected, mut right) = (Group::default(), Group::default(), 0.0);
        for (example, &reward) in rated.iter().zip(&outcome.rewards) {
            let (value, threshold) = match baseline {
                Baseline::Zero => (example.log_ratio(), 0.0),
                Baseline::Kl(kl) => (example.log_ratio(), kl.clamped),
                Baseline::Delta(delta) => (reward, delta),
            };
            let class = if example.label { &mut chosen } else { &mut rejected };
            class.add(reward, example.policy);
            let is_right = if example.label { value > threshold } else { value < threshold };
            right += f64::from(u8::from(is_right));
        }
        self.add_group(&chosen, &rejected, right, count, outcome.loss);
    }

    /// Adds a group of pairs.
    ///
    /// # Panics
    /// If `outcome` is not that of `pairs`.
    pub fn add_pairs(&mut self, pairs: &[Pair], logps: LogpsAs, outcome: &Outcome) {
        assert_eq!(
            2 * pairs.len(),
            outcome.rewards.len(),
            "the outcome must be that of these pairs"
        );
        let (mut chosen, mut rejected, mut right) = (Group::default(), Group::default(), 0.0);
        let logp = |completion: &Logps| match logps {
            LogpsAs::Sum => completion.policy,
            LogpsAs::Mean => completion.mean_logp(),
        };
        for (pair, rewards) in pairs.iter().zip(outcome.rewards.chunks_exact(2)) {
            chosen.add(rewards[0], logp(&pair.chosen));
            rejected.add(rewards[1], logp(&pair.rejected));
            right += f64::from(u8::from(rewards[0] > rewards[1]));
        }
        self.add_group(&chosen, &rejected, right, pairs.len() as f64, outcome.loss);
    }

    /// Adds a group's mean of something else, over `count` examples or tokens.
    pub fn add_mean(&mut self, name: &'static str, mean: f64, count: f64) {
        let weight = self.weight(count);
        let place = self.terms.iter().position(|(known, _)| *known == name);
        let place = place.unwrap_or_else(|| {
            self.terms.push((name, Mean::default()));
            self.terms.len() - 1
        });
        self.terms[place].1.add(mean, weight);
    }

    /// Adds the loss of what has nothing else: of unrated completions, or of what is mixed in.
    pub fn add_loss(&mut self, loss: f64) {
        self.loss += loss;
    }

    /// The metrics by name, in a fixed order.
    pub fn report(&self) -> Vec<(&'static str, f64)> {
        let margins = match self.averaging {
            Averaging::PerGroup => self.margins.value(),
            Averaging::PerExample => self
                .chosen
                .reward
                .value()
                .zip(self.rejected.reward.value())
                .map(|(chosen, rejected)| chosen - rejected),
        };
        let metrics = [
            ("loss", Some(self.loss)),
            ("kl", self.kl.value()),
            ("kl_raw", self.kl_raw.value()),
            ("kl_clamped", self.kl_clamped.value()),
            ("delta", self.delta.value()),
            ("rewards/chosen", self.chosen.reward.value()),
            ("rewards/rejected", self.rejected.reward.value()),
            ("rewards/margins", margins),
            ("rewards/accuracy", self.accuracy.value()),
            ("auc", auc(&self.chosen.rewards, &self.rejected.rewards)),
            ("logps/chosen", self.chosen.logp.value()),
            ("logps/rejected", self.rejected.logp.value()),
        ];
        let terms = self.terms.iter().map(|(name, mean)| (*name, mean.value()));
        metrics.into_iter().chain(terms).filter_map(|(name, value)| Some((name, value?))).collect()
    }

    fn add_group(&mut self, chosen: &Group, rejected: &Group, right: f64, count: f64, loss: f64) {
        self.loss += loss;
        if count > 0.0 {
            self.accuracy.add(right / count, self.weight(count));
        }
        for (class, group) in [(&mut self.chosen, chosen), (&mut self.rejected, rejected)] {
            class.rewards.extend(&group.rewards);
            if group.count() > 0.0 {
                let weight =
                    if self.averaging == Averaging::PerGroup { 1.0 } else { group.count() };
                class.reward.add(group.reward / group.count(), weight);
                class.logp.add(group.logp / group.count(), weight);
            }
        }
        if chosen.count() > 0.0 && rejected.count() > 0.0 {
            self.margins
                .add(chosen.reward / chosen.count() - rejected.reward / rejected.count(), 1.0);
        }
    }

    fn weight(&self, count: f64) -> f64 {
        match self.averaging {
            Averaging::PerExample => count,
            Averaging::PerGroup => 1.0,
        }
    }
}

/// The area under the ROC curve of rewards as a judge of desirable against undesirable: the chance that
/// a random desirable completion has a larger reward than a random undesirable one, ties counting half
/// (the Mann-Whitney U statistic over the number of pairs). 0.5 is blind, 1 is perfect.
///
/// None if a class is empty; NaN if a reward is.
pub fn auc(desirable: &[f64], undesirable: &[f64]) -> Option<f64> {
    if desirable.is_empty() || undesirable.is_empty() {
        return None;
    }
    if desirable.iter().chain(undesirable).any(|reward| reward.is_nan()) {
        return Some(f64::NAN);
    }
    let mut undesirable = undesirable.to_vec();
    undesirable.sort_by(f64::total_cmp);
    let wins: f64 = desirable
        .iter()
        .map(|reward| {
            let below = undesirable.partition_point(|other| other < reward);
            let not_above = undesirable.partition_point(|other| other <= reward);
            (below + not_above) as f64 / 2.0
        })
        .sum();
    Some(wins / (desirable.len() as f64 * undesirable.len() as f64))
}

/// A weighted mean.
#[derive(Clone, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += weight * value;
        self.weight += weight;
    }

    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// One class of completions over all groups of a step.
#[derive(Clone, Debug, Default)]
struct Class {
    reward: Mean,
    logp: Mean,
    rewards: Vec<f64>,
}

/// One class of completions inside one group.
#[derive(Default)]
struct Group {
    reward: f64,
    logp: f64,
    rewards: Vec<f64>,
}

impl Group {
    fn add(&mut self, reward: f64, logp: f64) {
        self.reward += reward;
        self.logp += logp;
        self.rewards.push(reward);
    }

    fn count(&self) -> f64 {
        self.rewards.len() as f64
    }
}
