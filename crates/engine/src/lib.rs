//! The engine: tensors in one arena, three devices, and the ops a decoder is trained with.
//!
//! It has never heard of a model, a loss or a file format. An op is a pair of plain functions, forward and
//! backward, that mirror each other; there is no tape. The `cpu` device computes in f32; `cuda` in bf16 with f32
//! accumulation; the `plan` device runs the same calls without memory and without arithmetic and keeps a ledger of what they would take.

pub mod dtype;
pub mod error;

pub mod memory;

pub mod device;
pub mod tensor;

pub mod cpu;
pub mod cuda;
pub mod mapped;
pub mod ops;
pub mod random;
pub mod testing;
