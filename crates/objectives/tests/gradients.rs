//! Every `dlogps` against a fourth-order finite difference of `loss`, in f64.

use objectives::dpo::{self, DpoConfig, Pair};
use objectives::kto::{self, KtoConfig};
use objectives::{Logps, Outcome, Rated, apo_zero_unpaired, sft};

/// `(f(x-2h) - 8 f(x-h) + 8 f(x+h) - f(x+2h)) / 12h` for each log-probability in turn.
fn check(policy: &[f64], objective: impl Fn(&[f64]) -> Outcome) {
    let step = 1e-3;
    let dlogps = objective(policy).dlogps;
    assert_eq!(dlogps.len(), policy.len());
    for index in 0..policy.len() {
        let at = |shift: f64| {
            let mut moved = policy.to_vec();
            moved[index] += shift;
            objective(&moved).loss
        };
        let slope =
            (at(-2.0 * step) - 8.0 * at(-step) + 8.0 * at(step) - at(2.0 * step)) / (12.0 * step);
        let difference = (slope - dlogps[index]).abs();
        assert!(difference < 1e-10, "completion {index}: slope {slope}, dlogps {}", dlogps[index]);
        assert!(
            dlogps[index] != 0.0,
            "completion {index} is on a slope, so that the check can fail"
        );
    }
}

const POLICY: [f64; 7] = [-20.0, -31.5, -8.25, -44.0, -12.5, -27.75, -19.0];
const REFERENCE: [f64; 7] = [-21.5, -30.0, -8.0, -40.0, -15.0, -27.75, -22.5];
const LABELS: [bool; 7] = [true, false, false, true, true, false, false];

fn rated(policy: &[f64]) -> Vec<Rated> {
    let examples = policy.iter().zip(REFERENCE).zip(LABELS);
    examples.map(|((&policy, reference), label)| Rated { label, policy, reference }).collect()
}

#[test]
fn kto_against_several_baselines() {
    let config = KtoConfig { beta: 0.3, desirable_weight: 1.25, undesirable_weight: 0.75 };
    for kl in [0.0, 0.7, 4.0] {
        check(&POLICY, |policy| kto::loss(&config, &rated(policy), kl, 1.0 / 7.0));
    }
}

#[test]
fn apo_zero_unpaired_with_unequal_weights() {
    let config = KtoConfig { beta: 0.3, desirable_weight: 1.25, undesirable_weight: 0.75 };
    check(&POLICY, |policy| apo_zero_unpaired::loss(&config, &rated(policy), 1.0 / 7.0));
}

#[test]
fn dpo_with_and_without_label_smoothing() {
    for label_smoothing in [0.0, 0.2] {
        let config = DpoConfig { beta: 0.3, label_smoothing };
        check(&POLICY[..6], |policy| {
            let logps = |index: usize| Logps { policy: policy[index], reference: REFERENCE[index] };
            let pairs: Vec<_> = (0..3)
                .map(|index| Pair { chosen: logps(2 * index), rejected: logps(2 * index + 1) })
                .collect();
            dpo::loss(&config, &pairs, 1.0 / 3.0)
        });
    }
}

#[test]
fn sft_over_the_tokens_of_a_larger_batch() {
    check(&POLICY, |policy| sft::loss(policy, 113));
}
