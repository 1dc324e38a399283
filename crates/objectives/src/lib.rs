//! Objectives: summed log-probabilities in, loss and its gradient out.
//!
//! An objective knows no tensor, no device and no model. It receives, per completion, the sum over
//! scored tokens of the log-probability under the policy and under the frozen reference, and returns
//! the loss, its derivative with respect to each policy sum (`dlogps`) and the implicit rewards.
//! Backward through the model is then the same for every objective: a supervised backward in which
//! each completion has one weight.
//!
//! Everything is host arithmetic in f64. A NaN or an infinity in the log-probabilities comes out as a
//! NaN or an infinity; nothing here hides it, the training step decides what a bad batch means.
//!
//! ```text
//! kto                 rated completions and a KL baseline     arXiv 2402.01306
//! apo_zero_unpaired   rated completions, no baseline          arXiv 2408.06266
//! dpo                 pairs of a chosen and a rejected one    arXiv 2305.18290
//! sft                 completions alone
//! metrics             what one optimizer step reports
//! ```
//!
//! `scale` is what one example's loss is multiplied with. The caller chooses it: 1 / (examples of the
//! effective batch) is the true mean; 1 / (examples of the group × groups of the step) is TRL's mean
//! of means.

pub mod kto;

pub mod apo_zero_unpaired;

pub mod dpo;

pub mod sft;

pub mod metrics;

mod logistic;

/// Summed log-probabilities of one completion given its prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logps {
    /// Under the model in training.
    pub policy: f64,
    /// Under the frozen reference.
    pub reference: f64,
}

impl Logps {
    /// `r = log π(y|x) - log π_ref(y|x)`.
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }
}

/// One completion that somebody rated, with its summed log-probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rated {
    /// True for thumbs up (desirable), false for thumbs down (undesirable).
    pub label: bool,
    /// Summed log-probability under the model in training.
    pub policy: f64,
    /// Summed log-probability under the frozen reference.
    pub reference: f64,
}

impl Rated {
    /// `r = log π(y|x) - log π_ref(y|x)`.
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }
}

/// What an objective makes of a list of completions.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The sum of `scale * l_i`.
    pub loss: f64,
    /// `dloss / dlogp_policy` of each completion, in the order of the input.
    pub dlogps: Vec<f64>,
    /// `beta * r` of each completion, in the order of the input; empty where an objective has none.
    pub rewards: Vec<f64>,
}
