//! The Python training stack.

pub mod index;
