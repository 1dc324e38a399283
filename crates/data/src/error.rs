//! The error of this room: whose fault it is, what happened, and what to do about it.

/// Whose fault an error is; it decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The user's input is wrong (exit 2).
    Input,
    /// The machine failed: disk, memory, permissions (exit 1).
    Machine,
}

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  hint: {hint}")]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// The thing, its value, and where it came from (file:line for data).
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The result of this room's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error the user can correct in what they gave.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: Fault::Input, message: message.into(), hint: hint.into() }
    }

    /// An error of the machine.
    pub fn machine(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: Fault::Machine, message: message.into(), hint: hint.into() }
    }

    /// The same error with the place in the data it is about.
    pub(crate) fn at(mut self, place: &impl std::fmt::Display) -> Self {
        self.message = format!("{}, {place}", self.message);
        self
    }
}
