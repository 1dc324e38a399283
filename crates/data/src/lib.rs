//! The room `data`: files of feedback in, packed micro-batches of token trees out.
//!
//! [`records`] reads rows in the forms TRL accepts, [`tokenizer`] and [`template`] turn them
//! into text and token ids, [`tokenize`] into examples, [`sampler`] puts the examples of an
//! epoch in order, [`pairing`] gives each its partner for the KL term, [`packing`] lays an
//! optimizer step out as [`batch`]es, and [`dataset`] ties them together. This room knows no
//! tensor and no device.

pub mod batch;
pub mod confined;
pub mod dataset;
pub mod error;
pub mod files;
pub mod packing;
pub mod pairing;
pub mod records;
pub mod report;
pub mod sampler;
pub mod template;
pub mod tokenize;
pub mod tokenizer;

mod random;

pub use batch::{Completion, Group, GroupExample, MicroBatch, PackedStep, Role, Scored, Segment};
pub use dataset::{Batching, DataOptions, Dataset, Epoch};
pub use error::{Error, Fault, Result};
pub use records::{Form, Record, Source, Text};
pub use report::Report;
pub use sampler::Order;
pub use tokenize::Example;
pub use tokenizer::Tokenizer;
