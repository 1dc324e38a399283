//! Every `dlogps` against a fourth-order finite difference of `loss`, in f64.

use objectives::dpo::{self, DpoConfig, LossType};
use objectives::kto::{self, KtoConfig};
use objectives::simpo::{self, SimpoConfig};
use objectives::{Logps, Outcome, Pair, Rated, apo_zero_unpaired, bco, cpo, orpo, sft};

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
fn bco_against_several_running_means() {
    for delta in [0.0, 0.7, -1.0] {
        check(&POLICY, |policy| bco::loss(0.3, &rated(policy), delta, 1.0 / 7.0));
    }
}

/// Three pairs of completions of 3 to 13 tokens.
fn pairs(policy: &[f64]) -> Vec<Pair> {
    let logps = |index: usize| Logps {
        policy: policy[index],
        reference: REFERENCE[index] - 0.25 * index as f64,
        tokens: 3 + 2 * index,
    };
    let pair = |index: usize| Pair { chosen: logps(2 * index), rejected: logps(2 * index + 1) };
    (0..3).map(pair).collect()
}

#[test]
fn dpo_with_each_loss_type() {
    let cases = [
        (LossType::Sigmoid, 0.0),
        (LossType::Sigmoid, 0.2),
        (LossType::SigmoidNorm, 0.0),
        (LossType::Ipo, 0.0),
        (LossType::ExoPair, 0.01),
        (LossType::NcaPair, 0.0),
        (LossType::Robust, 0.2),
        (LossType::BcoPair, 0.0),
        (LossType::SppoHard, 0.0),
        (LossType::ApoZero, 0.0),
        (LossType::ApoDown, 0.0),
        (LossType::Discopop, 0.0),
    ];
    for (loss_type, label_smoothing) in cases {
        let config = DpoConfig { loss_type, beta: 0.3, label_smoothing, discopop_tau: 0.8 };
        check(&POLICY[..6], |policy| dpo::loss(&config, &pairs(policy), 1.0 / 3.0));
    }
}

#[test]
fn hinge_before_its_bend() {
    // With this beta no pair reaches the margin.
    let config = DpoConfig {
        loss_type: LossType::Hinge,
        beta: 0.02,
        label_smoothing: 0.0,
        discopop_tau: 0.05,
    };
    check(&POLICY[..6], |policy| dpo::loss(&config, &pairs(policy), 1.0 / 3.0));
    check(&POLICY[..6], |policy| cpo::loss(&config, &pairs(policy), 1.0 / 3.0));
}

#[test]
fn orpo_with_completions_of_unequal_lengths() {
    check(&POLICY[..6], |policy| orpo::loss(0.3, &pairs(policy), 1.0 / 3.0));
}

#[test]
fn simpo_with_a_margin_and_with_label_smoothing() {
    for label_smoothing in [0.0, 0.2] {
        let config = SimpoConfig { beta: 2.0, simpo_gamma: 0.8, label_smoothing };
        check(&POLICY[..6], |policy| simpo::loss(&config, &pairs(policy), 1.0 / 3.0));
    }
}

#[test]
fn cpo_with_each_loss_type() {
    for (loss_type, label_smoothing) in
        [(LossType::Sigmoid, 0.0), (LossType::Sigmoid, 0.1), (LossType::Ipo, 0.0)]
    {
        let config = DpoConfig { loss_type, beta: 0.03, label_smoothing, discopop_tau: 0.05 };
        check(&POLICY[..6], |policy| cpo::loss(&config, &pairs(policy), 1.0 / 3.0));
    }
}

#[test]
fn sft_over_the_tokens_of_a_larger_batch() {
    check(&POLICY, |policy| sft::loss(policy, 113));
}
