//! Sums: `y += x` element by element, and a bias added to every row.
//!
//! * [`forward`]: `x`, `y` (N, C) activations, `y += x`; its backward is the identity for both
//! * [`bias`]: `y` (N, C), `bias` (C) f32, `y_i += bias`; backward [`bias_backward`]: `dbias += sum over rows of dy`

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

const OP: &str = "add";

/// `y += x`.
pub fn forward(x: View<'_>, y: ViewMut<'_>) -> Result<()> {
    expect(OP, "x", x, (y.rows(), y.cols()), x.device().activations())?;
    expect(OP, "y", y.view(), (y.rows(), y.cols()), x.dtype())?;
    if y.device().is_plan() {
        y.device().book(OP, x.shape().len() as f64, 3.0 * x.bytes() as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(x, y);
    }
    cpu::forward(x.as_slice(), y.into_mut_slice());
    Ok(())
}

/// `y_i += bias` for every row i.
pub fn bias(bias: View<'_>, y: ViewMut<'_>) -> Result<()> {
    expect(OP, "bias", bias, (y.cols(), 1), DType::F32)?;
    expect(OP, "y", y.view(), (y.rows(), y.cols()), y.device().activations())?;
    if y.device().is_plan() {
        y.device().book("add bias", y.shape().len() as f64, 2.0 * y.view().bytes() as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::bias(bias, y);
    }
    cpu::bias(bias.as_slice(), y.into_mut_slice());
    Ok(())
}

/// `dbias += sum over rows of dy`.
pub fn bias_backward(dy: View<'_>, dbias: ViewMut<'_>) -> Result<()> {
    expect(OP, "dy", dy, (dy.rows(), dy.cols()), dy.device().activations())?;
    expect(OP, "dbias", dbias.view(), (dy.cols(), 1), DType::F32)?;
    if dbias.device().is_plan() {
        dbias.device().book("add bias_backward", dy.shape().len() as f64, dy.bytes() as f64);
        return Ok(());
    }
    if dbias.device().kind() == Kind::Cuda {
        return cuda::bias_backward(dy, dbias);
    }
    cpu::bias_backward(dy.as_slice(), dbias.into_mut_slice());
    Ok(())
}
