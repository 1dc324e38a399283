//! APO-zero for unpaired feedback: KTO's value function around zero instead of around the KL.
//!
//! ```text
//! desirable    l_i = desirable_weight   * (1 - sigmoid(beta * r_i))
//! undesirable  l_i = undesirable_weight *      sigmoid(beta * r_i)
//! ```
//!
//! Since `sigmoid(x) = 1 - sigmoid(-x)`, this is KTO with a baseline of 0, and so it is computed. No
//! mismatched completions are scored, so a step costs less and `batch_size = 1` is possible.
//! Sources: arXiv 2408.06266 (APO-zero); the unpaired form as in trl 1.16.0,
//! `trl/trainer/kto_trainer.py`, `loss_type="apo_zero_unpaired"`.

use crate::kto::{self, KtoConfig};
use crate::{Outcome, Rated};

/// Loss, gradient and rewards of rated completions.
pub fn loss(config: &KtoConfig, rated: &[Rated], scale: f64) -> Outcome {
    kto::loss(config, rated, 0.0, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_examples_worked_by_hand() {
        // beta * r = 0.25 * 2 = 0.5 for the desirable one, 0.25 * -4 = -1 for the other.
        // l = (1 - sigmoid(0.5), 2 * sigmoid(-1)) = (0.3775406687981454, 2 * 0.2689414213699951)
        // loss = (0.3775406687981454 + 0.5378828427399902) / 2 = 0.4577117557690678
        // dlogp_1 = -1/2 * 0.25 * 0.6224593312018546 * 0.3775406687981454 = -0.02937546402519931
        // dlogp_2 = +1/2 * 2 * 0.25 * 0.2689414213699951 * 0.7310585786300049 = 0.04915298331037046
        let config = KtoConfig { beta: 0.25, desirable_weight: 1.0, undesirable_weight: 2.0 };
        let rated = [
            Rated { label: true, policy: -5.0, reference: -7.0 },
            Rated { label: false, policy: -9.0, reference: -5.0 },
        ];
        let outcome = loss(&config, &rated, 0.5);
        assert!((outcome.loss - 0.457_711_755_769_067_8).abs() < 1e-15, "{}", outcome.loss);
        assert!(
            (outcome.dlogps[0] + 0.029_375_464_025_199_31).abs() < 1e-15,
            "{:?}",
            outcome.dlogps
        );
        assert!(
            (outcome.dlogps[1] - 0.049_152_983_310_370_46).abs() < 1e-15,
            "{:?}",
            outcome.dlogps
        );
        assert_eq!(outcome.rewards, [0.5, -1.0]);
    }
}
