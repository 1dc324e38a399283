//! SFT on completions alone: the mean negative log-probability of scored tokens.
//!
//! ```text
//! loss    = -(sum over completions of log π(y|x)) / (scored tokens of the effective batch)
//! dlogp_i = -1 / (scored tokens of the effective batch)
//! ```
//!
//! The mean is over all tokens of an optimizer step, as in transformers 5.23
//! (`num_items_in_batch`): a long completion counts for more than a short one, and how the batch was
//! cut into micro-batches changes nothing. There is no reference, so there are no rewards.
//!
//! The same is mixed into other objectives with a weight, over the chosen or desirable completions: the RPO term of DPO
//! (arXiv 2404.19733, equation 1; trl 1.16.0, `trl/trainer/dpo_trainer.py`, `loss_type=["sigmoid", "sft"]`, line
//! 1495), `cpo_alpha` of CPO, and in ORPO the term that the comparison stands beside, which there scores the prompt
//! too.

use crate::Outcome;

/// Loss and gradient of completions with these summed log-probabilities.
///
/// `scored_tokens` counts the scored tokens of the whole effective batch, of which these completions
/// may be a part. Where it is 0 there is nothing to learn: loss and gradient are 0.
pub fn loss(policy: &[f64], scored_tokens: usize) -> Outcome {
    let scale = if scored_tokens == 0 { 0.0 } else { 1.0 / scored_tokens as f64 };
    Outcome {
        loss: policy.iter().map(|logp| -scale * logp).sum(),
        dlogps: vec![-scale; policy.len()],
        rewards: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_over_tokens_and_not_over_completions() {
        // 3 and 5 scored tokens: -(-6 - 2) / 8 = 1
        let outcome = loss(&[-6.0, -2.0], 8);
        assert_eq!(outcome, Outcome { loss: 1.0, dlogps: vec![-0.125, -0.125], rewards: vec![] });
    }

    #[test]
    fn parts_of_a_batch_add_up_to_the_whole() {
        let (first, second) = (loss(&[-6.0], 8), loss(&[-2.0], 8));
        assert_eq!(first.loss + second.loss, loss(&[-6.0, -2.0], 8).loss);
    }

    #[test]
    fn a_batch_without_scored_tokens_teaches_nothing() {
        assert_eq!(loss(&[0.0], 0), Outcome { loss: 0.0, dlogps: vec![0.0], rewards: vec![] });
    }
}
