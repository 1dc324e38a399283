//! `prospect inspect`: models and files from the inside.

mod quantize;

use ::train::error::Result;
use clap::{Args, Subcommand};

use crate::ending::Done;

#[derive(Args)]
pub(crate) struct Inspect {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Quantize a safetensors file to 4 bits, in bitsandbytes' layout and names
    Quantize(quantize::Quantize),
}

/// Inspects.
pub(crate) fn run(arguments: &Inspect) -> Result<Done> {
    match &arguments.subject {
        Subject::Quantize(arguments) => quantize::run(arguments),
    }
}
