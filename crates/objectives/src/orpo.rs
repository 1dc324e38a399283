//! ORPO, Odds Ratio Preference Optimization: the part that compares the two completions of a pair. Whole ORPO adds
//! the chosen completion's mean negative log-probability ([`crate::sft`]). There is no reference.
//!
//! With the mean log-probabilities per token `a = log π(y_w|x) / |w|` and `c = log π(y_l|x) / |l|`, and the
//! probabilities `p = exp(a)`, `q = exp(c)`:
//!
//! ```text
//! log_odds = (a - c) - (log(1 - p) - log(1 - q))
//! l        = -beta * log sigmoid(log_odds)
//! d        = exp(a - c) * (1 - q) + (1 - p)
//! dl/da    = -beta / d
//! dl/dc    =  beta * (1 - p) / (d * (1 - q))
//! dlogp_w  = scale * dl/da / |w|,   dlogp_l = scale * dl/dc / |l|,   reward = beta * a
//! ```
//!
//! The slope of `log_odds` is `1 / (1 - p)` in `a` and `-1 / (1 - q)` in `c`; with `sigmoid(-log_odds) =
//! q (1 - p) / (p (1 - q) + q (1 - p))` the factor that grows without bound as `p` nears 1 cancels.
//!
//! Sources: arXiv 2403.07691, equations 4, 6 and 7 (beta is lambda there); trl 1.16.0,
//! `trl/experimental/orpo/orpo_trainer.py`, `odds_ratio_loss` (line 670).

use crate::logistic::log_sigmoid;
use crate::{Outcome, Pair};

/// Loss, gradient and rewards of pairs. `beta` is the weight of the comparison beside the chosen completion's
/// log-probability.
pub fn loss(beta: f64, pairs: &[Pair], scale: f64) -> Outcome {
    let mut outcome = Outcome { loss: 0.0, dlogps: Vec::new(), rewards: Vec::new() };
    for pair in pairs {
        let (a, c) = (pair.chosen.mean_logp(), pair.rejected.mean_logp());
        outcome.loss -= scale * beta * log_sigmoid(log_odds(pair));
        // 1 - p and 1 - q, with all their digits.
        let (not_p, not_q) = (-a.exp_m1(), -c.exp_m1());
        let d = (a - c).exp() * not_q + not_p;
        let (da, dc) = (-beta / d, beta * not_p / (d * not_q));
        outcome
            .dlogps
            .extend([scale * da / pair.chosen.length(), scale * dc / pair.rejected.length()]);
        outcome.rewards.extend([beta * a, beta * c]);
    }
    outcome
}

/// How much larger the odds of the chosen completion are than those of the rejected one, as a logarithm.
pub fn log_odds(pair: &Pair) -> f64 {
    let (a, c) = (pair.chosen.mean_logp(), pair.rejected.mean_logp());
    (a - c) - (log_of_rest(a) - log_of_rest(c))
}

/// `log sigmoid(log_odds)`, what TRL reports as `log_odds_ratio`.
pub fn log_odds_ratio(pair: &Pair) -> f64 {
    log_sigmoid(log_odds(pair))
}

/// `log(1 - exp(x))` of a negative `x`. Each form keeps its digits where the other loses them.
fn log_of_rest(x: f64) -> f64 {
    if x < -std::f64::consts::LN_2 { (-x.exp()).ln_1p() } else { (-x.exp_m1()).ln() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Logps;

    fn pair(chosen: f64, rejected: f64) -> Pair {
        Pair {
            chosen: Logps { policy: chosen, reference: 0.0, tokens: 2 },
            rejected: Logps { policy: rejected, reference: 0.0, tokens: 4 },
        }
    }

    #[test]
    fn one_pair_worked_by_hand() {
        // p = 1/2, q = 1/5 per token: odds 1 and 1/4, their ratio 4; sigmoid(log 4) = 0.8.
        // l = -0.25 * log 0.8 = 0.05578588782855244
        // dl/da = -0.25 / (2.5 * 0.8 + 0.5) = -0.1, over 2 tokens -0.05
        // dl/dc = 0.25 * 0.2 / 0.8 = 0.0625, over 4 tokens 0.015625
        let pair = pair(2.0 * 0.5f64.ln(), 4.0 * 0.2f64.ln());
        assert!((log_odds(&pair) - 4f64.ln()).abs() < 1e-14);
        let outcome = loss(0.25, &[pair], 1.0);
        assert!((outcome.loss - 0.055_785_887_828_552_44).abs() < 1e-15, "{}", outcome.loss);
        assert!((outcome.dlogps[0] + 0.05).abs() < 1e-15, "{:?}", outcome.dlogps);
        assert!((outcome.dlogps[1] - 0.015_625).abs() < 1e-15, "{:?}", outcome.dlogps);
        assert!((outcome.rewards[0] - 0.25 * 0.5f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn log_probabilities_far_out_and_near_zero_stay_finite() {
        for (chosen, rejected) in [(-1e4, -1.0), (-1.0, -1e4), (-1e4, -1e4), (-1e-9, -8.0)] {
            let outcome = loss(0.1, &[pair(chosen, rejected)], 1.0);
            let numbers = [outcome.loss, outcome.dlogps[0], outcome.dlogps[1]];
            assert!(
                numbers.iter().all(|number| number.is_finite()),
                "at {chosen}, {rejected}: {numbers:?}"
            );
        }
        assert!(loss(0.1, &[pair(f64::NAN, -1.0)], 1.0).dlogps[0].is_nan());
    }
}
