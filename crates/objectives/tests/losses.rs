//! Losses and gradients of TRL's own functions in f64: `fixtures/objectives/make_losses.py` drew log-probabilities and
//! asked `DPOTrainer._compute_loss`, `CPOTrainer.cpo_loss` and `ORPOTrainer.odds_ratio_loss` of trl 1.16.0 and
//! `BCOTrainer.bco_loss` of trl 1.13.0.

use objectives::bco::{self, RunningMean};
use objectives::dpo::{self, DpoConfig, LossType};
use objectives::metrics::{Averaging, LogpsAs, Step};
use objectives::simpo::{self, SimpoConfig};
use objectives::{Logps, Outcome, Pair, Rated, cpo, orpo};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Case {
    objective: String,
    #[serde(default)]
    loss_type: String,
    beta: f64,
    #[serde(default)]
    label_smoothing: f64,
    #[serde(default)]
    discopop_tau: f64,
    #[serde(default)]
    simpo_gamma: f64,
    chosen: Half,
    rejected: Half,
    loss: f64,
    metrics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Half {
    policy: Vec<f64>,
    reference: Vec<f64>,
    #[serde(default)]
    tokens: Vec<usize>,
    dlogps: Vec<f64>,
}

#[derive(Deserialize)]
struct Batch {
    beta: f64,
    desirable: Half,
    undesirable: Half,
    loss: f64,
    delta: f64,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/../../fixtures/objectives/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Half {
    fn logps(&self, index: usize) -> Logps {
        Logps {
            policy: self.policy[index],
            reference: self.reference[index],
            tokens: self.tokens[index],
        }
    }
}

impl Case {
    fn loss_type(&self) -> LossType {
        match self.loss_type.as_str() {
            "" | "sigmoid" => LossType::Sigmoid,
            "sigmoid_norm" => LossType::SigmoidNorm,
            "hinge" => LossType::Hinge,
            "ipo" => LossType::Ipo,
            "exo_pair" => LossType::ExoPair,
            "nca_pair" => LossType::NcaPair,
            "robust" => LossType::Robust,
            "bco_pair" => LossType::BcoPair,
            "sppo_hard" => LossType::SppoHard,
            "apo_zero" => LossType::ApoZero,
            "apo_down" => LossType::ApoDown,
            "discopop" => LossType::Discopop,
            other => panic!("{other}"),
        }
    }

    fn outcome(&self, pairs: &[Pair], scale: f64) -> Outcome {
        let Case { beta, label_smoothing, discopop_tau, simpo_gamma, .. } = *self;
        let config = DpoConfig { loss_type: self.loss_type(), beta, label_smoothing, discopop_tau };
        match self.objective.as_str() {
            "dpo" => dpo::loss(&config, pairs, scale),
            "cpo" => cpo::loss(&config, pairs, scale),
            "orpo" => orpo::loss(beta, pairs, scale),
            "simpo" => {
                simpo::loss(&SimpoConfig { beta, simpo_gamma, label_smoothing }, pairs, scale)
            }
            other => panic!("{other}"),
        }
    }
}

fn near(ours: f64, theirs: f64, what: &str) {
    let tolerance = 1e-13 * theirs.abs().max(1.0);
    assert!((ours - theirs).abs() <= tolerance, "{what}: {ours}, TRL has {theirs}");
}

#[test]
fn every_loss_of_pairs_is_trls() {
    let cases: Vec<Case> = read("pairs.json");
    assert_eq!(cases.len(), 21);
    for case in cases {
        let title = format!("{} {}", case.objective, case.loss_type);
        let count = case.chosen.policy.len();
        let pair =
            |index| Pair { chosen: case.chosen.logps(index), rejected: case.rejected.logps(index) };
        let pairs: Vec<Pair> = (0..count).map(pair).collect();
        let outcome = case.outcome(&pairs, 1.0 / count as f64);
        near(outcome.loss, case.loss, &title);
        for (index, dlogps) in outcome.dlogps.chunks_exact(2).enumerate() {
            near(dlogps[0], case.chosen.dlogps[index], &format!("{title}, chosen {index}"));
            near(dlogps[1], case.rejected.dlogps[index], &format!("{title}, rejected {index}"));
        }
        let averages = case.objective == "cpo" && cpo::averages(case.loss_type())
            || matches!(case.objective.as_str(), "orpo" | "simpo");
        let mut step = Step::new(Averaging::PerGroup);
        step.add_pairs(&pairs, if averages { LogpsAs::Mean } else { LogpsAs::Sum }, &outcome);
        let mean = |of: fn(&Pair) -> f64| pairs.iter().map(of).sum::<f64>() / count as f64;
        step.add_mean("log_odds_ratio", mean(orpo::log_odds_ratio), count as f64);
        step.add_mean("log_odds_chosen", mean(orpo::log_odds), count as f64);
        let report = BTreeMap::from_iter(step.report());
        for (name, theirs) in &case.metrics {
            if name == "rewards/accuracies" {
                let theirs = *theirs as f32; // TRL counts in f32
                assert_eq!(report["rewards/accuracy"] as f32, theirs, "{title}, {name}");
                continue;
            }
            near(report[name.as_str()], *theirs, &format!("{title}, {name}"));
        }
    }
}

#[test]
fn batches_of_bco_and_its_running_mean_are_trls() {
    let batches: Vec<Batch> = read("bco.json");
    assert_eq!(batches.len(), 4);
    let mut running = RunningMean::default();
    for (number, batch) in batches.iter().enumerate() {
        let class = |half: &Half, label: bool| {
            let logps = half.policy.iter().zip(&half.reference);
            let rated = |(&policy, &reference): (&f64, &f64)| Rated { label, policy, reference };
            logps.map(rated).collect::<Vec<_>>()
        };
        let rated = [class(&batch.desirable, true), class(&batch.undesirable, false)].concat();
        let rewards: Vec<f64> = rated.iter().map(|r| batch.beta * r.log_ratio()).collect();
        running.update(&rewards);
        near(running.mean, batch.delta, &format!("batch {number}, delta"));
        let outcome = bco::loss(batch.beta, &rated, running.mean, 1.0 / rated.len() as f64);
        near(outcome.loss, batch.loss, &format!("batch {number}"));
        let theirs = batch.desirable.dlogps.iter().chain(&batch.undesirable.dlogps);
        for (ours, theirs) in outcome.dlogps.iter().zip(theirs) {
            near(*ours, *theirs, &format!("batch {number}, dlogps"));
        }
    }
}
