//! What the engine refuses, and why.

use crate::dtype::DType;

/// Everything an engine call can answer besides its result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor handed to an op has another shape than the op's contract asks for.
    #[error(
        "{op}: {name} has shape ({}, {}), expected ({}, {})\n  hint: the tensors given belong to different models or batches",
        got.0, got.1, expected.0, expected.1
    )]
    Shape {
        /// The op that was called.
        op: &'static str,
        /// The argument's name in the op's signature.
        name: &'static str,
        /// Rows and columns given.
        got: (usize, usize),
        /// Rows and columns wanted.
        expected: (usize, usize),
    },
    /// A tensor handed to an op holds another element type than the op's contract asks for.
    #[error(
        "{op}: {name} holds {got}, expected {expected}\n  hint: convert it with ops::cast first"
    )]
    DType {
        /// The op that was called.
        op: &'static str,
        /// The argument's name in the op's signature.
        name: &'static str,
        /// Element type given.
        got: DType,
        /// Element type wanted.
        expected: DType,
    },
    /// A value handed to an op is impossible (an index past the end, an odd head size, ...).
    #[error("{op}: {what}\n  hint: {hint}")]
    Argument {
        /// The op that was called.
        op: &'static str,
        /// The argument, its value and its bound.
        what: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The arena has no room for a request. A run that was planned cannot meet it.
    #[error(
        "out of memory: {requested} bytes for {purpose} asked, {free} of the arena's {capacity} bytes are free\n  hint: raise memory_limit, or lower token_budget, batch_size or max_length"
    )]
    OutOfMemory {
        /// Bytes asked for, rounded to the arena's alignment.
        requested: usize,
        /// The category of the request.
        purpose: &'static str,
        /// Bytes free between the two ends.
        free: usize,
        /// Bytes of the whole arena.
        capacity: usize,
    },
    /// There is no GPU that can be used.
    #[error("no GPU can be used: {reason}\n  hint: {hint}")]
    NoGpu {
        /// What is missing.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A call of NVIDIA's driver or libraries failed.
    #[error("{call} failed on the GPU: {name} ({code})\n  hint: {hint}")]
    Cuda {
        /// The call.
        call: &'static str,
        /// NVIDIA's number of the error.
        code: u32,
        /// NVIDIA's name of the error.
        name: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The operating system did not give the arena's memory.
    #[error(
        "cannot reserve {bytes} bytes of host memory: {reason}\n  hint: close other programs, or lower memory_limit, token_budget or max_length"
    )]
    Reserve {
        /// Bytes asked of the operating system.
        bytes: usize,
        /// The operating system's words.
        reason: String,
    },
}

/// Results of the engine.
pub type Result<T> = std::result::Result<T, Error>;
