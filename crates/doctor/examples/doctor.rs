//! Runs the doctor by itself: `cargo run -p prospect-doctor --example doctor -- doctor --python .venv`.

use clap::{Parser, Subcommand};
use doctor::cli::{DoctorArgs, StackArgs, run_doctor, run_stack};
use std::process::ExitCode;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Doctor(DoctorArgs),
    Stack(StackArgs),
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    ExitCode::from(match Arguments::parse().command {
        Command::Doctor(args) => run_doctor(&args, &mut out),
        Command::Stack(args) => run_stack(&args, &mut out),
    })
}
