//! `prospect stack`.

use clap::Args;
use std::io::Write;

/// The Python training stack
#[derive(Args, Clone, Debug)]
pub struct StackArgs {}

/// Runs `stack`.
pub fn run_stack(_args: &StackArgs, _out: &mut dyn Write) -> u8 {
    0
}
