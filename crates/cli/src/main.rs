//! The program `prospect`: its commands, and the one place where errors and panics end.
//!
//! ```text
//! args       what the command line may say        terminal   the two streams, colour and width
//! train/     a run as somebody watches it         signals    Ctrl-C and its kin
//! plan       what a run will take                 ending     errors, panics, exit codes
//! data       what training sees of the data       words      numbers as people read them
//! eval       metrics of held-out data             merge      an adapter into its model
//! tune       the fastest products on this GPU
//! export     GGUF for llama.cpp, and Ollama       hub        names of the hub, fetched
//! doctor/    what the engine and the planner tell the doctor, and what it fetches
//! self_test/ each component against its reference, for the doctor
//! generate/  one answer, or a conversation        report/    report.html of a run folder
//! inspect/   what a model is given and computes, for those who port or debug
//! threads    how many the work is given to        curve      a metric over a run of any length
//! ```

mod args;
mod curve;
mod data;
mod doctor;
mod ending;
mod eval;
mod export;
mod generate;
mod hub;
mod inspect;
mod merge;
mod plan;
mod report;
mod self_test;
mod signals;
mod terminal;
mod threads;
mod train;
mod tune;
mod words;

use std::process::ExitCode;

use clap::Parser;
use engine::memory::budget::{self, Budgeted};

use crate::args::{Arguments, Command};
use crate::ending::Done;

/// Bounds the memory of templates and tokenizers, which are programs of strangers.
#[global_allocator]
static ALLOCATOR: Budgeted = Budgeted;

fn main() -> ExitCode {
    ::data::confined::by(budget::within);
    let arguments = Arguments::parse();
    ending::run(|| {
        threads::check_environment()?;
        command(&arguments)
    })
}

fn command(arguments: &Arguments) -> ::train::error::Result<Done> {
    match &arguments.command {
        Command::Train(arguments) => train::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Data(arguments) => data::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Tune(arguments) => tune::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Merge(arguments) => merge::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Stack(arguments) => {
            Ok(Done::Answered(::doctor::cli::run_stack(arguments, &mut std::io::stdout())))
        }
    }
}
