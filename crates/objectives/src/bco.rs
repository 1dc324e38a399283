//! BCO, Binary Classifier Optimization: learn from single ratings as a classifier whose threshold is the running
//! mean of all rewards so far.
//!
//! ```text
//! reward_i = beta * (log π(y_i|x_i) - log π_ref(y_i|x_i))
//! delta    = mean of the rewards of all groups so far, this one included          a constant: no gradient
//! z_i      = s_i * (reward_i - delta)                  s_i = +1 desirable, -1 undesirable
//! l_i      = -log sigmoid(z_i)
//! dloss/dlogp_i = -scale * s_i * beta * sigmoid(-z_i)
//! ```
//!
//! Sources: arXiv 2404.04656 (the loss, and its reward shift); trl 1.13.0, the last release that has it,
//! `trl/experimental/bco/bco_trainer.py`, `bco_loss` (line 1231) and `RunningMoments` (line 119), whose count begins
//! at 1e-24 and so at nothing. The paper's matching of prompt distributions, which needs an embedding model, is not
//! here. TRL's trainer tokenizes in a way of its own; here all objectives see the same tokens.

use crate::logistic::{log_sigmoid, sigmoid};
use crate::{Outcome, Rated};

/// The mean of all rewards so far: what a run goes on with when it is resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunningMean {
    /// The mean; 0 before the first reward.
    pub mean: f64,
    /// How many rewards it is of.
    pub count: u64,
}

impl RunningMean {
    /// Takes the rewards of a group in. A NaN stays a NaN.
    pub fn update(&mut self, rewards: &[f64]) {
        if rewards.is_empty() {
            return;
        }
        let new = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / new;
        self.count += rewards.len() as u64;
        self.mean += (mean - self.mean) * new / self.count as f64;
    }
}

/// Loss, gradient and rewards of rated completions against the threshold `delta`.
pub fn loss(beta: f64, rated: &[Rated], delta: f64, scale: f64) -> Outcome {
    let mut outcome = Outcome { loss: 0.0, dlogps: Vec::new(), rewards: Vec::new() };
    for example in rated {
        let sign = if example.label { 1.0 } else { -1.0 };
        let reward = beta * example.log_ratio();
        let z = sign * (reward - delta);
        outcome.loss -= scale * log_sigmoid(z);
        outcome.dlogps.push(-scale * sign * beta * sigmoid(-z));
        outcome.rewards.push(reward);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_examples_worked_by_hand() {
        // rewards 0.5 * 3 = 1.5 and 0.5 * -1 = -0.5, delta 0.5: z = 1 and 1.
        // -log sigmoid(1) = 0.31326168751822286; sigmoid(-1) = 0.2689414213699951
        let rated = [
            Rated { label: true, policy: -20.0, reference: -23.0 },
            Rated { label: false, policy: -30.0, reference: -29.0 },
        ];
        let outcome = loss(0.5, &rated, 0.5, 0.5);
        assert!((outcome.loss - 0.313_261_687_518_222_86).abs() < 1e-15, "{}", outcome.loss);
        assert!((outcome.dlogps[0] + 0.067_235_355_342_498_77).abs() < 1e-15);
        assert_eq!(outcome.dlogps[1], -outcome.dlogps[0]);
        assert_eq!(outcome.rewards, [1.5, -0.5]);
    }

    #[test]
    fn the_running_mean_is_that_of_all_rewards() {
        let mut running = RunningMean::default();
        running.update(&[]);
        assert_eq!(running, RunningMean::default());
        running.update(&[1.0, 3.0]);
        running.update(&[8.0]);
        assert_eq!(running, RunningMean { mean: 4.0, count: 3 });
        running.update(&[f64::NAN]);
        assert!(running.mean.is_nan());
    }

    #[test]
    fn log_ratios_of_ten_thousand_stay_finite_and_a_nan_comes_out_as_one() {
        for r in [1e4, -1e4] {
            for label in [true, false] {
                let rated = [Rated { label, policy: r - 50.0, reference: -50.0 }];
                let outcome = loss(0.5, &rated, 0.0, 1.0);
                let wrong_side = (r > 0.0) != label;
                assert_eq!(outcome.loss, if wrong_side { 5e3 } else { 0.0 });
                assert_eq!(outcome.dlogps[0].abs(), if wrong_side { 0.5 } else { 0.0 });
            }
        }
        let rated = [Rated { label: true, policy: f64::NAN, reference: -50.0 }];
        let outcome = loss(0.5, &rated, 0.0, 1.0);
        assert!(outcome.loss.is_nan() && outcome.dlogps[0].is_nan());
    }
}
