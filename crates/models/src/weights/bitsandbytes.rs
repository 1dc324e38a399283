//! Weights as bitsandbytes 0.50.2 stores them: in 4 bits with a quantization state (`Params4bit`), in 8 bits with a scale
//! a row (`Int8Params`). A linear layer that has neither is dense: what `llm_int8_skip_modules` names, and what
//! dynamic quantization leaves in 16 bits, needs no list.
//!
//! * 4 bits: `weight`, the codes in U8, or in another type that the same bytes are read as
//!   (`bnb_4bit_quant_storage`); `weight.absmax`, `weight.quant_map`, and with double quantization
//!   `weight.nested_absmax` and `weight.nested_quant_map`; `weight.quant_state.bitsandbytes__nf4` or `__fp4`, JSON as bytes
//! * 8 bits: `weight` I8, `SCB` F32, `weight_format` 0: rows one after another

use engine::device::Device;
use engine::ops::int8;
use engine::ops::nf4::{CodeBook, NESTED_BLOCK_SIZE, Quantized, Scales, tables};
use engine::tensor::Shape;
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::Weight;
use super::load::put;
use crate::checkpoint::{Checkpoint, Stored};
use crate::error::{Error, Result};

const AGAIN: &str = "download the checkpoint again";

/// How far a stored table may be from ours: torch computes the 8-bit map, and its last bits depend on the machine.
const LAST_BITS: f32 = 1e-6;

/// What bitsandbytes stores beside a 4-bit weight, as JSON.
#[derive(Deserialize)]
struct QuantState {
    quant_type: String,
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

/// The form of a checkpoint's first linear layer that bitsandbytes quantized: `nf4`, `fp4` or `int8`.
pub fn stored_form(checkpoint: &Checkpoint) -> Option<&'static str> {
    checkpoint.names().find_map(|name| {
        if name.ends_with(".SCB") {
            return Some("int8");
        }
        let (_, form) = name.split_once(".quant_state.bitsandbytes__")?;
        CodeBook::named(form).map(CodeBook::name)
    })
}

/// Whether the tensor `name` is part of how a weight is quantized: nothing to look for numbers in.
pub fn is_codes(checkpoint: &Checkpoint, name: &str) -> bool {
    let state = |book: CodeBook| checkpoint.get(&state_name(name, book)).is_some();
    state(CodeBook::Nf4) || state(CodeBook::Fp4)
}

fn state_name(name: &str, book: CodeBook) -> String {
    format!("{name}.quant_state.bitsandbytes__{}", book.name())
}

/// The parts of one stored weight.
struct Parts<'a> {
    checkpoint: &'a Checkpoint,
    name: &'a str,
    shape: Shape,
}

/// The weight `name` on `device`, in the form it is stored in; none where it is stored dense.
pub(crate) fn read(
    device: &Device,
    checkpoint: &Checkpoint,
    name: &str,
    shape: Shape,
) -> Result<Option<Weight>> {
    let parts = Parts { checkpoint, name, shape };
    let Some(weight) = checkpoint.get(name) else { return Ok(None) };
    if weight.dtype == Dtype::I8 {
        return parts.int8(device).map(|held| Some(Weight::Int8(Box::new(held))));
    }
    let state = |book: CodeBook| Some((book, checkpoint.get(&state_name(name, book))?));
    match (state(CodeBook::Nf4), state(CodeBook::Fp4)) {
        (Some(_), Some(_)) => {
            Err(parts.wrong("has a quantization state of nf4 and one of fp4", AGAIN))
        }
        (Some((book, state)), None) | (None, Some((book, state))) => {
            parts.four_bit(device, book, &state).map(|held| Some(Weight::FourBit(Box::new(held))))
        }
        (None, None) if weight.dtype == Dtype::U8 => Err(parts.wrong(
            "holds U8 and has no quantization state",
            "a shard is missing, or another program than bitsandbytes quantized it: take the model in bf16",
        )),
        (None, None) => Ok(None),
    }
}

impl<'a> Parts<'a> {
    fn wrong(&self, message: impl std::fmt::Display, hint: impl Into<String>) -> Error {
        let folder = self.checkpoint.folder().display();
        Error::input(format!("{} in '{folder}' {message}", self.name), hint)
    }

    /// A part of a shape and an element type.
    fn part(&self, name: &str, shape: &[usize], dtype: Dtype) -> Result<Stored<'a>> {
        let stored = self.checkpoint.expect(name, shape)?;
        if stored.dtype == dtype {
            return Ok(stored);
        }
        let (file, got) = (stored.file.display(), stored.dtype);
        Err(Error::input(format!("{name} in '{file}' holds {got:?}, expected {dtype:?}"), AGAIN))
    }

    /// A part of a 4-bit weight.
    fn beside(&self, suffix: &str, len: usize, dtype: Dtype) -> Result<Stored<'a>> {
        self.part(&format!("{}{suffix}", self.name), &[len], dtype)
    }

    /// Refuses a table that is not the one its codes are read by.
    fn table(&self, suffix: &str, expected: &[f32]) -> Result<()> {
        let mut values = vec![0f32; expected.len()];
        self.beside(suffix, expected.len(), Dtype::F32)?.to_f32(self.name, &mut values)?;
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= LAST_BITS * b.abs();
        if values.iter().zip(expected).all(near) {
            return Ok(());
        }
        let folder = self.checkpoint.folder().display();
        Err(Error::input(
            format!("{}{suffix} in '{folder}' is not bitsandbytes' table", self.name),
            "Prospect reads the standard nf4, fp4 and dynamic 8-bit tables alone",
        ))
    }

    fn state(&self, book: CodeBook, stored: &Stored<'_>) -> Result<QuantState> {
        let state: QuantState = serde_json::from_slice(stored.bytes).map_err(|error| {
            let message = format!("has a quantization state that is not understood: {error}");
            self.wrong(message, AGAIN)
        })?;
        let Shape { rows, cols } = self.shape;
        if state.quant_type != book.name() {
            let (says, book) = (&state.quant_type, book.name());
            let message = format!("has a quantization state of {book} that says {says}");
            return Err(self.wrong(message, AGAIN));
        }
        if state.shape != [rows, cols] {
            let message =
                format!("is of shape {:?}, config.json asks for {:?}", state.shape, [rows, cols]);
            return Err(self.wrong(message, AGAIN));
        }
        if !state.blocksize.is_power_of_two() || !(32..=4096).contains(&state.blocksize) {
            let message = format!("has blocks of {}", state.blocksize);
            return Err(self.wrong(message, "bitsandbytes knows powers of two from 32 to 4096"));
        }
        if let Some(size) = state.nested_blocksize.filter(|size| *size != NESTED_BLOCK_SIZE) {
            let message = format!("has nested blocks of {size}");
            return Err(self.wrong(message, "bitsandbytes writes 256"));
        }
        if let Some(offset) = state.nested_offset.filter(|offset| !offset.is_finite()) {
            return Err(self.wrong(format!("has nested_offset = {offset}"), AGAIN));
        }
        Ok(state)
    }

    fn four_bit(&self, device: &Device, book: CodeBook, stored: &Stored<'_>) -> Result<Quantized> {
        let state = self.state(book, stored)?;
        let double_quant = state.nested_offset.is_some();
        let n = self.shape.len();
        let blocks = n.div_ceil(state.blocksize);
        // Everything is held against the shape before room is taken for it.
        let codes = self.codes(n.div_ceil(2))?;
        self.table(".quant_map", book.values())?;
        let scales = if double_quant { Dtype::U8 } else { Dtype::F32 };
        let scales = self.beside(".absmax", blocks, scales)?;
        let mut weight = Quantized::new(device, self.shape, book, state.blocksize, double_quant)?;
        weight.codes.view_mut().write_bytes(codes.bytes)?;
        match &mut weight.scales {
            Scales::Plain { absmax } => put(&scales, self.name, absmax.view_mut())?,
            Scales::Double { codes, nested_absmax, offset } => {
                self.table(".nested_quant_map", tables::dynamic_signed())?;
                codes.view_mut().write_bytes(scales.bytes)?;
                let blocks = blocks.div_ceil(NESTED_BLOCK_SIZE);
                let nested = self.beside(".nested_absmax", blocks, Dtype::F32)?;
                put(&nested, self.name, nested_absmax.view_mut())?;
                offset.write(&[state.nested_offset.unwrap_or(0.0)])?;
            }
        }
        Ok(weight)
    }

    /// The bytes of the 4-bit codes, whatever element type they are stored under.
    fn codes(&self, bytes: usize) -> Result<Stored<'a>> {
        let Some(stored) = self.checkpoint.get(self.name) else {
            return Err(self.wrong("is missing", AGAIN));
        };
        if stored.bytes.len() != bytes {
            let message = format!("has {} bytes of codes, expected {bytes}", stored.bytes.len());
            return Err(self.wrong(message, AGAIN));
        }
        Ok(stored)
    }

    fn int8(&self, device: &Device) -> Result<int8::Quantized> {
        let module = self.name.strip_suffix(".weight").unwrap_or(self.name);
        if let Some(format) = self.checkpoint.get(&format!("{module}.weight_format"))
            && format.bytes.iter().any(|byte| *byte != 0)
        {
            return Err(self.wrong(
                "is in a weight_format of a GPU's generation, not in rows",
                "load and save it with bitsandbytes 0.45 or newer, which writes rows",
            ));
        }
        let Shape { rows, cols } = self.shape;
        let codes = self.part(self.name, &[rows, cols], Dtype::I8)?;
        let scb = self.part(&format!("{module}.SCB"), &[rows], Dtype::F32)?;
        let mut weight = int8::Quantized::new(device, self.shape)?;
        weight.codes.view_mut().write_bytes(codes.bytes)?;
        put(&scb, self.name, weight.scb.view_mut())?;
        Ok(weight)
    }
}
