//! 4-bit quantization in bitsandbytes' layout, to the byte of bitsandbytes 0.50.2's CPU path: NF4, NormalFloat
//! (Dettmers et al., arXiv 2305.14314, appendix E), and with the same storage FP4, a float of 4 bits. Which of the two a
//! weight is in says its [`CodeBook`].
//!
//! * `x` (R, C) activations, row-major; blocks of `block_size` consecutive elements regardless of rows, the last may be short
//! * codes ((n + 1) / 2) u8, the first element of a pair in the high nibble; `absmax` of each block in f32
//! * `code = nearest(x / absmax)` over the code book, an exact tie takes the lower value. bitsandbytes' CUDA kernel
//!   compares magnitudes in FP4: there a tie below zero takes the other neighbour, and what rounds to zero has code 8
//!   where it is negative, code 0 where it is not; the CPU has it the other way round, and both codes are zero
//! * what is not finite has no code that means anything: who reads a file refuses it
//! * double quantization: the mean of all absmax is the offset, the rest is an 8-bit code in blocks of 256 with
//!   its own f32 absmax; `absmax_i = map[code_i] * nested_i/256 + offset`
//! * [`dequantize`]: `y = values[code] * absmax`, `y` (R, C) activations, overwritten. There is no backward: a quantized
//!   weight is frozen

mod code_book;
mod cpu;
pub(super) mod cuda;
pub mod tables;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{Shape, Tensor, View, ViewMut};

pub use code_book::CodeBook;

const OP: &str = "nf4";

/// Elements of a block, unless a checkpoint says otherwise.
pub const BLOCK_SIZE: usize = 64;
/// Absmax values that share one nested absmax.
pub const NESTED_BLOCK_SIZE: usize = 256;

/// A weight in 4 bits.
pub struct Quantized {
    /// Rows and columns of the weight.
    pub shape: Shape,
    /// What its codes stand for.
    pub code_book: CodeBook,
    /// Elements of a block.
    pub block_size: usize,
    /// Two codes a byte.
    pub codes: Tensor,
    /// The scale of each block.
    pub scales: Scales,
}

/// The scale of each block of a [`Quantized`] weight.
pub enum Scales {
    /// f32, one a block.
    Plain {
        /// (blocks) f32.
        absmax: Tensor,
    },
    /// Quantized themselves.
    Double {
        /// (blocks) u8, codes of [`tables::dynamic_signed`].
        codes: Tensor,
        /// (blocks / 256, rounded up) f32.
        nested_absmax: Tensor,
        /// (1) f32: the mean of all absmax.
        offset: Tensor,
    },
}

impl Quantized {
    /// Room for a weight of `shape` that lives through the run.
    pub fn new(
        device: &Device,
        shape: Shape,
        code_book: CodeBook,
        block_size: usize,
        double_quant: bool,
    ) -> Result<Quantized> {
        let blocks = shape.len().div_ceil(block_size);
        let take = |n: usize, dtype| device.persistent((n, 1), dtype, Category::Weights);
        let codes = take(shape.len().div_ceil(2), DType::U8)?;
        let scales = if double_quant {
            Scales::Double {
                codes: take(blocks, DType::U8)?,
                nested_absmax: take(blocks.div_ceil(NESTED_BLOCK_SIZE), DType::F32)?,
                offset: take(1, DType::F32)?,
            }
        } else {
            Scales::Plain { absmax: take(blocks, DType::F32)? }
        };
        Ok(Quantized { shape, code_book, block_size, codes, scales })
    }
}

/// See the room's contract.
pub fn quantize(x: View<'_>, out: &mut Quantized) -> Result<()> {
    expect(OP, "x", x, (out.shape.rows, out.shape.cols), x.device().activations())?;
    let blocks = out.shape.len().div_ceil(out.block_size);
    // A GPU keeps the scales in f32 until all of them are known.
    let scales = match (&out.scales, x.device().arithmetic()) {
        (Scales::Double { .. }, Kind::Cuda) => {
            Some(x.device().scratch((blocks, 1), DType::F32, Category::Workspace)?)
        }
        _ => None,
    };
    if x.device().is_plan() {
        x.device().book(
            "nf4 quantize",
            2.0 * out.shape.len() as f64,
            x.bytes() as f64 + out.codes.view().bytes() as f64,
        );
        return Ok(());
    }
    if x.device().kind() == Kind::Cuda {
        return cuda::quantize(x, out, scales);
    }
    let absmax =
        cpu::quantize(x.as_slice(), out.code_book, out.block_size, out.codes.as_mut_slice());
    match &mut out.scales {
        Scales::Plain { absmax: to } => to.as_mut_slice().copy_from_slice(&absmax),
        Scales::Double { codes, nested_absmax, offset } => {
            offset.as_mut_slice()[0] =
                cpu::quantize_absmax(&absmax, codes.as_mut_slice(), nested_absmax.as_mut_slice());
        }
    }
    Ok(())
}

/// See the room's contract.
pub fn dequantize(x: &Quantized, y: ViewMut<'_>) -> Result<()> {
    expect(OP, "y", y.view(), (x.shape.rows, x.shape.cols), y.device().activations())?;
    if y.device().is_plan() {
        y.device().book(
            "nf4 dequantize",
            x.shape.len() as f64,
            y.view().bytes() as f64 + x.codes.view().bytes() as f64,
        );
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::dequantize(x, y);
    }
    let codes = x.codes.as_slice();
    let values = x.code_book.values();
    match &x.scales {
        Scales::Plain { absmax } => {
            let absmax: &[f32] = absmax.as_slice();
            cpu::dequantize(values, codes, x.block_size, |block| absmax[block], y.into_mut_slice());
        }
        Scales::Double { codes: absmax, nested_absmax, offset } => {
            let (absmax, nested): (&[u8], &[f32]) = (absmax.as_slice(), nested_absmax.as_slice());
            let offset = offset.as_slice::<f32>()[0];
            let map = tables::dynamic_signed();
            let scale = |block: usize| {
                map[absmax[block] as usize] * nested[block / NESTED_BLOCK_SIZE] + offset
            };
            cpu::dequantize(values, codes, x.block_size, scale, y.into_mut_slice());
        }
    }
    Ok(())
}
