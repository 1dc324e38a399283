//! The one error of this crate: what went wrong, and what to do about it.

use std::fmt;

/// Whose fault an error is; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The user asked for something that cannot be (exit code 2).
    Input,
    /// Disk, network or another program failed (exit code 1).
    Machine,
}

/// An error with its hint.
#[derive(Clone, Debug)]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// What is wrong, naming the thing, its value and where it came from.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The user's mistake.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error { fault: Fault::Input, message: message.into(), hint: hint.into() }
    }

    /// The machine's failure.
    pub fn machine(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error { fault: Fault::Machine, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  hint: {}", self.message, self.hint)
    }
}

impl std::error::Error for Error {}
