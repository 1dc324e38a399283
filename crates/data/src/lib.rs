//! The room `data`: files of feedback in, packed micro-batches of token trees out.
//!
//! [`places`] finds the files, `reader` reads their rows, [`records`] knows the forms that rows
//! have, [`tokenizer`] and [`template`] turn them into text and token ids, [`tokenize`] into
//! examples; `load` does so piece by piece, and [`cache`] keeps the tokens in a file for the next
//! run. [`sampler`] puts the examples of an epoch in order, [`mix`] those of weighted origins,
//! [`pairing`] gives each its partner for the KL term, [`packing`] lays an optimizer step out as
//! [`batch`]es, and [`dataset`] ties them together. This room knows no tensor and no device.

pub mod batch;
pub mod cache;
pub mod confined;
pub mod dataset;
pub mod error;
pub mod files;
pub mod load;
pub mod mix;
pub mod packing;
pub mod pairing;
pub mod places;
pub mod records;
pub mod report;
pub mod sampler;
pub mod template;
pub mod tokenize;
pub mod tokenizer;
pub mod tokens;

mod families;
mod random;
mod reader;
#[cfg(test)]
mod speed;

pub use batch::{Completion, Group, GroupExample, MicroBatch, PackedStep, Role, Scored, Segment};
pub use cache::Cache;
pub use dataset::{Batching, DataOptions, Dataset, Epoch};
pub use error::{Error, Fault, Result};
pub use load::{Origin, OriginReport};
pub use records::reading::{Columns, Reading};
pub use records::{Form, Source, Text};
pub use report::Report;
pub use sampler::Order;
pub use tokenize::Example;
pub use tokenizer::Tokenizer;
