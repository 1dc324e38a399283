//! `prospect train`: a run as somebody watches it.
//!
//! ```text
//! shown        every event in words        live    the display on a terminal
//! conclusion   before and after, the counts, what to try next
//! ```

mod conclusion;
mod live;
mod shown;

use std::sync::Arc;

use ::train::error::Result;
use ::train::event::Event;
use ::train::folder;
use ::train::run::{self, Ending};

use crate::args;
use crate::ending::Done;
use crate::hub;
use crate::report::Report;
use crate::signals::Signals;
use crate::terminal;
use crate::threads;
use shown::Shown;

/// Trains.
pub(crate) fn run(arguments: &args::Train) -> Result<Done> {
    let signals = Signals::listen()?;
    let recipe = hub::recipe(&arguments.recipe)?;
    let recipe = folder::settle(recipe, arguments.resume);
    threads::start(&recipe.train)?;
    let mut shown = Shown::new(&recipe, Arc::clone(&signals.stop));
    let mut reporter = Reporter::default();
    let mut report = Report::default();
    let ending = run::run(recipe.clone(), arguments.resume, &signals.stop, &mut |event| {
        let now = reporter.is_due(&event);
        shown.tell(event);
        if now && let Err(error) = report.write(&recipe.output) {
            shown.tell(Event::Warning(error.to_string()));
        }
    })?;
    shown.close();
    match ending {
        Ending::Finished(summary) => {
            let (typed, from_text) = (&arguments.recipe.recipe, shown.learns_from_text());
            conclusion::conclude(&recipe, typed, &summary, shown.judgement(), from_text);
            Ok(Done::Well)
        }
        Ending::Stopped { step, checkpoint } => {
            terminal::say(&format!(
                "stopped after step {step}, all of it is in '{}'\n  hint: go on by the same command with --resume",
                checkpoint.display()
            ));
            Ok(Done::Stopped { signal: signals.signal() })
        }
    }
}

/// When the report is written: with every checkpoint and evaluation, and at the end.
#[derive(Default)]
struct Reporter {
    /// An evaluation is not in metrics.jsonl yet when it is told of.
    evaluated: bool,
}

impl Reporter {
    /// Whether it is time.
    fn is_due(&mut self, event: &Event<'_>) -> bool {
        match event {
            Event::Evaluated { .. } => {
                self.evaluated = true;
                false
            }
            Event::Step(_) => std::mem::take(&mut self.evaluated),
            Event::Saved { .. } | Event::Finished(_) => {
                self.evaluated = false;
                true
            }
            _ => false,
        }
    }
}
