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
//! bco                 rated completions and a running mean    arXiv 2404.04656
//! dpo                 pairs of a chosen and a rejected one    arXiv 2305.18290 and its kin
//! orpo                pairs, without a reference              arXiv 2403.07691
//! simpo               pairs, without a reference              arXiv 2405.14734
//! cpo                 pairs, without a reference              arXiv 2401.08417
//! sft                 completions alone; also mixed into the others
//! metrics             what one optimizer step reports
//! ```
//!
//! `scale` is what one example's loss is multiplied with. The caller chooses it: 1 / (examples of the
//! effective batch) is the true mean; 1 / (examples of the group × groups of the step) is TRL's mean
//! of means.

pub mod kto;

pub mod apo_zero_unpaired;

pub mod bco;

pub mod dpo;

pub mod orpo;

pub mod simpo;

pub mod cpo;

pub mod sft;

pub mod metrics;

mod logistic;

/// Summed log-probabilities of one completion given its prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logps {
    /// Under the model in training.
    pub policy: f64,
    /// Under the frozen reference; 0 where the objective has none.
    pub reference: f64,
    /// How many tokens the sums are over.
    pub tokens: usize,
}

impl Logps {
    /// `r = log π(y|x) - log π_ref(y|x)`.
    pub fn log_ratio(&self) -> f64 {
        self.policy - self.reference
    }

    /// `log π(y|x) / |y|`: the mean per token. A completion without tokens counts as one of one token.
    pub fn mean_logp(&self) -> f64 {
        self.policy / self.length()
    }

    /// `|y|` as a divisor.
    fn length(&self) -> f64 {
        self.tokens.max(1) as f64
    }
}

/// Two completions of one prompt, the first preferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The preferred completion, `w`.
    pub chosen: Logps,
    /// The other, `l`.
    pub rejected: Logps,
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
    /// `dloss / dlogp_policy` of each completion, in the order of the input; of a pair first the chosen one's.
    pub dlogps: Vec<f64>,
    /// The implicit reward of each completion, in the same order; empty where an objective has none.
    pub rewards: Vec<f64>,
}
