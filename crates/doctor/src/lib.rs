//! `prospect doctor` and `prospect stack`: will it train on this machine, and if not, what exactly mends it.
//!
//! The way of a diagnosis: [`facts`] is the door to a machine; [`machine`], [`prospect`] and [`python`] read through
//! it and fill a [`table`] of named facts, each with the place it was read from; the [`rules`], data in one file,
//! are asked of the table and give [`finding`]s; [`report`] prints them. No Python is run, nothing is fetched and
//! nothing is changed unless the user asks. [`stack`] knows the Python training stack: dated locks that work, and a
//! solver that finds the smallest repair.

pub mod cards;
pub mod cli;
pub mod diagnosis;
pub mod elf;
pub mod error;
pub mod facts;
pub mod fetch;
pub mod finding;
pub mod machine;
pub mod prospect;
pub mod python;
pub mod report;
pub mod rules;
pub mod stack;
pub mod table;

pub use prospect::{Engine, SelfTest};
