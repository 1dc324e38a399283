//! A run from its recipe to its files: read, plan, look whether everything is there, train, save, compare.

mod result;
mod training;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use data::template::Moment;
use engine::device::Kind;
use engine::ops::attention::Kernel;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Contents};
use crate::checksum;
use crate::disk::{self, Needs};
use crate::error::Result;
use crate::event::{Event, Summary};
use crate::finite;
use crate::fit::{self, Fit};
use crate::folder::{self, Folder, RunFile};
use crate::inputs::Inputs;
use crate::machine::{Machine, host_limit};
use crate::recipe::Recipe;
use crate::recipe::training::{Attention, Device as DeviceChoice};
use crate::session::Session;
use crate::watch;
use training::{Progress, Run};

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
    let gpu = machine.arithmetic() == Kind::Cuda;
    let recipe = folder::settle(recipe, resume);
    folder::check(&recipe, resume)?;
    let then = match resume {
        true => Some(folder::read_start(&recipe.output)?),
        false => None,
    };
    let now = then.as_ref().map_or_else(Moment::now, |then| then.template_moment);
    let inputs = Inputs::load(recipe, now)?;
    if let Some(checkpoint) = &inputs.checkpoint {
        finite::check(checkpoint)?;
    }
    // Only now anything is written: reading what strangers wrote may end the program (`data::confined`).
    let folder = Folder::open(&inputs.recipe, resume)?;
    tell(Event::Data {
        train: &inputs.report,
        eval: inputs.eval.as_ref().map(|(_, report)| report),
    });
    let caches = inputs.eval.iter().map(|(_, report)| report).chain([&inputs.report]);
    caches.filter_map(|report| report.cache.clone()).for_each(|word| tell(Event::Note(word)));
    if inputs.config.multimodal {
        let word = "model: text alone is trained; what reads images stays as it is";
        tell(Event::Note(word.to_owned()));
    }
    tell(Event::Example(&inputs.dataset.rendered(0, &inputs.tokenizer)?));
    if gpu && inputs.recipe.train.attention == Attention::Flash {
        let head_dim = inputs.config.head_dim;
        if Kernel::fastest(head_dim) == Kernel::Standard {
            tell(Event::Note(format!(
                "attention: standard, since no flash kernel is for heads of {head_dim}"
            )));
        }
    }
    let mut warned = warnings(&inputs);

    let fit = plan(&inputs, &machine, then.as_ref())?;
    let run_file = RunFile {
        prospect: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine.name(),
        recipe: checksum::of(inputs.recipe.to_toml().as_bytes()),
        policy: fit.simulation.policy,
        template_moment: now,
        fingerprints: folder::fingerprints(&inputs)?,
    };
    if let Some(then) = &then {
        for word in folder.check_unchanged(&inputs.recipe, then, &run_file)? {
            tell(Event::Note(word));
        }
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
    }
    tell(Event::Planned(&fit));
    let copies = look_at_room(&inputs, &machine, &folder, &fit, tell)?;

    let device = machine.device(fit.simulation.peak_bytes, fit.simulation.host_bytes)?;
    let mut session = Session::open(&device, &inputs, &fit.simulation.policy)?;
    warned.extend(watch::rounding(&mut session.learner, inputs.recipe.optimizer.learning_rate)?);
    for warning in &warned {
        tell(Event::Warning(warning.clone()));
    }
    if !resume {
        folder.write_start(&inputs.recipe, &run_file)?;
        for warning in &warned {
            folder.append_warning(0, warning)?;
        }
    }
    if let Some(prompts) = &inputs.prompts {
        let count = prompts.ids().len();
        tell(Event::Note(format!("answering {count} prompts as the model is before training")));
    }
    let before = answers_before(&session, &folder, resume, tell)?;
    let progress = match resume {
        true => go_on(&mut session, &folder, &warned, tell)?,
        false => Progress::default(),
    };
    Run {
        inputs: &inputs,
        folder: &folder,
        fit: &fit,
        device: &device,
        copies,
        tell,
        stop,
        progress,
    }
    .train(&mut session, before)
}

/// Asks whether the disk has room for all that will be written. Gives whether memory has room for a copy of what a
/// checkpoint holds, so that it can be written while training goes on.
fn look_at_room(
    inputs: &Inputs,
    machine: &Machine,
    folder: &Folder,
    fit: &Fit,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<bool> {
    let plan = machine.plan();
    let mut session = Session::open(&plan, inputs, &fit.simulation.policy)?;
    let steps = session.steps();
    let contents = Contents::of(&mut session.learner, 0, 0, "");
    let needs = Needs::of(inputs, &contents, steps, folder.path());
    match disk::free(folder.path()) {
        Some(free) => {
            needs.check(free, folder.path())?;
            tell(Event::Note(format!(
                "disk: up to {} of {} free (checkpoints: {} of {})",
                fit::bytes(needs.total()),
                fit::bytes(free),
                needs.checkpoints,
                fit::bytes(needs.checkpoint)
            )));
        }
        None => tell(Event::Note(format!(
            "disk: '{}' does not say what it has free; up to {} will be written",
            folder.path().display(),
            fit::bytes(needs.total())
        ))),
    }
    // On the CPU the arena is in the same memory.
    let held = match machine.arithmetic() {
        Kind::Cpu => fit.simulation.peak_bytes,
        _ => fit.simulation.host_bytes,
    };
    let taken = (held + contents.bytes()) as u64;
    let copies = host_limit().is_none_or(|available| taken <= available);
    if !copies {
        tell(Event::Note(format!(
            "memory has no room for a copy of {}: training pauses while a checkpoint is written",
            fit::bytes(contents.bytes() as u64)
        )));
    }
    Ok(copies)
}

/// A policy that fits, or on resuming the one the run began with.
fn plan(inputs: &Inputs, machine: &Machine, then: Option<&RunFile>) -> Result<Fit> {
    let Some(then) = then else { return fit::fit(inputs, machine) };
    let simulation = fit::simulate(inputs, machine, then.policy)?;
    Ok(Fit { simulation, limit: None, reason: "as the run began".to_owned() })
}

/// What may spoil the result, before anything is computed.
pub fn warnings(inputs: &Inputs) -> Vec<String> {
    let mut all = inputs.report.warnings();
    let objective = &inputs.recipe.objective;
    if objective.name.has_ratings() {
        let report = &inputs.report;
        if report.desirable == 0 || report.undesirable == 0 {
            all.push(format!(
                "all {} examples have one label\n  hint: {} learns from the difference between thumbs up and thumbs down; add the other kind",
                report.examples,
                objective.name.as_str()
            ));
        } else if let Some(imbalance) = objective
            .name
            .has_weights()
            .then(|| report.imbalance(objective.desirable_weight, objective.undesirable_weight))
            .flatten()
        {
            // In two decimals, as TRL says it; a range that these round to nothing is no advice.
            let ranges = [
                ("desirable_weight", imbalance.desirable_weight),
                ("undesirable_weight", imbalance.undesirable_weight),
            ];
            let ranges: Vec<String> = ranges
                .iter()
                .filter(|(_, (low, _))| *low >= 0.05)
                .map(|(name, (low, high))| format!("{name} from {low} to {high}"))
                .collect();
            all.push(format!(
                "{} thumbs up and {} thumbs down are out of balance\n  hint: write {} (arXiv 2402.01306, eq. 8)",
                report.desirable,
                report.undesirable,
                ranges.join(", or ")
            ));
        }
    }
    all
}

/// `answers-before.json`.
#[derive(Serialize, Deserialize)]
struct AnswersBefore {
    answers: Vec<String>,
}

/// Answers of the model as it starts; kept in the run folder, so that a resumed run compares with the same.
fn answers_before(
    session: &Session<'_>,
    folder: &Folder,
    resume: bool,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Vec<String>>> {
    let path = folder.path().join("answers-before.json");
    if resume && path.exists() {
        match checksum::read_sealed(&path) {
            Ok(AnswersBefore { answers }) => return Ok(Some(answers)),
            Err(why) => tell(Event::Warning(format!(
                "'{}' is damaged: {why}\n  hint: the prompts are answered again; check the disk",
                path.display()
            ))),
        }
    }
    let answers = session.answers()?;
    if let Some(answers) = &answers {
        checksum::write_sealed(&path, &AnswersBefore { answers: answers.clone() })?;
    }
    Ok(answers)
}

/// Restores the newest whole checkpoint; without one the run begins at its first step.
fn go_on(
    session: &mut Session<'_>,
    folder: &Folder,
    warned: &[String],
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Progress> {
    let (found, words) = checkpoint::newest(folder.path());
    for word in words {
        tell(Event::Warning(format!(
            "{word}\n  hint: the run goes on from the one before, or its beginning; check the disk"
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
    folder.cut_metrics(progress.steps, warned)?;
    Ok(progress)
}
