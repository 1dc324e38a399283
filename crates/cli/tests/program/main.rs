//! The program as people run it: the built binary on the two-layer model of fixtures/kto.

mod bad_input;
mod commands;
mod memory;
mod place;
mod resuming;
mod training;
