//! The models: one decoder for all families, its weights, adapters, generation and export.
//!
//! A family is a row of data in [`config`]; code branches on a named field of [`config::ModelConfig`], never on a
//! family's name. [`checkpoint`] reads what Hugging Face writes, [`weights`] puts it on a device, [`lora`] adds what is
//! trained, [`decoder`] runs forward and backward over packed token trees, [`generate`] writes text.

pub mod error;

pub mod config;

pub mod checkpoint;
pub mod weights;

pub mod adapter;
pub mod lora;
mod lowrank;

pub mod decoder;
pub mod head;
pub mod trained;

pub mod generate;

mod dense;
pub mod export;
pub mod gguf;
pub mod merge;
pub mod ollama;
pub mod quantize;

#[cfg(test)]
mod testing;
