//! `prospect inspect`: what a model is given and what it computes, for those who port or debug.
//!
//! ```text
//! logits    every token's logits, into a file      tokenize  a text as token ids
//! template  a conversation as text                 quantize  a file's matrices in 4 bits
//! ```

mod logits;
pub(crate) mod quantize;
mod template;
mod tokenize;

use ::train::error::Result;

use crate::args::{self, Inspected};
use crate::ending::Done;

/// Looks.
pub(crate) fn run(arguments: &args::Inspect) -> Result<Done> {
    match &arguments.what {
        Inspected::Logits(arguments) => logits::run(arguments),
        Inspected::Tokenize(arguments) => tokenize::run(arguments),
        Inspected::Template(arguments) => template::run(arguments),
        Inspected::Quantize(arguments) => quantize::run(arguments),
    }
}
