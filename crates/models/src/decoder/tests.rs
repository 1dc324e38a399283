//! The decoder against transformers, finite differences, and itself run one sequence at a time.

mod cuda;
mod gradients;
mod packing;
mod parity;
