//! CPO, Contrastive Preference Optimization: DPO with a uniform reference, so with none. The method adds the chosen
//! completion's mean negative log-probability ([`crate::sft`]), TRL's `cpo_alpha`.
//!
//! With `b = beta`, `e = label_smoothing`, log-probabilities `w` and `l`, lengths `|w|` and `|l|`:
//!
//! ```text
//! h = b * (w - l)
//! sigmoid   -(1 - e) * log s(h) - e * log s(-h)                       arXiv 2401.08417, eq. 3
//! hinge     max(0, 1 - h)                                             arXiv 2305.10425
//! ipo       (w / |w| - l / |l| - 1 / (2b))^2                          arXiv 2310.12036, eq. 17
//! reward = b * log-probability, in ipo b * its mean per token
//! ```
//!
//! So it is computed as [`crate::dpo`] with a reference of 0. Source besides the papers: trl 1.16.0,
//! `trl/experimental/cpo/cpo_trainer.py`, `cpo_loss` (line 678).

use crate::dpo::{self, DpoConfig, LossType};
use crate::{Logps, Outcome, Pair};

/// Loss, gradient and rewards of pairs. Of the loss types `sigmoid`, `hinge` and `ipo` are CPO's.
pub fn loss(config: &DpoConfig, pairs: &[Pair], scale: f64) -> Outcome {
    let without = |logps: Logps| Logps { reference: 0.0, ..logps };
    let unreferenced: Vec<Pair> = pairs
        .iter()
        .map(|pair| Pair { chosen: without(pair.chosen), rejected: without(pair.rejected) })
        .collect();
    let mut outcome = dpo::loss(config, &unreferenced, scale);
    if averages(config.loss_type) {
        let completions = pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]);
        outcome.rewards = completions.map(|logps| config.beta * logps.mean_logp()).collect();
    }
    outcome
}

/// Whether the loss compares means per token, so that rewards are of these.
pub fn averages(loss_type: LossType) -> bool {
    loss_type == LossType::Ipo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_left_aside_and_ipo_rewards_means() {
        // h = 0.5 * (-2 + 4) = 1: -log s(1) = 0.31326168751822286
        let pair = Pair {
            chosen: Logps { policy: -2.0, reference: -7.0, tokens: 2 },
            rejected: Logps { policy: -4.0, reference: 9.0, tokens: 8 },
        };
        let config = |loss_type| DpoConfig {
            loss_type,
            beta: 0.5,
            label_smoothing: 0.0,
            discopop_tau: 0.05,
        };
        let outcome = loss(&config(LossType::Sigmoid), &[pair], 1.0);
        assert!((outcome.loss - 0.313_261_687_518_222_86).abs() < 1e-15);
        assert_eq!(outcome.rewards, [-1.0, -2.0]);
        // -1 + 0.5 - 1 = -1.5; its square is 2.25; slopes -3 / 2 and 3 / 8.
        let outcome = loss(&config(LossType::Ipo), &[pair], 1.0);
        let expected =
            Outcome { loss: 2.25, dlogps: vec![-1.5, 0.375], rewards: vec![-0.5, -0.25] };
        assert_eq!(outcome, expected);
    }
}
