//! LLM.int8(): weights in 8 bits with a scale a row (Dettmers et al., arXiv 2208.07339), to the byte of bitsandbytes
//! 0.50.2's `int8_vectorwise_quant` and `int8_vectorwise_dequant`.
//!
//! * `x` (R, C) activations, row-major, rounded to f16 first, as bitsandbytes does
//! * `scb` (R, 1) f32: the largest magnitude of each row; a magnitude beyond f16's 65504 makes it infinite, which who
//!   reads a file refuses
//! * codes (R, C) i8: `round(x * (1 / scb * 127))`, ties to even; a row of zeros has codes 0
//! * [`dequantize`]: `y = code * scb * (1 / 127)` in f32, multiplied from left to right and rounded once to activations, `y`
//!   (R, C), overwritten. There is no backward: a quantized weight is frozen
//!
//! bitsandbytes multiplies in 8 bits forward: it rounds each row of activations to 127 steps of its largest, but for columns
//! that reach the threshold of 6, which it multiplies in f16, and its backward multiplies with the dequantized weight. Prospect
//! dequantizes the weight for both directions and multiplies in the type of activations. So activations are not rounded,
//! no threshold is needed, and the gradient is that of what was computed forward; what is left is the error of the weights.

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{Shape, Tensor, View, ViewMut};

const OP: &str = "int8";

/// A weight in 8 bits.
pub struct Quantized {
    /// (R, C) i8.
    pub codes: Tensor,
    /// (R, 1) f32: the scale of each row, which code 127 stands for.
    pub scb: Tensor,
}

impl Quantized {
    /// Room for a weight of `shape` that lives through the run.
    pub fn new(device: &Device, shape: Shape) -> Result<Quantized> {
        Ok(Quantized {
            codes: device.persistent(shape, DType::I8, Category::Weights)?,
            scb: device.persistent((shape.rows, 1), DType::F32, Category::Weights)?,
        })
    }

    /// Rows and columns of the weight.
    pub fn shape(&self) -> Shape {
        self.codes.shape()
    }
}

/// See the room's contract.
pub fn quantize(x: View<'_>, out: &mut Quantized) -> Result<()> {
    let Shape { rows, cols } = out.shape();
    expect(OP, "x", x, (rows, cols), x.device().activations())?;
    if x.device().is_plan() {
        let bytes = x.bytes() + out.codes.view().bytes() + out.scb.view().bytes();
        x.device().book("int8 quantize", 2.0 * out.shape().len() as f64, bytes as f64);
        return Ok(());
    }
    if x.device().kind() == Kind::Cuda {
        return cuda::quantize(x, out);
    }
    cpu::quantize(x.as_slice(), cols, out.codes.as_mut_slice(), out.scb.as_mut_slice());
    Ok(())
}

/// See the room's contract.
pub fn dequantize(x: &Quantized, y: ViewMut<'_>) -> Result<()> {
    let Shape { rows, cols } = x.shape();
    expect(OP, "y", y.view(), (rows, cols), y.device().activations())?;
    if y.device().is_plan() {
        let bytes = y.view().bytes() + x.codes.view().bytes() + x.scb.view().bytes();
        y.device().book("int8 dequantize", 2.0 * x.shape().len() as f64, bytes as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::dequantize(x, y);
    }
    cpu::dequantize(x.codes.as_slice(), x.scb.as_slice(), cols, y.into_mut_slice());
    Ok(())
}
