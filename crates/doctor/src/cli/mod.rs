//! The commands `doctor` and `stack`: their arguments, and functions that write to what they are given.

mod doctor;
mod mend;
mod stack;

pub use doctor::{DoctorArgs, run_doctor, run_doctor_with};
pub use stack::{StackArgs, run_stack};

use crate::error::{Error, Fault};
use std::io::Write;

/// Writes an error the way every command does, and gives its exit code.
fn fail(error: &Error, out: &mut dyn Write) -> u8 {
    // Where the reader has gone (a closed pipe) there is nobody left to tell.
    let _ = writeln!(out, "error: {error}");
    match error.fault {
        Fault::Input => 2,
        Fault::Machine => 1,
    }
}
