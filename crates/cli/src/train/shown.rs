//! Every event of a run in words.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ::train::event::{Event, Judgement, Metrics, StepReport};
use ::train::fit::{self, Fit};
use ::train::recipe::Recipe;
use data::Report;
use data::dataset::Rendered;
use engine::memory::arena::Category;

use super::live::Live;
use crate::terminal::{on_stderr, say};
use crate::words::{clock, count, number, plain, things};

/// What of a run is shown.
pub(crate) struct Shown {
    log_every: usize,
    judgement: Option<Judgement>,
    learns_from_text: bool,
    /// When training began, and the steps done by then.
    began: Option<(Instant, usize)>,
    /// Tokens and seconds since the last line.
    since: (usize, f64),
    planned_bytes: usize,
    /// On a terminal.
    live: Option<Live>,
    /// The last step's line, and the last evaluation's: they stay when the display goes.
    last: (String, String),
    stop: Arc<AtomicBool>,
    stopping: bool,
}

impl Shown {
    /// Nothing yet.
    pub(crate) fn new(recipe: &Recipe, stop: Arc<AtomicBool>) -> Shown {
        Shown {
            log_every: recipe.train.log_every,
            judgement: None,
            learns_from_text: false,
            began: None,
            since: (0, 0.0),
            planned_bytes: 0,
            live: None,
            last: Default::default(),
            stop,
            stopping: false,
        }
    }

    /// Shows an event.
    pub(crate) fn tell(&mut self, event: Event<'_>) {
        if !self.stopping && self.stop.load(Ordering::Relaxed) {
            self.stopping = true;
            self.stay("stopping after this step; a second signal stops at once");
        }
        match event {
            Event::Note(text) => self.line(&plain(&text)),
            Event::Warning(text) => {
                let text = plain(&text);
                self.stay(&format!("{} {text}", on_stderr().yellow().bold().apply_to("warning:")));
            }
            Event::Data { train, eval } => {
                self.learns_from_text = !train.parts.iter().any(|part| part.read.conversational);
                self.line(&data_line("data", train));
                if let Some(eval) = eval {
                    self.line(&data_line("held-out data", eval));
                }
            }
            Event::Example(example) => self.line(&plain(&example_line(example))),
            Event::Planned(fit) => {
                self.planned_bytes = fit.simulation.peak_bytes;
                plan_lines(fit).iter().for_each(|line| self.line(line));
            }
            Event::Started { steps, from } => {
                self.began = Some((Instant::now(), from));
                self.line(&match from {
                    0 => format!("training: {}", things(steps, "step")),
                    _ => format!("training: {}, {from} of them done", things(steps, "step")),
                });
                self.live = Live::open(steps, from, self.planned_bytes);
            }
            Event::Step(report) => self.step(report),
            Event::Evaluated { step, metrics } => {
                self.line(&format!(
                    "held-out data after step {step}: {}",
                    measured(metrics, "eval_")
                ));
            }
            Event::Saved { step, folder } => {
                self.line(&format!("saved step {step} in '{}'", folder.display()));
            }
            Event::Judged(judgement) => self.judgement = Some(judgement.clone()),
            Event::Finished(_) => {}
        }
    }

    /// Ends the display; what it said last stays.
    pub(crate) fn close(&mut self) {
        if self.live.take().is_some() {
            for line in [&self.last.0, &self.last.1].into_iter().filter(|line| !line.is_empty()) {
                say(line);
            }
        }
    }

    /// Whether all that is learnt from is plain text.
    pub(crate) fn learns_from_text(&self) -> bool {
        self.learns_from_text
    }

    /// Answers before and after, if there are some.
    pub(crate) fn judgement(&self) -> Option<&Judgement> {
        self.judgement.as_ref()
    }

    fn step(&mut self, report: &StepReport) {
        let left = self.left(report);
        if let Some(live) = &mut self.live {
            let gone = self.began.map_or(0.0, |(began, _)| began.elapsed().as_secs_f64());
            live.step(report, gone, left);
        }
        self.since = (self.since.0 + report.tokens, self.since.1 + report.seconds);
        let shown = report.step.is_multiple_of(self.log_every) || report.step == 1;
        if !shown && report.step != report.steps {
            return;
        }
        let (tokens, seconds) = std::mem::take(&mut self.since);
        let width = report.steps.to_string().len();
        let line = format!(
            "step {:>width$}/{}  {}  {} tokens/s  {}{}",
            report.step,
            report.steps,
            measured(&report.metrics, ""),
            count((tokens as f64 / seconds.max(1e-9)) as usize),
            fit::bytes(report.peak_bytes as u64),
            left.map_or_else(String::new, |left| format!("  {} left", clock(left))),
        );
        if self.live.is_none() {
            say(&line);
        }
        self.last.0 = line;
    }

    /// Seconds until the last step is done.
    fn left(&self, report: &StepReport) -> Option<f64> {
        let (began, from) = self.began?;
        let done = report.step.saturating_sub(from);
        let rest = report.steps.saturating_sub(report.step);
        (done > 0 && rest > 0).then(|| began.elapsed().as_secs_f64() / done as f64 * rest as f64)
    }

    /// A line that may go once others have come.
    fn line(&mut self, text: &str) {
        match &mut self.live {
            Some(live) => live.note(text),
            None => say(text),
        }
    }

    /// A line that stays.
    fn stay(&self, text: &str) {
        match &self.live {
            Some(live) => live.stay(text),
            None => say(text),
        }
    }
}

/// The metrics worth a place in a line, with the names people use for them.
fn measured(metrics: &Metrics, prefix: &str) -> String {
    let shown = [
        ("loss", "loss"),
        ("rewards/margins", "margins"),
        ("kl", "kl"),
        ("rewards/accuracy", "accuracy"),
        ("auc", "auc"),
        ("grad_norm", "grad_norm"),
    ];
    let value = |name: &str| {
        let found = metrics.iter().find(|(known, _)| known.strip_prefix(prefix) == Some(name));
        found.map(|(_, value)| *value)
    };
    let words = shown
        .iter()
        .filter_map(|(name, word)| value(name).map(|value| format!("{word} {}", number(value))));
    words.collect::<Vec<_>>().join("  ")
}

fn data_line(what: &str, report: &Report) -> String {
    format!(
        "{what}: {} ({} up, {} down), {} distinct prompts, {} tokens, at most {} in one",
        things(report.examples, "example"),
        count(report.desirable),
        count(report.undesirable),
        count(report.distinct_prompts),
        count(report.tokens.total),
        count(report.tokens.max),
    )
}

/// Characters of a prompt or completion that are shown; `prospect data` shows all.
const EXCERPT: usize = 120;

/// What the template made of the first row, so that a wrong one is seen before hours go by.
fn example_line(example: &Rendered) -> String {
    let label = if example.label { "thumbs up" } else { "thumbs down" };
    // The end of a prompt says how answers begin, the beginning of a completion how it goes on.
    let skipped = example.prompt.chars().count().saturating_sub(EXCERPT);
    let one_line = |text: String| text.replace('\n', "⏎");
    let prompt = one_line(example.prompt.chars().skip(skipped).collect());
    let completion: String = example.completion.chars().take(EXCERPT).collect();
    let (before, after) = (
        if skipped > 0 { "…" } else { "" },
        if completion.len() < example.completion.len() { "…" } else { "" },
    );
    let completion = one_line(completion);
    format!("example: {} ({label}) {before}{prompt}⟦{completion}{after}⟧", example.source)
}

fn plan_lines(fit: &Fit) -> Vec<String> {
    let simulation = &fit.simulation;
    let parts = Category::ALL.iter().zip(simulation.by_category);
    let parts: Vec<String> = parts
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(category, bytes)| format!("{} {}", category.name(), fit::bytes(bytes as u64)))
        .collect();
    vec![
        format!("policy: {}", fit.reason),
        format!(
            "memory: {} at its peak{} ({})",
            fit::bytes(simulation.peak_bytes as u64),
            fit.limit
                .map_or_else(String::new, |limit| format!(" of {} allowed", fit::bytes(limit))),
            parts.join(", "),
        ),
    ]
}
