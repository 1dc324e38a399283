//! What this room refuses, and why.

use std::fmt;

pub use data::Fault;

/// An error with a hint of what to do.
#[derive(Debug)]
pub struct Error {
    /// Whose fault it is.
    pub fault: Fault,
    /// The thing, its value and where it came from.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Results of this room.
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

impl From<data::Error> for Error {
    fn from(error: data::Error) -> Error {
        Error { fault: error.fault, message: error.message, hint: error.hint }
    }
}

impl From<engine::error::Error> for Error {
    fn from(error: engine::error::Error) -> Error {
        use engine::error::Error as Engine;
        let text = error.to_string();
        let (message, hint) = text.split_once("\n  hint: ").unwrap_or((&text, ""));
        let fault = match error {
            Engine::OutOfMemory { .. }
            | Engine::Reserve { .. }
            | Engine::NoGpu { .. }
            | Engine::Cuda { .. } => Fault::Machine,
            Engine::Shape { .. } | Engine::DType { .. } | Engine::Argument { .. } => Fault::Input,
        };
        Error { fault, message: message.to_owned(), hint: hint.to_owned() }
    }
}
