//! Every micro-batch of two TRL runs, from its log-probabilities to its loss, and the log TRL wrote.
//!
//! `fixtures/objectives` holds what trl 1.16.0 (torch 2.15.0, peft 0.21.2, f32 on a CPU) computed for a
//! 2-layer model over four optimizer steps: 14 rows, batch 4, accumulation 2, so the last micro-batch of
//! an epoch has two rows; an evaluation of six rows after each epoch.

use objectives::kto::{self, KtoConfig};
use objectives::metrics::{Averaging, Baseline, Step};
use objectives::{Outcome, Rated, apo_zero_unpaired};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Fixture {
    args: Args,
    microbatches: Vec<MicroBatch>,
    log_history: Vec<BTreeMap<String, f64>>,
}

#[derive(Deserialize)]
struct Args {
    beta: f64,
    desirable_weight: f64,
    undesirable_weight: f64,
    gradient_accumulation_steps: usize,
}

#[derive(Deserialize)]
struct MicroBatch {
    train: bool,
    label: Vec<bool>,
    policy_logps: Vec<f64>,
    ref_logps: Vec<f64>,
    #[serde(rename = "policy_KL_logps")]
    policy_kl_logps: Option<Vec<f64>>,
    #[serde(rename = "ref_KL_logps")]
    ref_kl_logps: Option<Vec<f64>>,
    kl: f64,
    loss_trl: f64,
}

impl MicroBatch {
    fn rated(&self) -> Vec<Rated> {
        let logps = self.policy_logps.iter().zip(&self.ref_logps);
        let rated = self.label.iter().zip(logps);
        rated.map(|(&label, (&policy, &reference))| Rated { label, policy, reference }).collect()
    }

    /// The baseline, where the objective has one, and the outcome, each example scaled by `scale`.
    fn outcome(&self, config: &KtoConfig, scale: f64) -> (Baseline, Outcome) {
        match (&self.policy_kl_logps, &self.ref_kl_logps) {
            (Some(policy), Some(reference)) => {
                let kl = kto::kl(policy, reference);
                (Baseline::Kl(kl), kto::loss(config, &self.rated(), kl.clamped, scale))
            }
            _ => (Baseline::Zero, apo_zero_unpaired::loss(config, &self.rated(), scale)),
        }
    }
}

fn read(objective: &str) -> (Fixture, KtoConfig) {
    let path = format!(
        "{}/../../fixtures/objectives/fixture_{objective}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let fixture: Fixture =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let Args { beta, desirable_weight, undesirable_weight, .. } = fixture.args;
    (fixture, KtoConfig { beta, desirable_weight, undesirable_weight })
}

fn check_losses(objective: &str) {
    let (fixture, config) = read(objective);
    assert_eq!(fixture.microbatches.len(), 12);
    for (index, batch) in fixture.microbatches.iter().enumerate() {
        let (baseline, outcome) = batch.outcome(&config, 1.0 / batch.label.len() as f64);
        let kl = if let Baseline::Kl(kl) = baseline { kl.clamped } else { 0.0 };
        assert!((kl - batch.kl).abs() < 1e-6, "micro-batch {index}: kl {kl}, TRL {}", batch.kl);
        let difference = (outcome.loss - batch.loss_trl).abs();
        assert!(
            difference < 1e-6,
            "micro-batch {index}: loss {}, TRL {}",
            outcome.loss,
            batch.loss_trl
        );
    }
}

/// Replays the run under TRL's averaging and compares each entry of its log.
fn check_log(objective: &str) {
    let (fixture, config) = read(objective);
    let mut training = fixture.microbatches.iter().filter(|batch| batch.train).peekable();
    let mut evaluation = fixture.microbatches.iter().filter(|batch| !batch.train);
    for (index, entry) in fixture.log_history.iter().enumerate() {
        let is_training = entry.contains_key("loss");
        let groups: Vec<_> = if is_training {
            training.by_ref().take(fixture.args.gradient_accumulation_steps).collect()
        } else {
            evaluation.by_ref().take(2).collect()
        };
        let examples: usize = groups.iter().map(|batch| batch.label.len()).sum();
        let mut step = Step::new(Averaging::PerGroup);
        for batch in &groups {
            // In training a mean of means, in evaluation the mean over all examples.
            let share = if is_training { groups.len() * batch.label.len() } else { examples };
            let (baseline, outcome) = batch.outcome(&config, 1.0 / share as f64);
            step.add_rated(&batch.rated(), baseline, &outcome);
        }
        let report = BTreeMap::from_iter(step.report());
        for (name, expected) in entry.iter().filter(|(name, _)| *name != "step") {
            let ours = report[name.trim_start_matches("eval_")];
            // TRL's evaluation ran in other batches than training and rounds to f32 on the way.
            let tolerance = 2e-6 * expected.abs().max(1.0);
            assert!(
                (ours - expected).abs() < tolerance,
                "entry {index}, {name}: {ours}, TRL {expected}"
            );
        }
    }
    assert!(training.next().is_none(), "every micro-batch of the run belongs to an entry");
}

#[test]
fn kto_losses_are_those_of_trl() {
    check_losses("kto");
}

#[test]
fn apo_zero_unpaired_losses_are_those_of_trl() {
    check_losses("apo_zero_unpaired");
}

#[test]
fn kto_metrics_averaged_per_group_are_the_log_of_trl() {
    check_log("kto");
}

#[test]
fn apo_zero_unpaired_metrics_averaged_per_group_are_the_log_of_trl() {
    check_log("apo_zero_unpaired");
}
