//! `prospect inspect quantize`: a safetensors file with its linear layers in 4 bits.

use std::path::PathBuf;

use ::train::error::Result;
use ::train::fit::bytes;
use clap::{Args, ValueEnum};
use engine::ops::nf4::CodeBook;
use models::quantize::{self, Request, SKIPPED};

use crate::ending::Done;
use crate::terminal::print;
use crate::words::things;

/// Quantize a safetensors file to 4 bits, in bitsandbytes' layout and names
///
/// Quantized are tensors of two dimensions whose name ends with `weight`, in blocks of 64 elements, as bitsandbytes does.
/// Embeddings and the head stay as they are, and so does everything else. What is written is what transformers writes of the
/// same model: `weight` (codes), `weight.absmax`, `weight.quant_map`, `weight.quant_state.bitsandbytes__nf4` or `__fp4`, and with
/// --double-quant `weight.nested_absmax` and `weight.nested_quant_map`. A sharded model is quantized file by file. Prospect reads
/// the result as it is; transformers asks for `quantization_config` in config.json besides.
#[derive(Args)]
pub(crate) struct Quantize {
    /// The file to read: safetensors in F32, BF16 or F16
    #[arg(value_name = "IN.safetensors")]
    input: PathBuf,

    /// What the 4 bits stand for
    #[arg(long, value_name = "FORM")]
    to: Form,

    /// Quantize the scales as well: 0.516 instead of 0.563 bytes a weight
    #[arg(long)]
    double_quant: bool,

    /// Leave tensors as they are whose name contains this; may be given several times
    #[arg(long, value_name = "WORD")]
    skip: Vec<String>,

    /// Quantize embeddings and the head as well, which neither transformers nor Prospect reads
    #[arg(long)]
    all: bool,

    /// The file to write; it must not exist yet
    #[arg(long, value_name = "OUT.safetensors")]
    out: PathBuf,
}

/// A code book by its name.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// NormalFloat: the better of the two for weights
    Nf4,
    /// A float of a sign, two bits of exponent and one of mantissa
    Fp4,
}

/// Quantizes.
pub(crate) fn run(arguments: &Quantize) -> Result<Done> {
    let mut skip = arguments.skip.clone();
    if !arguments.all {
        skip.extend(SKIPPED.map(str::to_owned));
    }
    let code_book = match arguments.to {
        Form::Nf4 => CodeBook::Nf4,
        Form::Fp4 => CodeBook::Fp4,
    };
    let request = Request { code_book, double_quant: arguments.double_quant, skip: &skip };
    let written = quantize::quantize(&arguments.input, &request, &arguments.out)?;
    print(&format!(
        "wrote '{}': {} in {}, {} as before; {} instead of {}",
        arguments.out.display(),
        things(written.quantized, "tensor"),
        code_book.name(),
        things(written.kept, "tensor"),
        bytes(written.after as u64),
        bytes(written.before as u64)
    ));
    Ok(Done::Well)
}
