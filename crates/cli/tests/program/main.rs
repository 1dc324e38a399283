//! The program as people run it: the built binary on the two-layer model of fixtures/kto.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that is skipped says so, and counts are told"
)]

mod bad_input;
mod commands;
mod doctor;
mod export;
mod hostile;
mod hub;
mod inspecting;
mod memory;
mod place;
mod plan;
mod quantized;
mod resuming;
mod training;
