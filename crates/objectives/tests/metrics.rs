//! What a step reports, worked by hand.

use objectives::dpo::{self, DpoConfig, LossType};
use objectives::kto::{self, KtoConfig};
use objectives::metrics::{Averaging, Baseline, LogpsAs, Step, auc};
use objectives::{Logps, Pair, Rated, apo_zero_unpaired, bco, sft};
use std::collections::BTreeMap;

const CONFIG: KtoConfig = KtoConfig { beta: 0.5, desirable_weight: 1.0, undesirable_weight: 1.0 };

/// A rated completion with log-ratio `r`.
fn rated(label: bool, policy: f64, r: f64) -> Rated {
    Rated { label, policy, reference: policy - r }
}

fn report(step: &Step) -> BTreeMap<&'static str, f64> {
    BTreeMap::from_iter(step.report())
}

/// Two groups: KL 1 with rewards 1, 2 | -1 and KL -2 clamped to 0 with reward 3 | none.
fn two_groups(averaging: Averaging) -> BTreeMap<&'static str, f64> {
    let mut step = Step::new(averaging);
    let first = [rated(true, -10.0, 2.0), rated(true, -20.0, 4.0), rated(false, -30.0, -2.0)];
    let kl = kto::kl(&[-4.0, -4.0], &[-5.0, -5.0]);
    step.add_rated(&first, Baseline::Kl(kl), &kto::loss(&CONFIG, &first, kl.clamped, 0.25));
    let second = [rated(true, -40.0, 6.0)];
    let kl = kto::kl(&[-4.0], &[-2.0]);
    step.add_rated(&second, Baseline::Kl(kl), &kto::loss(&CONFIG, &second, kl.clamped, 0.25));
    report(&step)
}

#[test]
fn per_example_every_completion_counts_alike() {
    let metrics = two_groups(Averaging::PerExample);
    assert_eq!(metrics["rewards/chosen"], 2.0); // (1 + 2 + 3) / 3
    assert_eq!(metrics["rewards/rejected"], -1.0);
    assert_eq!(metrics["rewards/margins"], 3.0);
    assert_eq!(metrics["logps/chosen"], -70.0 / 3.0);
    assert_eq!(metrics["logps/rejected"], -30.0);
    assert_eq!(metrics["kl"], 0.75); // (3 * 1 + 1 * 0) / 4
    assert_eq!(metrics["kl_raw"], 0.25); // (3 * 1 - 1 * 2) / 4
    assert_eq!(metrics["kl_clamped"], 0.5);
    assert_eq!(metrics["rewards/accuracy"], 1.0);
    assert_eq!(metrics["auc"], 1.0);
}

#[test]
fn per_group_every_group_that_has_the_class_counts_alike() {
    let metrics = two_groups(Averaging::PerGroup);
    assert_eq!(metrics["rewards/chosen"], 2.25); // (1.5 + 3) / 2
    assert_eq!(metrics["rewards/rejected"], -1.0); // the second group has none
    assert_eq!(metrics["rewards/margins"], 2.5); // the first group alone: 1.5 - -1
    assert_eq!(metrics["logps/chosen"], -27.5); // (-15 - 40) / 2
    assert_eq!(metrics["kl"], 0.5);
    assert_eq!(metrics["kl_raw"], -0.5);
}

#[test]
fn the_loss_is_the_sum_of_the_groups_as_scaled() {
    // z = 0.5 * (r - KL) * s: (0.5, 1.5, 1.5) and 3; l = sigmoid(-z).
    let sum = [0.5_f64, 1.5, 1.5, 3.0].iter().map(|z| 1.0 / (1.0 + z.exp())).sum::<f64>();
    assert!((two_groups(Averaging::PerExample)["loss"] - sum / 4.0).abs() < 1e-15);
}

#[test]
fn accuracy_is_judged_against_the_baseline_and_equality_is_wrong() {
    let group = [
        rated(true, -9.0, 1.0),
        rated(true, -9.0, 1.5),
        rated(false, -9.0, 0.5),
        rated(false, -9.0, 3.0),
    ];
    let kl = kto::kl(&[-4.0], &[-5.0]); // 1
    let mut step = Step::new(Averaging::PerExample);
    step.add_rated(&group, Baseline::Kl(kl), &kto::loss(&CONFIG, &group, kl.clamped, 0.25));
    assert_eq!(report(&step)["rewards/accuracy"], 0.5);
}

#[test]
fn a_class_that_did_not_occur_has_no_names() {
    let group = [rated(false, -9.0, 1.0)];
    let mut step = Step::new(Averaging::PerExample);
    step.add_rated(&group, Baseline::Zero, &apo_zero_unpaired::loss(&CONFIG, &group, 1.0));
    let names: Vec<_> = step.report().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["loss", "kl", "rewards/rejected", "rewards/accuracy", "logps/rejected"]);
    assert_eq!(report(&step)["kl"], 0.0);
}

#[test]
fn pairs_are_right_where_the_chosen_reward_is_larger() {
    let logps = |policy: f64, r: f64| Logps { policy, reference: policy - r, tokens: 2 };
    let pairs = [
        Pair { chosen: logps(-10.0, 2.0), rejected: logps(-12.0, -2.0) },
        Pair { chosen: logps(-20.0, -4.0), rejected: logps(-22.0, 1.0) },
    ];
    let mut step = Step::new(Averaging::PerExample);
    let config = DpoConfig {
        loss_type: LossType::Sigmoid,
        beta: 0.5,
        label_smoothing: 0.0,
        discopop_tau: 0.05,
    };
    step.add_pairs(&pairs, LogpsAs::Sum, &dpo::loss(&config, &pairs, 0.5));
    let metrics = report(&step);
    assert_eq!(metrics["rewards/chosen"], -0.5);
    assert_eq!(metrics["rewards/rejected"], -0.25);
    assert_eq!(metrics["rewards/margins"], -0.25);
    assert_eq!(metrics["rewards/accuracy"], 0.5);
    assert_eq!(metrics["auc"], 0.5); // chosen 1, -2 over rejected -1, 0.5: two of four
    assert_eq!(metrics["logps/rejected"], -17.0);
    assert!(!metrics.contains_key("kl"));
}

#[test]
fn objectives_of_means_report_means() {
    let logps = |policy: f64, tokens: usize| Logps { policy, reference: 0.0, tokens };
    let pairs = [Pair { chosen: logps(-4.0, 2), rejected: logps(-9.0, 3) }];
    let outcome = objectives::orpo::loss(0.5, &pairs, 1.0);
    let mut step = Step::new(Averaging::PerExample);
    step.add_pairs(&pairs, LogpsAs::Mean, &outcome);
    let metrics = report(&step);
    assert_eq!((metrics["logps/chosen"], metrics["logps/rejected"]), (-2.0, -3.0));
    assert_eq!(metrics["rewards/margins"], 0.5);
}

#[test]
fn bco_is_judged_by_its_running_mean() {
    // rewards 1, 3, 1 against 2: the third is undesirable and below, the first desirable and below.
    let group = [rated(true, -9.0, 2.0), rated(true, -9.0, 6.0), rated(false, -9.0, 2.0)];
    let mut step = Step::new(Averaging::PerExample);
    step.add_rated(&group, Baseline::Delta(2.0), &bco::loss(0.5, &group, 2.0, 1.0));
    let metrics = report(&step);
    assert_eq!(metrics["delta"], 2.0);
    assert_eq!(metrics["rewards/accuracy"], 2.0 / 3.0);
    assert!(!metrics.contains_key("kl"));
}

#[test]
fn further_means_weigh_tokens_or_groups() {
    let metrics = |averaging| {
        let mut step = Step::new(averaging);
        step.add_mean("nll_loss", 1.0, 3.0);
        step.add_mean("nll_loss", 3.0, 1.0);
        step.add_loss(0.25);
        report(&step)
    };
    assert_eq!(metrics(Averaging::PerExample)["nll_loss"], 1.5);
    assert_eq!(metrics(Averaging::PerGroup)["nll_loss"], 2.0);
    assert_eq!(metrics(Averaging::PerGroup)["loss"], 0.25);
}

#[test]
fn sft_reports_its_loss_alone() {
    let mut step = Step::new(Averaging::PerExample);
    step.add_loss(sft::loss(&[-6.0], 8).loss);
    step.add_loss(sft::loss(&[-2.0], 8).loss);
    assert_eq!(step.report(), [("loss", 1.0)]);
}

#[test]
fn auc_counts_pairs_and_half_of_the_ties() {
    // 3 over 1, 2, 2: 3. 2 over them: 1 + half of 2. So (3 + 2) / 6.
    assert_eq!(auc(&[3.0, 2.0], &[2.0, 1.0, 2.0]), Some(5.0 / 6.0));
    assert_eq!(auc(&[1.0, 1.0], &[1.0]), Some(0.5));
    assert_eq!(auc(&[], &[1.0]), None);
    assert!(auc(&[f64::NAN], &[1.0]).is_some_and(f64::is_nan));
}
