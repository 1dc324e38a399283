//! What can go wrong in this crate: a message that names the thing, and a hint that says what to do.

/// A failure, told to the person who can mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}\n  hint: {hint}")]
pub struct Error {
    /// Whose it is to mend.
    pub fault: Fault,
    /// What is wrong: the thing, its value and where it came from.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Who has to act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The input: a recipe, a flag, a file of the user (exit code 2).
    Input,
    /// The machine: disk, memory, device (exit code 1).
    Machine,
}

impl Error {
    /// A mistake in what the user gave.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error { fault: Fault::Input, message: message.into(), hint: hint.into() }
    }

    /// A failure of disk, memory or device.
    pub fn machine(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Error { fault: Fault::Machine, message: message.into(), hint: hint.into() }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<data::Error> for Error {
    fn from(error: data::Error) -> Self {
        let fault = match error.fault {
            data::Fault::Input => Fault::Input,
            data::Fault::Machine => Fault::Machine,
        };
        Error { fault, message: error.message, hint: error.hint }
    }
}

impl From<models::error::Error> for Error {
    fn from(error: models::error::Error) -> Self {
        data::Error { fault: error.fault, message: error.message, hint: error.hint }.into()
    }
}

impl From<engine::error::Error> for Error {
    fn from(error: engine::error::Error) -> Self {
        models::error::Error::from(error).into()
    }
}
