//! A factor on every element, in place: `y = factor x`. Families multiply embeddings and what a block adds to the
//! stream.
//!
//! * `x` (N, C) activations; nothing is saved
//! * backward is the same factor on the gradient, in place, so there is one function for both

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::error::{Error, Result};
use crate::tensor::ViewMut;

const OP: &str = "scale";

/// See the room's contract.
pub fn forward(x: ViewMut<'_>, factor: f32) -> Result<()> {
    expect(OP, "x", x.view(), (x.rows(), x.cols()), x.device().activations())?;
    if !factor.is_finite() {
        return Err(Error::Argument {
            op: OP,
            what: format!("a factor of {factor}"),
            hint: "the multipliers in config.json are finite numbers",
        });
    }
    if x.device().is_plan() {
        x.device().book(OP, x.shape().len() as f64, 2.0 * x.view().bytes() as f64);
        return Ok(());
    }
    if x.device().kind() == Kind::Cuda {
        return cuda::forward(x, factor);
    }
    cpu::forward(x.into_mut_slice(), factor);
    Ok(())
}

/// See the room's contract.
pub fn backward(dx: ViewMut<'_>, factor: f32) -> Result<()> {
    forward(dx, factor)
}
