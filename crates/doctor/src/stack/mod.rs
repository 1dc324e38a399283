//! The Python training stack: dated locks that work, and a solver that finds the smallest repair.

pub mod apply;
pub mod builds;
pub mod check;
pub mod index;
pub mod matrix;
pub mod mend;
pub mod online;
pub mod profiles;
pub mod read;
pub mod show;
pub mod solve;
pub mod table;
