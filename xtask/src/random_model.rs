//! Checkpoints of random weights in the shapes people train, for benchmarks without downloads. Speed and memory do not
//! depend on the values.

use std::io;
use std::path::Path;

use engine::ops::nf4::{BLOCK_SIZE, CodeBook, NESTED_BLOCK_SIZE, tables};
use engine::random::philox;
use models::export::{Entry, MAX_SHARD_BYTES, write_model};
use planner::shapes::Shape;
use rayon::prelude::*;
use serde_json::{Value, json};

const USAGE: &str = "\
usage: cargo xtask random-model --shape SHAPE [--format nf4|fp4|int8|bf16] [--tokenizer FOLDER] [--layers N] OUT

  SHAPE   tiny 1b 3b 7b 8b 13b 20b 32b 70b
  nf4     as bitsandbytes stores it, double-quantized (the default), and so fp4; int8 as it stores that; bf16 as
          Hugging Face does";

#[derive(Clone, Copy, PartialEq)]
enum Format {
    FourBit(CodeBook),
    Int8,
    Bf16,
}

/// Writes a checkpoint.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    let (mut shape, mut format, mut tokenizer, mut layers, mut out) =
        (None, Format::FourBit(CodeBook::Nf4), None, None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().copied().ok_or_else(|| USAGE.to_owned());
        match *argument {
            "--shape" => {
                let name = value()?;
                shape = Shape::find(name);
                if shape.is_none() {
                    return Err(format!("there is no shape '{name}'\n{USAGE}"));
                }
            }
            "--format" => {
                format = match value()? {
                    "int8" => Format::Int8,
                    "bf16" => Format::Bf16,
                    name => Format::FourBit(CodeBook::named(name).ok_or(USAGE)?),
                }
            }
            "--tokenizer" => tokenizer = Some(value()?),
            "--layers" => layers = Some(value()?.parse::<usize>().map_err(|_| USAGE.to_owned())?),
            folder if !folder.starts_with('-') => out = Some(folder),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (Some(shape), Some(out)) = (shape, out) else { return Err(USAGE.to_owned()) };
    let out = Path::new(out);
    let failed = |error: io::Error| format!("cannot write '{}': {error}", out.display());
    std::fs::create_dir_all(out).map_err(failed)?;
    let layers = layers.unwrap_or(shape.layers);
    write_model(out, &entries(&shape, layers, format), MAX_SHARD_BYTES)
        .map_err(|error| error.to_string())?;
    let config = Value::Object(Shape { layers, ..shape }.config_json());
    std::fs::write(out.join("config.json"), format!("{config:#}\n")).map_err(failed)?;
    if let Some(folder) = tokenizer {
        for file in std::fs::read_dir(folder).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let Some(name) = path.file_name() else { continue };
            std::fs::copy(&path, out.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}

/// All tensors, each made when it is written.
fn entries(shape: &Shape, layers: usize, format: Format) -> Vec<Entry<'static>> {
    let (c, i) = (shape.hidden, shape.intermediate);
    let kv = c / shape.heads * shape.kv_heads;
    let mut all = vec![table("model.embed_tokens.weight".to_owned(), shape.vocabulary, c)];
    for layer in 0..layers {
        let name = |path: &str| format!("model.layers.{layer}.{path}.weight");
        all.push(ones(name("input_layernorm"), c));
        let linears = [
            ("self_attn.q_proj", c, c),
            ("self_attn.k_proj", kv, c),
            ("self_attn.v_proj", kv, c),
            ("self_attn.o_proj", c, c),
            ("mlp.gate_proj", i, c),
            ("mlp.up_proj", i, c),
            ("mlp.down_proj", c, i),
        ];
        for (path, rows, cols) in linears {
            match format {
                Format::Bf16 => all.push(table(name(path), rows, cols)),
                Format::FourBit(book) => all.extend(four_bit(&name(path), book, rows, cols)),
                Format::Int8 => all.extend(int8(&name(path), rows, cols)),
            }
        }
        all.push(ones(name("post_attention_layernorm"), c));
    }
    all.push(ones("model.norm.weight".to_owned(), c));
    if !shape.tied {
        all.push(table("lm_head.weight".to_owned(), shape.vocabulary, c));
    }
    all
}

fn entry(
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: impl Fn() -> Vec<u8> + 'static,
) -> Entry<'static> {
    Entry { name, dtype, shape, bytes: Box::new(move || Ok(bytes())) }
}

fn ones(name: String, n: usize) -> Entry<'static> {
    entry(name, "BF16", vec![n], move || [0x80, 0x3f].repeat(n))
}

/// A seed that follows from the tensor's name.
fn key(name: &str) -> [u32; 2] {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    [hash as u32, (hash >> 32) as u32]
}

/// `n` random bytes.
fn random_bytes(key: [u32; 2], n: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; n.next_multiple_of(16)];
    bytes.par_chunks_mut(1 << 16).enumerate().for_each(|(chunk, bytes)| {
        for (block, bytes) in bytes.chunks_mut(16).enumerate() {
            let words = philox(key, [block as u32, chunk as u32, 0, 0]);
            for (bytes, word) in bytes.chunks_mut(4).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    });
    bytes.truncate(n);
    bytes
}

/// bf16 numbers of standard deviation 0.02: the sum of four uniform ones.
fn table(name: String, rows: usize, cols: usize) -> Entry<'static> {
    let key = key(&name);
    entry(name, "BF16", vec![rows, cols], move || {
        let mut bytes = random_bytes(key, rows * cols * 2);
        bytes.par_chunks_mut(2).with_min_len(1 << 14).for_each(|pair| {
            let nibbles = [pair[0] & 15, pair[0] >> 4, pair[1] & 15, pair[1] >> 4];
            let sum: f32 = nibbles.iter().map(|nibble| f32::from(*nibble) - 7.5).sum();
            let bits = ((0.02 / 9.22) * sum).to_bits();
            pair.copy_from_slice(&((bits >> 16) as u16).to_le_bytes());
        });
        bytes
    })
}

/// Codes and scales as bitsandbytes stores them: uniform codes whose scale makes the weights' standard deviation about 0.02.
fn four_bit(name: &str, book: CodeBook, rows: usize, cols: usize) -> Vec<Entry<'static>> {
    let blocks = (rows * cols).div_ceil(BLOCK_SIZE);
    let nested = blocks.div_ceil(NESTED_BLOCK_SIZE);
    let part = |suffix: &str| format!("{name}{suffix}");
    let codes = key(&part(""));
    let f32s = |values: Vec<f32>| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let state = json!({
        "quant_type": book.name(), "blocksize": BLOCK_SIZE, "dtype": "bfloat16", "shape": [rows, cols],
        "nested_blocksize": NESTED_BLOCK_SIZE, "nested_dtype": "float32", "nested_offset": 0.035,
    })
    .to_string()
    .into_bytes();
    let length = state.len();
    vec![
        entry(part(""), "U8", vec![rows * cols / 2, 1], move || {
            random_bytes(codes, rows * cols / 2)
        }),
        entry(part(".absmax"), "U8", vec![blocks], move || vec![127; blocks]),
        entry(part(".nested_absmax"), "F32", vec![nested], move || f32s(vec![0.01; nested])),
        entry(part(".nested_quant_map"), "F32", vec![256], move || {
            f32s(tables::dynamic_signed().to_vec())
        }),
        entry(part(".quant_map"), "F32", vec![16], move || f32s(book.values().to_vec())),
        entry(part(&format!(".quant_state.bitsandbytes__{}", book.name())), "U8", vec![length], {
            move || state.clone()
        }),
    ]
}

/// Codes and scales as bitsandbytes stores them in 8 bits: uniform codes of the same standard deviation.
fn int8(name: &str, rows: usize, cols: usize) -> Vec<Entry<'static>> {
    let codes = key(name);
    let module = name.trim_end_matches(".weight");
    vec![
        entry(name.to_owned(), "I8", vec![rows, cols], move || random_bytes(codes, rows * cols)),
        entry(format!("{module}.SCB"), "F32", vec![rows], move || {
            0.035f32.to_le_bytes().repeat(rows)
        }),
        entry(format!("{module}.weight_format"), "U8", vec![], || vec![0]),
    ]
}
