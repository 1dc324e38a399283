//! A run from its recipe to its files: read, plan, train, save, compare.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use data::template::Moment;
use data::{PackedStep, files};
use engine::device::Device;
use models::export::{self, Entry};
use models::{adapter, merge};
use serde_json::{Map, Value, json};

use crate::checkpoint;
use crate::error::{Error, Result};
use crate::event::{Event, Metrics, StepReport, Summary};
use crate::fit::{self, Fit};
use crate::folder::{self, Folder, RunFile};
use crate::inputs::Inputs;
use crate::machine::Machine;
use crate::recipe::Recipe;
use crate::recipe::model::Dtype;
use crate::recipe::training::Device as DeviceChoice;
use crate::session::Session;

/// How a run ended.
pub enum Ending {
    /// All steps are done and all files are written.
    Finished(Summary),
    /// It was asked to stop; the checkpoint holds what was done.
    Stopped {
        /// Optimizer steps done.
        step: usize,
        /// Where to go on from.
        checkpoint: PathBuf,
    },
}

/// Runs `recipe`, or goes on with the run in its output folder. Once `stop` is set the step in progress is
/// finished and saved.
pub fn run(
    recipe: Recipe,
    resume: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Ending> {
    let machine = Machine::choose(&recipe)?;
    if recipe.train.device == DeviceChoice::Auto {
        tell(Event::Note(machine.description.clone()));
    }
    let recipe = folder::settle(recipe, resume);
    let folder = Folder::open(&recipe, resume)?;
    let now = if resume { folder.read_start()?.template_moment } else { Moment::now() };
    let inputs = Inputs::load(recipe, now)?;
    tell(Event::Data {
        train: &inputs.report,
        eval: inputs.eval.as_ref().map(|(_, report)| report),
    });
    for warning in warnings(&inputs) {
        tell(Event::Warning(warning));
    }

    let fit = plan(&inputs, &machine, &folder, resume)?;
    let run_file = RunFile {
        prospect: env!("CARGO_PKG_VERSION").to_owned(),
        policy: fit.simulation.policy,
        template_moment: now,
        fingerprints: folder::fingerprints(&inputs)?,
    };
    if resume {
        folder.check_unchanged(&inputs.recipe, &run_file)?;
        if let Some((summary, judgement)) = folder.finished() {
            tell(Event::Note(format!(
                "the run in '{}' is finished: there is nothing to go on with",
                folder.path().display()
            )));
            if let Some(judgement) = &judgement {
                tell(Event::Judged(judgement));
            }
            tell(Event::Finished(&summary));
            return Ok(Ending::Finished(summary));
        }
    } else {
        folder.write_start(&inputs.recipe, &run_file)?;
    }
    tell(Event::Planned(&fit));

    let device = machine.device(fit.simulation.peak_bytes)?;
    let mut session = Session::open(&device, &inputs, &fit.simulation.policy)?;
    if let Some(prompts) = &inputs.prompts {
        let count = prompts.ids().len();
        tell(Event::Note(format!("answering {count} prompts as the model is before training")));
    }
    let before = answers_before(&session, &folder, resume)?;
    let progress = if resume { go_on(&mut session, &folder, tell)? } else { Progress::default() };
    Run { inputs: &inputs, folder: &folder, fit: &fit, device: &device, tell, stop, progress }
        .train(&mut session, before)
}

/// A policy that fits, or on resuming the one the run began with.
fn plan(inputs: &Inputs, machine: &Machine, folder: &Folder, resume: bool) -> Result<Fit> {
    if !resume {
        return fit::fit(inputs, machine);
    }
    let policy = folder.read_start()?.policy;
    let simulation = fit::simulate(inputs, machine, policy)?;
    Ok(Fit { simulation, limit: None, reason: "as the run began".to_owned() })
}

/// What may spoil the result, before anything is computed.
pub fn warnings(inputs: &Inputs) -> Vec<String> {
    let mut all = inputs.report.warnings();
    let objective = &inputs.recipe.objective;
    if objective.name.needs_kl()
        || objective.name == crate::recipe::objective::ObjectiveName::ApoZeroUnpaired
    {
        let report = &inputs.report;
        if report.desirable == 0 || report.undesirable == 0 {
            all.push(format!(
                "all {} examples have one label\n  hint: {} learns from the difference between thumbs up and thumbs down; add the other kind",
                report.examples,
                objective.name.as_str()
            ));
        } else if let Some(imbalance) =
            report.imbalance(objective.desirable_weight, objective.undesirable_weight)
        {
            all.push(format!(
                "{} thumbs up and {} thumbs down are out of balance\n  hint: write desirable_weight from {} to {}, or undesirable_weight from {} to {} (arXiv 2402.01306, eq. 8)",
                report.desirable,
                report.undesirable,
                imbalance.desirable_weight.0,
                imbalance.desirable_weight.1,
                imbalance.undesirable_weight.0,
                imbalance.undesirable_weight.1
            ));
        }
    }
    all
}

/// Answers of the model as it starts; kept in the run folder, so that a resumed run compares with the same.
fn answers_before(
    session: &Session<'_>,
    folder: &Folder,
    resume: bool,
) -> Result<Option<Vec<String>>> {
    let path = folder.path().join("answers-before.json");
    if resume && path.exists() {
        let text = files::read_to_string(&path)?;
        return serde_json::from_str(&text).map(Some).map_err(|error| {
            Error::input(
                format!("'{}' is damaged: {error}", path.display()),
                "remove [generate] from the recipe, or start anew",
            )
        });
    }
    let answers = session.answers()?;
    if let Some(answers) = &answers {
        files::write_json(&path, answers)?;
    }
    Ok(answers)
}

/// What a run has done.
#[derive(Default)]
struct Progress {
    steps: usize,
    bad_batches: usize,
}

/// Restores the newest whole checkpoint; without one the run begins at its first step.
fn go_on(
    session: &mut Session<'_>,
    folder: &Folder,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Progress> {
    let (found, words) = checkpoint::newest(folder.path());
    for word in words {
        tell(Event::Warning(format!(
            "{word}\n  hint: the run goes on from the one before; check the disk"
        )));
    }
    let progress = match found {
        None => {
            tell(Event::Note("no checkpoint yet: the run begins at its first step".to_owned()));
            Progress::default()
        }
        Some((state, place)) => {
            checkpoint::restore(&mut session.learner, &place, &state)?;
            tell(Event::Note(format!("going on from '{}'", place.display())));
            Progress { steps: state.step, bad_batches: state.bad_batches }
        }
    };
    folder.cut_metrics(progress.steps)?;
    Ok(progress)
}

/// The loop over steps, and what belongs to it.
struct Run<'a> {
    inputs: &'a Inputs,
    folder: &'a Folder,
    fit: &'a Fit,
    device: &'a Device,
    tell: &'a mut dyn FnMut(Event<'_>),
    stop: &'a AtomicBool,
    progress: Progress,
}

impl Run<'_> {
    fn train(mut self, session: &mut Session<'_>, before: Option<Vec<String>>) -> Result<Ending> {
        let train = &self.inputs.recipe.train;
        let steps = session.steps();
        (self.tell)(Event::Started { steps, from: self.progress.steps });
        let (mut seconds, mut tokens) = (0.0, 0);
        let mut last = self.folder.last_metrics()?;
        let mut saved = Instant::now();
        while self.progress.steps < steps {
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
            (seconds, tokens) = (seconds + report.seconds, tokens + report.tokens);
            (self.tell)(Event::Step(&report));
            last = report.metrics;
            if !stepped.applied {
                self.note_bad_batch(&packed, step)?;
            }
            let measure =
                (train.eval_every > 0 && step.is_multiple_of(train.eval_every)) || step == steps;
            if measure && let Some(metrics) = session.evaluate()? {
                (self.tell)(Event::Evaluated { step, metrics: &metrics });
                last.extend(metrics);
            }
            self.folder.append_metrics(step, report.epoch, &last)?;
            let due = train.save_every > 0 && step.is_multiple_of(train.save_every);
            let late = train.save_minutes > 0.0
                && saved.elapsed().as_secs_f64() >= 60.0 * train.save_minutes;
            let stopping = self.stop.load(Ordering::Relaxed) && step < steps;
            if due || late || stopping || step == steps {
                let checkpoint = self.save(session)?;
                saved = Instant::now();
                if stopping {
                    return Ok(Ending::Stopped { step, checkpoint });
                }
            }
        }
        self.finish(session, before, seconds, tokens, &last)
    }

    fn save(&mut self, session: &mut Session<'_>) -> Result<PathBuf> {
        let (step, keep) = (self.progress.steps, self.inputs.recipe.train.keep_checkpoints);
        let base = self.inputs.folder.display().to_string();
        let place = checkpoint::save(
            &mut session.learner,
            self.folder.path(),
            step,
            self.progress.bad_batches,
            &base,
            keep,
        )?;
        (self.tell)(Event::Saved { step, folder: &place });
        Ok(place)
    }

    /// Writes down which rows made a step not finite, and gives up where there were too many.
    fn note_bad_batch(&mut self, packed: &PackedStep, step: usize) -> Result<()> {
        self.progress.bad_batches += 1;
        let examples = packed.groups.iter().flat_map(|group| &group.examples);
        let rows: Vec<String> = examples
            .map(|example| self.inputs.dataset.examples()[example.index].source.to_string())
            .collect();
        self.folder
            .append("bad-batches.jsonl", &json!({"step": step, "rows": rows}).to_string())?;
        let (count, allowed) =
            (self.progress.bad_batches, self.inputs.recipe.train.max_bad_batches);
        (self.tell)(Event::Warning(format!(
            "step {step} was skipped: its loss or gradient is not finite (rows {} to {})\n  hint: bad-batches.jsonl names all its rows; {count} of {allowed} allowed so far",
            rows.first().map_or("", String::as_str),
            rows.last().map_or("", String::as_str)
        )));
        if count > allowed {
            return Err(Error::input(
                format!("{count} steps were not finite, train.max_bad_batches = {allowed}"),
                "lower optimizer.learning_rate, or look at the rows that bad-batches.jsonl names",
            ));
        }
        Ok(())
    }

    /// Writes the result and the summary.
    fn finish(
        self,
        session: &mut Session<'_>,
        before: Option<Vec<String>>,
        seconds: f64,
        tokens: usize,
        last: &Metrics,
    ) -> Result<Ending> {
        self.write_result(session)?;
        if self.inputs.prompts.is_some() {
            (self.tell)(Event::Note("answering the same prompts after training".to_owned()));
        }
        let judgement = match (&self.inputs.prompts, before, session.answers()?) {
            (Some(prompts), Some(before), Some(after)) => Some(prompts.judge(before, after)),
            _ => None,
        };
        let counted = judgement.as_ref().filter(|judgement| judgement.judged);
        let metrics: Map<String, Value> =
            last.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let summary = Summary {
            steps: self.progress.steps,
            seconds,
            rated_tokens: tokens,
            rated_tokens_per_second: if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 },
            planned_peak_bytes: self.fit.simulation.peak_bytes,
            peak_bytes: self.device.peak_bytes(),
            bad_batches: self.progress.bad_batches,
            metrics,
            prompts: counted.map(|judgement| judgement.answers.len()),
            desirable_before: counted.map(|judgement| judgement.desirable().0),
            desirable_after: counted.map(|judgement| judgement.desirable().1),
        };
        if let Some(judgement) = &judgement {
            files::write_json(&self.folder.path().join("answers.json"), judgement)?;
            (self.tell)(Event::Judged(judgement));
        }
        files::write_json(&self.folder.path().join("summary.json"), &summary)?;
        (self.tell)(Event::Finished(&summary));
        Ok(Ending::Finished(summary))
    }

    /// `adapter/` as PEFT reads it, or `model/` as transformers reads it.
    fn write_result(&self, session: &mut Session<'_>) -> Result<()> {
        let base = self.inputs.folder.display().to_string();
        let create = |name: &str| -> Result<PathBuf> {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(&path).map_err(|error| {
                Error::machine(
                    format!("cannot create '{}': {error}", path.display()),
                    "free some space on the disk and go on with --resume",
                )
            })?;
            Ok(path)
        };
        if let Some(policy) = session.learner.policy_mut() {
            adapter::write(policy, &base, &create("adapter")?)?;
            return Ok(());
        }
        let path = create("model")?;
        let narrow = self.inputs.recipe.model.dtype == Dtype::Bf16;
        let tensors = session.learner.model.weights.tensors_mut();
        let entries: Vec<Entry<'_>> = tensors
            .into_iter()
            .map(
                |(name, tensor)| {
                    if narrow { Entry::bf16(name, tensor) } else { Entry::f32(name, tensor) }
                },
            )
            .collect();
        export::write_safetensors(&path.join("model.safetensors"), &entries)?;
        merge::copy_companions(&self.inputs.folder, &path)?;
        Ok(())
    }
}
