//! DPO, Direct Preference Optimization, with the sigmoid loss: learn from pairs.
//!
//! ```text
//! d    = (log π(y_w) - log π_ref(y_w)) - (log π(y_l) - log π_ref(y_l))     w chosen, l rejected
//! l    = -(1 - e) * log sigmoid(beta * d) - e * log sigmoid(-beta * d)     e = label_smoothing
//! dl/dd = -beta * ((1 - e) * sigmoid(-beta * d) - e * sigmoid(beta * d))
//! dlogp_w = scale * dl/dd,   dlogp_l = -scale * dl/dd
//! reward  = beta * r of each completion
//! ```
//!
//! Sources: arXiv 2305.18290, equation 7; label smoothing (the chance that a pair is labelled the
//! wrong way round) as in trl 1.16.0, `trl/trainer/dpo_trainer.py`, `loss_type="sigmoid"`.

use crate::logistic::{log_sigmoid, sigmoid};
use crate::{Logps, Outcome};

/// The knobs of DPO, by TRL's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpoConfig {
    /// How much a log-ratio counts; larger holds the policy closer to the reference.
    pub beta: f64,
    /// The chance that a pair is labelled the wrong way round, from 0 to below 0.5.
    pub label_smoothing: f64,
}

/// Two completions of one prompt, the first preferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The preferred completion.
    pub chosen: Logps,
    /// The other.
    pub rejected: Logps,
}

/// Loss, gradient and rewards of pairs.
///
/// `dlogps` and `rewards` have two values per pair: the chosen completion's, then the rejected one's.
pub fn loss(config: &DpoConfig, pairs: &[Pair], scale: f64) -> Outcome {
    let DpoConfig { beta, label_smoothing } = *config;
    let mut outcome = Outcome { loss: 0.0, dlogps: Vec::new(), rewards: Vec::new() };
    for pair in pairs {
        let (r_chosen, r_rejected) = (pair.chosen.log_ratio(), pair.rejected.log_ratio());
        let z = beta * (r_chosen - r_rejected);
        outcome.loss -=
            scale * ((1.0 - label_smoothing) * log_sigmoid(z) + label_smoothing * log_sigmoid(-z));
        let dz = -((1.0 - label_smoothing) * sigmoid(-z) - label_smoothing * sigmoid(z));
        outcome.dlogps.extend([scale * beta * dz, -scale * beta * dz]);
        outcome.rewards.extend([beta * r_chosen, beta * r_rejected]);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(chosen: f64, rejected: f64) -> Pair {
        Pair {
            chosen: Logps { policy: chosen - 20.0, reference: -20.0 },
            rejected: Logps { policy: rejected - 30.0, reference: -30.0 },
        }
    }

    #[test]
    fn one_pair_worked_by_hand() {
        // r = (1.5, -0.5), d = 2, beta * d = 1; sigmoid(1) = 0.7310585786300049.
        // l = -log 0.7310585786300049 = 0.31326168751822286
        // dl/dd = -0.5 * 0.2689414213699951 = -0.13447071068499755
        let config = DpoConfig { beta: 0.5, label_smoothing: 0.0 };
        let outcome = loss(&config, &[pair(1.5, -0.5)], 1.0);
        assert!((outcome.loss - 0.313_261_687_518_222_86).abs() < 1e-15);
        assert!((outcome.dlogps[0] + 0.134_470_710_684_997_55).abs() < 1e-15);
        assert_eq!(outcome.dlogps[1], -outcome.dlogps[0]);
        assert_eq!(outcome.rewards, [0.75, -0.25]);
    }

    #[test]
    fn label_smoothing_mixes_in_the_pair_turned_round() {
        // As above with e = 0.1: l = 0.9 * 0.31326168751822286 + 0.1 * 1.3132616875182228
        //                          = 0.28193551876640057 + 0.13132616875182228 = 0.41326168751822284
        // dl/dd = -0.5 * (0.9 * 0.2689414213699951 - 0.1 * 0.7310585786300049) = -0.08447071068499756
        let config = DpoConfig { beta: 0.5, label_smoothing: 0.1 };
        let outcome = loss(&config, &[pair(1.5, -0.5)], 1.0);
        assert!((outcome.loss - 0.413_261_687_518_222_84).abs() < 1e-15);
        assert!((outcome.dlogps[0] + 0.084_470_710_684_997_56).abs() < 1e-15);
    }

    #[test]
    fn log_ratios_of_ten_thousand_stay_finite() {
        let config = DpoConfig { beta: 0.5, label_smoothing: 0.0 };
        let right = loss(&config, &[pair(1e4, -1e4)], 1.0);
        assert_eq!((right.loss, right.dlogps[0].abs()), (0.0, 0.0));
        let wrong = loss(&config, &[pair(-1e4, 1e4)], 1.0);
        assert_eq!((wrong.loss, wrong.dlogps[0]), (1e4, -0.5));
    }
}
