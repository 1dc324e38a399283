//! The program `prospect`: its commands, and the one place where errors and panics end.
//!
//! ```text
//! args       what the command line may say        terminal   the two streams, colour and width
//! train/     a run as somebody watches it         signals    Ctrl-C and its kin
//! ending     errors, panics, exit codes           words      numbers as people read them
//! ```

mod args;
mod ending;
mod signals;
mod terminal;
mod train;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ending::run(|| match &arguments.command {
        Command::Train(arguments) => train::run(arguments),
    })
}
