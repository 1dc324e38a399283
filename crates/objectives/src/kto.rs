//! KTO, Kahneman-Tversky Optimization: learn from single thumbs up and thumbs down.
//!
//! With `r_i = log π(y_i|x_i) - log π_ref(y_i|x_i)` of the rated completion and `k_i` the same of a
//! *mismatched* one, the completion of another example of the group behind the prompt of this one:
//!
//! ```text
//! KL   = max(mean_i k_i, 0)                                    a constant: no gradient
//! z_i  = s_i * beta * (r_i - KL)                               s_i = +1 desirable, -1 undesirable
//! l_i  = w_i * (1 - sigmoid(z_i))                              w_i = desirable_ or undesirable_weight
//! loss = sum_i scale * l_i
//! dloss/dlogp_i = -scale * w_i * s_i * beta * sigmoid(z_i) * (1 - sigmoid(z_i))
//! reward_i      = beta * r_i
//! ```
//!
//! Sources: arXiv 2402.01306, equations 7 and 8 (lambda is the weight here); names and the estimate of
//! KL as in trl 1.16.0, `trl/trainer/kto_trainer.py`. A completion far from the baseline on either
//! side has a gradient near zero: KTO neither chases outliers nor what is already learnt.

use crate::logistic::sigmoid;
use crate::{Outcome, Rated};

/// The knobs of KTO, by TRL's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoConfig {
    /// How much a log-ratio counts; larger holds the policy closer to the reference.
    pub beta: f64,
    /// Weight of a thumbs-up example.
    pub desirable_weight: f64,
    /// Weight of a thumbs-down example.
    pub undesirable_weight: f64,
}

/// The KL baseline of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kl {
    /// The mean of `k_i`, before the clamp: where it is negative, the estimate says nothing.
    pub raw: f64,
    /// What the loss uses: `raw`, or 0 where it is negative.
    pub clamped: f64,
    /// Whether the clamp acted.
    pub was_clamped: bool,
}

/// The KL baseline from the summed log-probabilities of a group's mismatched completions.
///
/// Without any completion the baseline is 0. A NaN stays a NaN.
///
/// # Panics
/// If the two slices differ in length.
pub fn kl(policy_mismatched: &[f64], reference_mismatched: &[f64]) -> Kl {
    assert_eq!(
        policy_mismatched.len(),
        reference_mismatched.len(),
        "policy and reference must score the same mismatched completions"
    );
    if policy_mismatched.is_empty() {
        return Kl { raw: 0.0, clamped: 0.0, was_clamped: false };
    }
    let sum: f64 = policy_mismatched
        .iter()
        .zip(reference_mismatched)
        .map(|(policy, reference)| policy - reference)
        .sum();
    let raw = sum / policy_mismatched.len() as f64;
    let was_clamped = raw < 0.0; // not `f64::max`, which would turn a NaN into 0
    Kl { raw, clamped: if was_clamped { 0.0 } else { raw }, was_clamped }
}

/// Loss, gradient and rewards of rated completions against the baseline `kl` (the clamped one).
pub fn loss(config: &KtoConfig, rated: &[Rated], kl: f64, scale: f64) -> Outcome {
    let mut outcome = Outcome { loss: 0.0, dlogps: Vec::new(), rewards: Vec::new() };
    for example in rated {
        let (sign, weight) = if example.label {
            (1.0, config.desirable_weight)
        } else {
            (-1.0, config.undesirable_weight)
        };
        let r = example.log_ratio();
        let z = sign * config.beta * (r - kl);
        outcome.loss += scale * weight * sigmoid(-z);
        outcome.dlogps.push(-scale * weight * sign * config.beta * sigmoid(z) * sigmoid(-z));
        outcome.rewards.push(config.beta * r);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: KtoConfig =
        KtoConfig { beta: 0.5, desirable_weight: 1.0, undesirable_weight: 1.5 };

    #[test]
    fn two_examples_worked_by_hand() {
        // k = (-10 + 12, -8 + 7) = (2, -1), so KL = 0.5.
        let kl = kl(&[-10.0, -8.0], &[-12.0, -7.0]);
        assert_eq!(kl, Kl { raw: 0.5, clamped: 0.5, was_clamped: false });
        // desirable:   r = -20 + 21.5 = 1.5; z = 0.5 * (1.5 - 0.5) = 0.5
        // undesirable: r = -30 + 27.5 = -2.5; z = -0.5 * (-2.5 - 0.5) = 1.5
        // sigmoid(0.5) = 0.6224593312018546, sigmoid(1.5) = 0.8175744761936437
        // loss = (1 * 0.3775406687981454 + 1.5 * 0.1824255238063563) / 2
        //      = (0.3775406687981454 + 0.27363828570953445) / 2 = 0.32558947725383997
        // dlogp_1 = -1/2 * 1   *  0.5 * 0.6224593312018546 * 0.3775406687981454 = -0.05875092805039862
        // dlogp_2 = -1/2 * 1.5 * -0.5 * 0.8175744761936437 * 0.1824255238063563 =  0.05592991952637482
        let rated = [
            Rated { label: true, policy: -20.0, reference: -21.5 },
            Rated { label: false, policy: -30.0, reference: -27.5 },
        ];
        let outcome = loss(&CONFIG, &rated, kl.clamped, 0.5);
        assert!((outcome.loss - 0.325_589_477_253_84).abs() < 1e-15, "{}", outcome.loss);
        assert!(
            (outcome.dlogps[0] + 0.058_750_928_050_398_62).abs() < 1e-15,
            "{:?}",
            outcome.dlogps
        );
        assert!(
            (outcome.dlogps[1] - 0.055_929_919_526_374_82).abs() < 1e-15,
            "{:?}",
            outcome.dlogps
        );
        assert_eq!(outcome.rewards, [0.75, -1.25]);
    }

    #[test]
    fn a_negative_estimate_is_clamped_and_says_so() {
        assert_eq!(
            kl(&[-12.0, -8.0], &[-10.0, -9.0]),
            Kl { raw: -0.5, clamped: 0.0, was_clamped: true }
        );
        assert_eq!(kl(&[], &[]), Kl { raw: 0.0, clamped: 0.0, was_clamped: false });
    }

    #[test]
    fn a_nan_is_not_clamped_away() {
        let kl = kl(&[f64::NAN, -8.0], &[-10.0, -9.0]);
        assert!(kl.raw.is_nan() && kl.clamped.is_nan() && !kl.was_clamped);
        let outcome =
            loss(&CONFIG, &[Rated { label: true, policy: -1.0, reference: -1.0 }], kl.clamped, 1.0);
        assert!(outcome.loss.is_nan() && outcome.dlogps[0].is_nan());
    }

    #[test]
    fn log_ratios_of_ten_thousand_stay_finite() {
        for r in [1e4, -1e4] {
            for label in [true, false] {
                let rated = [Rated { label, policy: r - 50.0, reference: -50.0 }];
                let outcome = loss(&CONFIG, &rated, 3.0, 1.0);
                let wrong_side = (r > 0.0) != label;
                let weight = if label { 1.0 } else { 1.5 };
                assert_eq!(
                    outcome.loss,
                    if wrong_side { weight } else { 0.0 },
                    "r {r}, label {label}"
                );
                assert_eq!(outcome.dlogps[0].abs(), 0.0, "r {r}, label {label}");
                assert_eq!(outcome.rewards[0], 0.5 * r);
            }
        }
    }
}
