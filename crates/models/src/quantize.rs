//! A safetensors file with its linear layers in 4 bits: the tensors, names and bytes that transformers 5.23 writes of a
//! model whose `Params4bit` weights bitsandbytes 0.50.2 quantized on a CPU.
//!
//! A file knows no modules, so a rule stands for "linear layer": a tensor of two dimensions whose name ends with `weight`
//! and contains none of the words that are skipped.

use std::path::Path;

use data::template::float_repr;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::nf4::{self, BLOCK_SIZE, CodeBook, NESTED_BLOCK_SIZE, Quantized, Scales, tables};
use engine::tensor::Shape;
use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, Stored};
use crate::error::{Error, Result};
use crate::export::{self, Entry};
use crate::weights::stored_form;

/// Words in the names of what transformers leaves as it is: embeddings, which are no linear layer, and the head.
pub const SKIPPED: [&str; 2] = ["embed", "lm_head"];

/// How to quantize.
pub struct Request<'a> {
    /// nf4 or fp4.
    pub code_book: CodeBook,
    /// The scales are quantized as well.
    pub double_quant: bool,
    /// A tensor whose name contains one of these stays as it is.
    pub skip: &'a [String],
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Tensors in 4 bits.
    pub quantized: usize,
    /// Tensors as they were.
    pub kept: usize,
    /// Bytes of all tensors before.
    pub before: usize,
    /// Bytes of all tensors after.
    pub after: usize,
}

/// Quantizes the tensors of the file `input` and writes the file `out`.
pub fn quantize(input: &Path, request: &Request<'_>, out: &Path) -> Result<Written> {
    if out.exists() {
        return Err(Error::input(
            format!("'{}' exists already", out.display()),
            "choose another file",
        ));
    }
    let checkpoint = Checkpoint::open_file(input)?;
    if let Some(form) = stored_form(&checkpoint) {
        return Err(Error::input(
            format!("'{}' is stored as {form} already", input.display()),
            "take the model it was made from: what is rounded twice is off twice",
        ));
    }
    let mut written = Written::default();
    let mut entries = Vec::new();
    for name in checkpoint.names() {
        let Some(stored) = checkpoint.get(name) else { continue };
        written.before += stored.bytes.len();
        let skipped = request.skip.iter().any(|word| name.contains(word.as_str()));
        let shape = match stored.shape {
            [rows, cols] if name.ends_with("weight") && !skipped => Shape::from((*rows, *cols)),
            _ => Shape::from((0, 0)),
        };
        if shape.is_empty() {
            let hint = "tensors are read from F32, BF16 and F16";
            entries.push(Entry::stored(name, stored, hint)?);
            written.kept += 1;
        } else {
            entries.extend(in_4_bits(name, &stored, shape, request)?);
            written.quantized += 1;
        }
    }
    if written.quantized == 0 {
        return Err(Error::input(
            format!("'{}' has no tensor to quantize", input.display()),
            "what is quantized has two dimensions and a name that ends with weight",
        ));
    }
    // As safetensors lays them out: wide types first, then by name.
    entries.sort_by(|a, b| rank(a.dtype).cmp(&rank(b.dtype)).then_with(|| a.name.cmp(&b.name)));
    written.after = entries.iter().map(Entry::bytes_len).sum();
    export::write_safetensors(out, &entries)?;
    Ok(written)
}

fn rank(dtype: &str) -> usize {
    ["F32", "BF16", "F16", "I8", "U8"].iter().position(|known| *known == dtype).unwrap_or(0)
}

/// The parts of a quantized weight.
fn in_4_bits(
    name: &str,
    stored: &Stored<'_>,
    shape: Shape,
    request: &Request<'_>,
) -> Result<Vec<Entry<'static>>> {
    let mut values = vec![0f32; shape.len()];
    stored.to_f32(name, &mut values)?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::input(
            format!("{name} in '{}' is not finite at element {at}", stored.file.display()),
            "the file is damaged, or the model was broken when it was saved: download it again",
        ));
    }
    let on = |device: &Device| -> Result<Quantized> {
        let book = request.code_book;
        let mut held = Quantized::new(device, shape, book, BLOCK_SIZE, request.double_quant)?;
        let mut x = device.scratch(shape, DType::F32, Category::Workspace)?;
        x.write(&values)?;
        nf4::quantize(x.view(), &mut held)?;
        Ok(held)
    };
    let plan = Device::plan_for(Kind::Cpu);
    on(&plan)?;
    let held = on(&Device::cpu(plan.peak_bytes())?)?;

    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let part = |suffix: &str, dtype: &'static str, shape: Vec<usize>, bytes: Vec<u8>| Entry {
        name: format!("{name}{suffix}"),
        dtype,
        shape,
        bytes: Box::new(move || Ok(bytes.clone())),
    };
    let dtype = match stored.dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        _ => "float32",
    };
    let mut state = format!(
        r#"{{"quant_type": "{}", "blocksize": {BLOCK_SIZE}, "dtype": "{dtype}", "shape": [{}, {}]"#,
        request.code_book.name(),
        shape.rows,
        shape.cols
    );
    let codes: Vec<u8> = held.codes.to_vec()?;
    let map = request.code_book.values();
    let mut parts = vec![
        part("", "U8", vec![codes.len(), 1], codes),
        part(".quant_map", "F32", vec![map.len()], f32s(map)),
    ];
    match &held.scales {
        Scales::Plain { absmax } => {
            parts.push(part(".absmax", "F32", vec![absmax.rows()], f32s(absmax.as_slice())));
        }
        Scales::Double { codes, nested_absmax, offset } => {
            let (blocks, map) = (nested_absmax.rows(), tables::dynamic_signed());
            parts.push(part(".absmax", "U8", vec![codes.rows()], codes.to_vec()?));
            let nested = f32s(nested_absmax.as_slice());
            parts.push(part(".nested_absmax", "F32", vec![blocks], nested));
            parts.push(part(".nested_quant_map", "F32", vec![map.len()], f32s(map)));
            state += &format!(
                r#", "nested_blocksize": {NESTED_BLOCK_SIZE}, "nested_dtype": "float32", "nested_offset": {}"#,
                float_repr(f64::from(offset.as_slice::<f32>()[0]))
            );
        }
    }
    state.push('}');
    let suffix = format!(".quant_state.bitsandbytes__{}", request.code_book.name());
    parts.push(part(&suffix, "U8", vec![state.len()], state.into_bytes()));
    Ok(parts)
}

#[cfg(test)]
mod tests;
