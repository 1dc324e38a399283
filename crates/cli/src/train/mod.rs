//! `prospect train`: a run as somebody watches it.
//!
//! ```text
//! shown     every event in words        live    the display on a terminal
//! ending    before and after, the counts, what to try next
//! ```

mod conclusion;
mod shown;

use ::train::error::{Error, Result};
use ::train::recipe::Recipe;
use ::train::run::{self, Ending};
use ::train::{folder, recipe};

use crate::args;
use crate::ending::Done;
use crate::signals::Signals;
use crate::terminal;
use shown::Shown;

/// Trains.
pub(crate) fn run(arguments: &args::Train) -> Result<Done> {
    let signals = Signals::listen()?;
    let recipe = Recipe::read(&arguments.recipe.recipe, &arguments.recipe.set)?;
    let recipe = folder::settle(recipe, arguments.resume);
    use_threads(&recipe.train)?;
    let mut shown = Shown::new(&recipe);
    let ending =
        run::run(recipe.clone(), arguments.resume, &signals.stop, &mut |event| shown.tell(event))?;
    shown.close();
    match ending {
        Ending::Finished(summary) => {
            conclusion::conclude(&recipe, &summary, shown.judgement());
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

/// Gives the CPU's work to as many threads as the recipe says. The result is the same for any number.
pub(crate) fn use_threads(train: &recipe::training::Train) -> Result<()> {
    let Some(threads) = train.threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| {
        Error::machine(
            format!("cannot start {threads} threads: {error}"),
            "lower train.threads, or remove it to use all cores",
        )
    })
}
