//! The display on a terminal: how far, how fast, how well, and below it the last notes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use console::truncate_str;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use ::train::event::StepReport;
use ::train::fit::bytes;

use crate::curve::Curve;
use crate::terminal::{on_stderr, say, stderr_width};
use crate::words::{clock, count, number};

/// Notes that stay below the bar.
const NOTES: usize = 3;

/// Columns of a curve.
const CURVE: usize = 24;

/// Draws no more often than this: a step may take a millisecond.
const PAUSE: Duration = Duration::from_millis(80);

/// The display.
pub(crate) struct Live {
    bar: ProgressBar,
    planned_bytes: usize,
    notes: VecDeque<String>,
    /// Each step's loss and margin.
    loss: Curve,
    margins: Curve,
    /// Tokens and seconds of late, older ones fading.
    pace: (f64, f64),
    drawn: Option<Instant>,
    numbers: Vec<String>,
}

impl Live {
    /// A display of `steps` steps, `from` of them done; none where no terminal can show it.
    pub(crate) fn open(steps: usize, from: usize, planned_bytes: usize) -> Option<Live> {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr());
        if bar.is_hidden() {
            return None;
        }
        let style = ProgressStyle::with_template("{bar:32.cyan/dim} {pos}/{len}  {msg}").ok()?;
        bar.set_style(style.progress_chars("━╸─"));
        bar.set_position(from as u64);
        bar.set_message("the first step is under way");
        Some(Live {
            bar,
            planned_bytes,
            notes: VecDeque::new(),
            loss: Curve::new(),
            margins: Curve::new(),
            pace: (0.0, 0.0),
            drawn: None,
            numbers: Vec::new(),
        })
    }

    /// Shows a step. `left`: seconds until the last is done.
    pub(crate) fn step(&mut self, report: &StepReport, gone: f64, left: Option<f64>) {
        self.pace = (0.9 * self.pace.0 + report.tokens as f64, 0.9 * self.pace.1 + report.seconds);
        let metric = |name: &str| {
            report.metrics.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
        };
        for (curve, name) in [(&mut self.loss, "loss"), (&mut self.margins, "rewards/margins")] {
            if let Some(value) = metric(name) {
                curve.push(report.step as f64, value);
            }
        }
        let last = report.step == report.steps;
        if !last && self.drawn.is_some_and(|drawn| drawn.elapsed() < PAUSE) {
            return;
        }
        self.drawn = Some(Instant::now());
        let value = |name: &str, word: &str| {
            metric(name).map(|value| format!("{word} {:<9}", number(value)))
        };
        let words =
            |parts: Vec<Option<String>>| parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let left = left.map_or_else(String::new, |left| format!(", {} left", clock(left)));
        self.numbers = vec![
            format!("{:>3} %  {} gone{left}", 100 * report.step / report.steps.max(1), clock(gone)),
            words(vec![
                value("loss", "loss    "),
                Some(curve(self.loss.points())),
                Some(" ".to_owned()),
                value("kl", "kl"),
                value("grad_norm", "grad_norm"),
            ]),
        ];
        if let Some(margins) = value("rewards/margins", "margins ") {
            self.numbers.push(words(vec![
                Some(margins),
                Some(curve(self.margins.points())),
                Some(" ".to_owned()),
                value("rewards/accuracy", "accuracy"),
                value("auc", "auc"),
            ]));
        }
        self.numbers.push(format!(
            "{} tokens/s   memory {} of {} planned   learning_rate {}",
            count((self.pace.0 / self.pace.1.max(1e-9)) as usize),
            bytes(report.peak_bytes as u64),
            bytes(self.planned_bytes as u64),
            number(metric("learning_rate").unwrap_or(0.0)),
        ));
        self.bar.set_position(report.step as u64);
        self.draw();
    }

    /// Shows a note below the bar.
    pub(crate) fn note(&mut self, text: &str) {
        self.notes.push_back(text.to_owned());
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
        self.draw();
    }

    /// Shows a line that stays, above the bar.
    pub(crate) fn stay(&self, text: &str) {
        self.bar.suspend(|| say(text));
    }

    fn draw(&self) {
        let width = stderr_width().saturating_sub(1);
        let mut lines = self.numbers.iter();
        let mut message = lines.next().cloned().unwrap_or_default();
        for line in lines {
            message += &format!("\n  {}", truncate_str(line, width.saturating_sub(2), "…"));
        }
        for note in &self.notes {
            let note = format!("· {}", note.replace('\n', " "));
            let note = truncate_str(&note, width.saturating_sub(2), "…");
            message += &format!("\n  {}", on_stderr().dim().apply_to(note));
        }
        self.bar.set_message(message);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Values over the whole run so far as a row of bars; each is the mean of its share.
fn curve(values: &[(f64, f64)]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = values.len().min(CURVE);
    let means: Vec<f64> = (0..columns)
        .map(|i| &values[i * values.len() / columns..(i + 1) * values.len() / columns])
        .map(|part| part.iter().map(|point| point.1).sum::<f64>() / part.len() as f64)
        .collect();
    let finite = || means.iter().copied().filter(|mean| mean.is_finite());
    let (low, high) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let bar = |mean: &f64| match mean.is_finite() {
        true if high > low => BARS[((mean - low) / (high - low) * 7.0).round() as usize],
        true => BARS[3],
        false => '!',
    };
    format!("{:<CURVE$}", means.iter().map(bar).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_spans_its_values_and_marks_what_is_not_finite() {
        let of =
            |values: &[f64]| curve(&values.iter().map(|value| (0.0, *value)).collect::<Vec<_>>());
        assert_eq!(of(&[0.0, 0.5, 1.0]).trim_end(), "▁▅█");
        assert_eq!(of(&[1.0, f64::NAN, 1.0]).trim_end(), "▄!▄");
        assert_eq!(of(&(0..480).map(f64::from).collect::<Vec<_>>()).chars().count(), CURVE);
        assert_eq!(of(&[]).trim_end(), "");
    }
}
