//! SimPO, Simple Preference Optimization: the mean log-probability per token is the reward, and the chosen one has
//! to lead by a margin. There is no reference.
//!
//! ```text
//! z = beta * (log π(y_w|x) / |w| - log π(y_l|x) / |l|) - gamma
//! l = -(1 - e) * log sigmoid(z) - e * log sigmoid(-z)                 e = label_smoothing
//! dlogp_w = scale * beta * dl/dz / |w|,   dlogp_l = -scale * beta * dl/dz / |l|
//! reward  = beta * mean log-probability
//! ```
//!
//! Sources: arXiv 2405.14734, equation 6; label smoothing and names as in trl 1.16.0,
//! `trl/experimental/cpo/cpo_trainer.py`, `cpo_loss` (line 678) with `loss_type="simpo"`. TRL's `cpo_alpha`, 1 unless
//! written, adds the chosen completion's negative log-probability ([`crate::sft`]); the paper has none.

use crate::dpo::smoothed;
use crate::{Outcome, Pair};

/// The knobs of SimPO, by TRL's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimpoConfig {
    /// How much a mean log-probability counts; the paper takes 2 to 2.5.
    pub beta: f64,
    /// The margin of rewards that the chosen completion is to lead by.
    pub simpo_gamma: f64,
    /// The chance that a pair is labelled the wrong way round, from 0 to below 0.5.
    pub label_smoothing: f64,
}

/// Loss, gradient and rewards of pairs.
pub fn loss(config: &SimpoConfig, pairs: &[Pair], scale: f64) -> Outcome {
    let SimpoConfig { beta, simpo_gamma, label_smoothing } = *config;
    let mut outcome = Outcome { loss: 0.0, dlogps: Vec::new(), rewards: Vec::new() };
    for Pair { chosen, rejected } in pairs {
        let rewards = [beta * chosen.mean_logp(), beta * rejected.mean_logp()];
        let (loss, dz) = smoothed(rewards[0] - rewards[1] - simpo_gamma, label_smoothing);
        outcome.loss += scale * loss;
        let dreward = scale * beta * dz;
        outcome.dlogps.extend([dreward / chosen.length(), -dreward / rejected.length()]);
        outcome.rewards.extend(rewards);
    }
    outcome
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
        // Means -1 and -2; z = 2 * 1 - 1 = 1; -log sigmoid(1) = 0.31326168751822286.
        // dl/dz = -0.2689414213699951, times beta 2: over 2 tokens, and over 4.
        let config = SimpoConfig { beta: 2.0, simpo_gamma: 1.0, label_smoothing: 0.0 };
        let outcome = loss(&config, &[pair(-2.0, -8.0)], 1.0);
        assert!((outcome.loss - 0.313_261_687_518_222_86).abs() < 1e-15, "{}", outcome.loss);
        assert!((outcome.dlogps[0] + 0.268_941_421_369_995_1).abs() < 1e-15);
        assert!((outcome.dlogps[1] - 0.134_470_710_684_997_55).abs() < 1e-15);
        assert_eq!(outcome.rewards, [-2.0, -4.0]);
    }

    #[test]
    fn log_probabilities_of_minus_ten_thousand_stay_finite_and_a_nan_comes_out_as_one() {
        let config = SimpoConfig { beta: 2.0, simpo_gamma: 1.0, label_smoothing: 0.1 };
        for (chosen, rejected) in [(-1e4, -1.0), (-1.0, -1e4)] {
            let outcome = loss(&config, &[pair(chosen, rejected)], 1.0);
            assert!(outcome.loss.is_finite() && outcome.dlogps.iter().all(|d| d.is_finite()));
        }
        assert!(loss(&config, &[pair(f64::NAN, -1.0)], 1.0).dlogps[1].is_nan());
    }
}
