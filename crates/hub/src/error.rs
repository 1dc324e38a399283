//! What can go wrong here: whose fault it is, what happened, and what to do about it. No message holds a token or the
//! query of an address, which may be signed.

use std::fmt;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The user's: a name, a token, a setting.
    Input,
    /// The machine's or the network's.
    Machine,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// The thing, its value, and where it came from.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Whether the hub could not be reached or would not answer, so that an older copy may serve.
    pub(crate) unreachable: bool,
}

/// A result of this room.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A mistake in what the user gave.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Error {
        let (message, hint) = (message.into(), hint.into());
        Error { fault: Fault::Input, message, hint, unreachable: false }
    }

    /// A failure of disk or network.
    pub fn machine(message: impl Into<String>, hint: impl Into<String>) -> Error {
        let (message, hint) = (message.into(), hint.into());
        Error { fault: Fault::Machine, message, hint, unreachable: false }
    }

    /// A hub that does not answer.
    pub(crate) fn unreachable(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error { unreachable: true, ..Error::machine(message, hint) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  hint: {}", self.message, self.hint)
    }
}

impl std::error::Error for Error {}
