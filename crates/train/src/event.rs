//! What a run tells whoever watches it.

use std::path::Path;

use data::Report;
use data::dataset::Rendered;
use serde::{Deserialize, Serialize};

use crate::fit::Fit;

/// Measurements by name, in a fixed order.
pub type Metrics = Vec<(String, f64)>;

/// Something that happened, in the order it happens.
pub enum Event<'a> {
    /// A choice that was made, and why.
    Note(String),
    /// Something that may spoil the result: what, and what to do about it.
    Warning(String),
    /// The data is read.
    Data {
        /// What was read, dropped and cut.
        train: &'a Report,
        /// The same of the held-out data.
        eval: Option<&'a Report>,
    },
    /// An example as the model will see it.
    Example(&'a Rendered),
    /// The run is known to fit.
    Planned(&'a Fit),
    /// Training begins, or goes on.
    Started {
        /// Optimizer steps of the whole run.
        steps: usize,
        /// Steps already done.
        from: usize,
    },
    /// An optimizer step is done.
    Step(&'a StepReport),
    /// Held-out data was measured.
    Evaluated {
        /// Optimizer steps done.
        step: usize,
        /// By name, each with `eval_` before it.
        metrics: &'a Metrics,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Optimizer steps done.
        step: usize,
        /// Where.
        folder: &'a Path,
    },
    /// Answers before and after were compared.
    Judged(&'a Judgement),
    /// The run is over and all its files are written.
    Finished(&'a Summary),
}

/// One optimizer step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// From 1.
    pub step: usize,
    /// Of the whole run.
    pub steps: usize,
    /// How often the data has been seen, as a fraction.
    pub epoch: f64,
    /// By name.
    pub metrics: Metrics,
    /// Prompt and completion tokens of the rated examples.
    pub tokens: usize,
    /// From the end of the step before to the end of this one.
    pub seconds: f64,
    /// Bytes of the arena in use at the most so far.
    pub peak_bytes: usize,
}

/// Answers to held-out prompts, before training and after.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judgement {
    /// One for each prompt.
    pub answers: Vec<Answer>,
    /// Whether there was a rule to judge by.
    pub judged: bool,
    /// How many are worth showing.
    pub show: usize,
}

/// One prompt's answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// As the person wrote it.
    pub prompt: String,
    /// The answer before training.
    pub before: String,
    /// The answer after it.
    pub after: String,
    /// Whether the rule holds for the answer before.
    pub desirable_before: bool,
    /// Whether the rule holds for the answer after.
    pub desirable_after: bool,
}

impl Judgement {
    /// Answers that follow the rule, before and after.
    pub fn desirable(&self) -> (usize, usize) {
        let count =
            |judge: fn(&Answer) -> bool| self.answers.iter().filter(|answer| judge(answer)).count();
        (count(|answer| answer.desirable_before), count(|answer| answer.desirable_after))
    }
}

/// `summary.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Optimizer steps done.
    pub steps: usize,
    /// Seconds of training in this process, without loading, evaluation and generation.
    pub seconds: f64,
    /// Prompt and completion tokens of the rated examples trained on in this process.
    pub rated_tokens: usize,
    /// Their quotient.
    pub rated_tokens_per_second: f64,
    /// What the plan said the arena would hold at the most.
    pub planned_peak_bytes: usize,
    /// What it held.
    pub peak_bytes: usize,
    /// Steps that were skipped because something in them was not finite.
    pub bad_batches: usize,
    /// The last step's metrics, and the last evaluation's.
    pub metrics: serde_json::Map<String, serde_json::Value>,
    /// Prompts that were judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts: Option<usize>,
    /// Answers that followed the rule before training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desirable_before: Option<usize>,
    /// Answers that follow it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desirable_after: Option<usize>,
}
