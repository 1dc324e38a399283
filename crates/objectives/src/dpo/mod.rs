//! DPO, Direct Preference Optimization, and the losses of its kin: learn from pairs.
//!
//! With the log-ratios `w = log π(y_w|x) - log π_ref(y_w|x)` of the chosen and `l` of the rejected completion,
//! lengths `|w|` and `|l|` in tokens, `b = beta`, `e = label_smoothing`, `s(x)` the logistic function:
//!
//! ```text
//! h = b * (w - l)
//! sigmoid       -(1 - e) * log s(h) - e * log s(-h)                               arXiv 2305.18290, eq. 7
//! sigmoid_norm  -log s(b * (w / |w| - l / |l|))                                   arXiv 2411.15124
//! hinge         max(0, 1 - h)                                                     arXiv 2305.10425
//! ipo           (w / |w| - l / |l| - 1 / (2b))^2                                  arXiv 2310.12036, eq. 17
//! exo_pair      s(h) * log(s(h) / (1 - e)) + s(-h) * log(s(-h) / e)               arXiv 2402.00856, eq. 16
//! nca_pair      -log s(bw) - (log s(-bw) + log s(-bl)) / 2                        arXiv 2402.05369
//! robust        (-(1 - e) * log s(h) + e * log s(-h)) / (1 - 2e)                  arXiv 2403.00409
//! bco_pair      -log s(bw) - log s(-bl)                                           arXiv 2404.04656
//! sppo_hard     (w - 1 / (2b))^2 + (l + 1 / (2b))^2                               arXiv 2405.00675
//! apo_zero      s(-bw) + s(bl)                                                    arXiv 2408.06266, eq. 7
//! apo_down      s(bw) + s(-h)                                                     arXiv 2408.06266, eq. 8
//! discopop      -log s(h) * s(-h/t) + exp(-h) * s(h/t),   t = discopop_tau        arXiv 2406.08414, eq. 5
//!
//! dlogp_w = scale * dloss/dw,   dlogp_l = scale * dloss/dl,   reward = b * log-ratio
//! ```
//!
//! The names and forms are those of trl 1.16.0, `trl/trainer/dpo_trainer.py`, `_compute_loss` (lines 1386 to 1515),
//! with one difference: there `sigmoid` leaves `label_smoothing` aside; here it is the chance that a pair is labelled
//! the wrong way round, as in earlier releases. TRL's `aot` and `aot_unpaired`, which sort a whole batch, are not here.

use crate::logistic::{log_sigmoid, sigmoid};
use crate::{Outcome, Pair};

#[cfg(test)]
mod tests;

/// Which loss of the log-ratios is minimized, by TRL's names; the formulas are at the head of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossType {
    /// DPO itself.
    Sigmoid,
    /// DPO on log-ratios per token.
    SigmoidNorm,
    /// SLiC's hinge.
    Hinge,
    /// IPO: a squared distance from a fixed margin, per token.
    Ipo,
    /// EXO's reverse KL.
    ExoPair,
    /// NCA: each completion against noise.
    NcaPair,
    /// DPO without the bias of labels that are wrong with a known chance.
    Robust,
    /// BCO of a pair, without its running mean.
    BcoPair,
    /// SPPO with hard probabilities.
    SppoHard,
    /// APO-zero: chosen up, rejected down.
    ApoZero,
    /// APO-down: both down, the rejected one more.
    ApoDown,
    /// DiscoPOP: logistic and exponential, mixed by the log-ratio.
    Discopop,
}

/// The knobs of DPO, by TRL's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpoConfig {
    /// The loss.
    pub loss_type: LossType,
    /// How much a log-ratio counts; larger holds the policy closer to the reference.
    pub beta: f64,
    /// The chance that a pair is labelled the wrong way round, from 0 to below 0.5; above 0 in `exo_pair`.
    pub label_smoothing: f64,
    /// The temperature of `discopop`, above 0 and at most 1.
    pub discopop_tau: f64,
}

/// Loss, gradient and rewards of pairs.
///
/// `dlogps` and `rewards` have two values per pair: the chosen completion's, then the rejected one's.
pub fn loss(config: &DpoConfig, pairs: &[Pair], scale: f64) -> Outcome {
    let mut outcome = Outcome { loss: 0.0, dlogps: Vec::new(), rewards: Vec::new() };
    for pair in pairs {
        let Slopes { loss, chosen, rejected } = of_pair(config, pair);
        outcome.loss += scale * loss;
        outcome.dlogps.extend([scale * chosen, scale * rejected]);
        let reward = |log_ratio: f64| config.beta * log_ratio;
        outcome
            .rewards
            .extend([reward(pair.chosen.log_ratio()), reward(pair.rejected.log_ratio())]);
    }
    outcome
}

/// A pair's loss, and its derivatives with respect to the two log-ratios.
struct Slopes {
    loss: f64,
    chosen: f64,
    rejected: f64,
}

impl Slopes {
    /// Of a loss of the difference of the two, `slope` its derivative.
    fn of_difference(loss: f64, slope: f64) -> Slopes {
        Slopes { loss, chosen: slope, rejected: -slope }
    }
}

fn of_pair(config: &DpoConfig, pair: &Pair) -> Slopes {
    let DpoConfig { loss_type, beta, label_smoothing: e, discopop_tau: tau } = *config;
    let (w, l) = (pair.chosen.log_ratio(), pair.rejected.log_ratio());
    let (bw, bl) = (beta * w, beta * l);
    let h = beta * (w - l);
    let (tokens_w, tokens_l) = (pair.chosen.length(), pair.rejected.length());
    match loss_type {
        LossType::Sigmoid => {
            let (loss, slope) = smoothed(h, e);
            Slopes::of_difference(loss, beta * slope)
        }
        LossType::SigmoidNorm => {
            let (loss, slope) = smoothed(beta * (w / tokens_w - l / tokens_l), 0.0);
            Slopes { loss, chosen: beta * slope / tokens_w, rejected: -beta * slope / tokens_l }
        }
        LossType::Hinge => {
            let (loss, slope) = hinged(h);
            Slopes::of_difference(loss, beta * slope)
        }
        LossType::Ipo => {
            let distance = w / tokens_w - l / tokens_l - 0.5 / beta;
            Slopes {
                loss: distance * distance,
                chosen: 2.0 * distance / tokens_w,
                rejected: -2.0 * distance / tokens_l,
            }
        }
        LossType::ExoPair => {
            let (right, wrong) = (sigmoid(h), sigmoid(-h));
            let loss = right * (log_sigmoid(h) - (-e).ln_1p()) + wrong * (log_sigmoid(-h) - e.ln());
            // The derivatives of the two logarithms cancel: s' = s * (1 - s) times the difference of the brackets.
            let slope = right * wrong * (h - (-e).ln_1p() + e.ln());
            Slopes::of_difference(loss, beta * slope)
        }
        LossType::NcaPair => Slopes {
            loss: -log_sigmoid(bw) - 0.5 * log_sigmoid(-bw) - 0.5 * log_sigmoid(-bl),
            chosen: beta * (0.5 * sigmoid(bw) - sigmoid(-bw)),
            rejected: beta * 0.5 * sigmoid(bl),
        },
        LossType::Robust => {
            let unbiased = 1.0 / (1.0 - 2.0 * e);
            let loss = unbiased * (e * log_sigmoid(-h) - (1.0 - e) * log_sigmoid(h));
            let slope = -unbiased * ((1.0 - e) * sigmoid(-h) + e * sigmoid(h));
            Slopes::of_difference(loss, beta * slope)
        }
        LossType::BcoPair => Slopes {
            loss: -log_sigmoid(bw) - log_sigmoid(-bl),
            chosen: -beta * sigmoid(-bw),
            rejected: beta * sigmoid(bl),
        },
        LossType::SppoHard => {
            let (winner, loser) = (w - 0.5 / beta, l + 0.5 / beta);
            Slopes {
                loss: winner * winner + loser * loser,
                chosen: 2.0 * winner,
                rejected: 2.0 * loser,
            }
        }
        LossType::ApoZero => Slopes {
            loss: sigmoid(-bw) + sigmoid(bl),
            chosen: -beta * sigmoid(bw) * sigmoid(-bw),
            rejected: beta * sigmoid(bl) * sigmoid(-bl),
        },
        LossType::ApoDown => {
            let apart = beta * sigmoid(h) * sigmoid(-h);
            Slopes {
                loss: sigmoid(bw) + sigmoid(-h),
                chosen: beta * sigmoid(bw) * sigmoid(-bw) - apart,
                rejected: apart,
            }
        }
        LossType::Discopop => {
            let (mix, rest) = (sigmoid(h / tau), sigmoid(-h / tau));
            // exp(-h) * mix as one exponential: far below zero the first overflows and the second is 0.
            let exponential = (log_sigmoid(h / tau) - h).exp();
            let loss = -log_sigmoid(h) * rest + exponential;
            let slope = -sigmoid(-h) * rest
                + log_sigmoid(h) * mix * rest / tau
                + exponential * (rest / tau - 1.0);
            Slopes::of_difference(loss, beta * slope)
        }
    }
}

/// `-(1 - e) * log s(z) - e * log s(-z)` and its derivative.
pub(crate) fn smoothed(z: f64, e: f64) -> (f64, f64) {
    (
        -((1.0 - e) * log_sigmoid(z) + e * log_sigmoid(-z)),
        -((1.0 - e) * sigmoid(-z) - e * sigmoid(z)),
    )
}

/// `max(0, 1 - z)` and its derivative, 0 at the bend. A NaN stays one.
pub(crate) fn hinged(z: f64) -> (f64, f64) {
    if z >= 1.0 { (0.0, 0.0) } else { (1.0 - z, if z.is_nan() { z } else { -1.0 }) }
}
