//! The loop over steps, and what belongs to it: metrics, warnings, checkpoints, the wish to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use data::PackedStep;
use engine::device::Device;
use serde_json::json;

use super::Ending;
use crate::checkpoint::Contents;
use crate::error::{Error, Result};
use crate::event::{Event, Metrics, StepReport};
use crate::fit::{self, Fit};
use crate::folder::Folder;
use crate::inputs::Inputs;
use crate::session::Session;
use crate::watch::Watch;
use crate::writer::{Saved, Writer};

/// What a run has done.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    /// Optimizer steps done.
    pub(super) steps: usize,
    /// Steps that were skipped.
    pub(super) bad_batches: usize,
}

/// What a run is made of.
pub(super) struct Run<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) folder: &'a Folder,
    pub(super) fit: &'a Fit,
    pub(super) device: &'a Device,
    /// Whether checkpoints are copied and written while training goes on.
    pub(super) copies: bool,
    pub(super) tell: &'a mut dyn FnMut(Event<'_>),
    pub(super) stop: &'a AtomicBool,
    pub(super) progress: Progress,
}

/// What training itself has measured.
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) tokens: usize,
    /// The last step's metrics, and the last evaluation's.
    pub(super) last: Metrics,
}

impl Run<'_> {
    pub(super) fn train(
        mut self,
        session: &mut Session<'_>,
        before: Option<Vec<String>>,
    ) -> Result<Ending> {
        let train = &self.inputs.recipe.train;
        let steps = session.steps();
        let mut writer = Writer::open(self.folder.path(), train.keep_checkpoints)?;
        let mut watch = Watch::new(&self.inputs.recipe, steps);
        let mut measured = Measured { seconds: 0.0, tokens: 0, last: Metrics::new() };
        self.folder.each_step(|step, metrics| {
            watch.see(step, metrics);
            measured.last.clone_from(metrics);
        })?;
        (self.tell)(Event::Started { steps, from: self.progress.steps });
        let mut saved = Instant::now();
        while self.progress.steps < steps {
            let warnings = self.step(session, steps, &mut measured, &mut watch)?;
            let step = self.progress.steps;
            for warning in warnings {
                self.warn(step, warning)?;
            }
            let written = writer.written()?;
            self.tell_saved(written);
            let due = train.save_every > 0 && step.is_multiple_of(train.save_every);
            let late = train.save_minutes > 0.0
                && saved.elapsed().as_secs_f64() >= 60.0 * train.save_minutes;
            let stopping = self.stop.load(Ordering::Relaxed) && step < steps;
            if due || late || stopping || step == steps {
                self.save(session, &mut writer)?;
                saved = Instant::now();
            }
            if stopping {
                let written = writer.wait()?;
                self.tell_saved(written);
                let checkpoint = self.folder.path().join(format!("checkpoint-{step}"));
                return Ok(Ending::Stopped { step, checkpoint });
            }
        }
        let written = writer.wait()?;
        self.tell_saved(written);
        drop(writer);
        self.finish(session, before, &measured)
    }

    /// One step with its metrics; gives what there is to warn of.
    fn step(
        &mut self,
        session: &mut Session<'_>,
        steps: usize,
        measured: &mut Measured,
        watch: &mut Watch,
    ) -> Result<Vec<String>> {
        let train = &self.inputs.recipe.train;
        let start = Instant::now();
        let packed = session.packed(self.progress.steps);
        let stepped = session.step(self.progress.steps, &packed)?;
        self.progress.steps += 1;
        let step = self.progress.steps;
        let report = StepReport {
            step,
            steps,
            epoch: session.epochs_after(step),
            metrics: stepped.metrics,
            tokens: fit::tokens(&packed),
            seconds: start.elapsed().as_secs_f64(),
            peak_bytes: self.device.peak_bytes(),
        };
        measured.seconds += report.seconds;
        measured.tokens += report.tokens;
        (self.tell)(Event::Step(&report));
        let warnings = watch.see(step, &report.metrics);
        measured.last = report.metrics;
        if !stepped.applied {
            self.note_bad_batch(&packed, step)?;
        }
        let measure =
            (train.eval_every > 0 && step.is_multiple_of(train.eval_every)) || step == steps;
        if measure && let Some(metrics) = session.evaluate()? {
            (self.tell)(Event::Evaluated { step, metrics: &metrics });
            measured.last.extend(metrics);
        }
        self.folder.append_metrics(step, report.epoch, &measured.last)?;
        Ok(warnings)
    }

    /// Says it, and writes it down.
    fn warn(&mut self, step: usize, text: String) -> Result<()> {
        self.folder.append_warning(step, &text)?;
        (self.tell)(Event::Warning(text));
        Ok(())
    }

    /// Has the checkpoint of this step written, once the one before is.
    fn save(&mut self, session: &mut Session<'_>, writer: &mut Writer) -> Result<()> {
        let written = writer.wait()?;
        self.tell_saved(written);
        let Progress { steps: step, bad_batches } = self.progress;
        let base = self.inputs.folder.display().to_string();
        let contents = Contents::of(&mut session.learner, step, bad_batches, &base);
        if self.copies {
            return writer.start(step, contents.copied()?);
        }
        let place =
            contents.write(self.folder.path(), self.inputs.recipe.train.keep_checkpoints)?;
        self.tell_saved(Some(Saved { step, place }));
        Ok(())
    }

    fn tell_saved(&mut self, saved: Option<Saved>) {
        if let Some(Saved { step, place }) = saved {
            (self.tell)(Event::Saved { step, folder: &place });
        }
    }

    /// Writes down which rows made a step not finite, and gives up where there were too many.
    fn note_bad_batch(&mut self, packed: &PackedStep, step: usize) -> Result<()> {
        self.progress.bad_batches += 1;
        let examples = packed.groups.iter().flat_map(|group| &group.examples);
        let rows: Vec<String> =
            examples.map(|example| self.inputs.dataset.source(example.index).to_string()).collect();
        self.folder
            .append("bad-batches.jsonl", &json!({"step": step, "rows": rows}).to_string())?;
        let (count, allowed) =
            (self.progress.bad_batches, self.inputs.recipe.train.max_bad_batches);
        let so_far = match count > allowed {
            true => format!("more than the {allowed} that are allowed"),
            false => format!("{count} of {allowed} allowed so far"),
        };
        let warning = format!(
            "step {step} was skipped: its loss or gradient is not finite (rows {} to {})\n  hint: bad-batches.jsonl names all its rows; {so_far}",
            rows.first().map_or("", String::as_str),
            rows.last().map_or("", String::as_str)
        );
        self.warn(step, warning)?;
        if count > allowed {
            return Err(Error::input(
                format!("{count} steps were not finite, train.max_bad_batches = {allowed}"),
                "lower optimizer.learning_rate, or look at the rows that bad-batches.jsonl names",
            ));
        }
        Ok(())
    }
}
