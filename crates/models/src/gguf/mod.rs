//! GGUF: the one file of weights, tokenizer and chat template that llama.cpp and Ollama load.
//!
//! Format version 3 as the PyPI package gguf 0.19.0 writes and reads it (`gguf_writer.py`, `gguf_reader.py`), keys and
//! tensor names as its `constants.py` has them, what stands in them as llama.cpp's `conversion/*.py` derive it
//! (llama-cpp-python 0.3.36):
//!
//! ```text
//! "GGUF" | u32 version 3 | u64 tensors | u64 keys
//! keys     string key | u32 type | value          string: u64 bytes, UTF-8; array: u32 type | u64 count | values
//! tensors  string name | u32 dimensions | u64 each, fastest first | u32 type | u64 offset
//! padding to 32 bytes, then each tensor at its offset, padded to 32
//! ```
//!
//! ```text
//! format        values and element types             quantize      rows of f32 to bytes and back
//! write         streams a file, tensor by tensor     read          a file back, every length checked
//! architecture  which families, by what names        vocabulary    tokenizer.json in llama.cpp's words
//! pre_tokenizer the splits that llama.cpp knows      model         a model, perhaps with an adapter merged in
//! lora          an adapter alone
//! ```

pub mod format;
pub mod read;
pub mod write;

mod architecture;
mod lora;
mod model;
mod pre_tokenizer;
mod quantize;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use architecture::FAMILIES;
pub use format::TensorType;
pub use lora::{base_of, export_adapter};
pub use model::{Exported, export};
