//! Training: from a recipe to a finished adapter.
//!
//! A [`recipe`] says what to do; [`inputs`] reads what it names; [`fit`] finds a policy that fits the memory by
//! running the run on the `plan` device; [`run`] does it, [`step`] by step, and tells what happens as [`event`]s; [`tune`]
//! does some steps to measure them.
//! Nothing here prints.

pub mod error;

pub mod recipe;

pub mod gpus;
pub mod inputs;

pub mod session;

pub mod step;

mod board;

pub mod learner;
pub mod schedule;

pub mod judge;

pub mod fit;
pub mod machine;

pub mod checkpoint;
pub mod checksum;
pub mod disk;
pub mod finite;
pub mod folder;
pub mod run;
pub mod tune;
pub mod watch;
pub mod writer;

pub mod event;
