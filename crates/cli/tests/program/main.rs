//! The program as people run it: the built binary on the two-layer model of fixtures/kto.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod bad_input;
mod commands;
mod memory;
mod place;
mod resuming;
mod training;
