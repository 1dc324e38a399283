//! The norm of a gradient, and the factor that clips it.
//!
//! * [`sum_of_squares`] of `gradient` (N, C) f32, in f64 on the host; the norm over several tensors is the square
//!   root of their sum
//! * [`clip_factor`] as torch.nn.utils.clip_grad_norm_: `min(1, max_norm / (norm + 1e-6))`
//! * [`scale`]: `gradient *= factor`, in place

mod cpu;
#[cfg(test)]
mod tests;

use super::expect;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

const OP: &str = "grad_norm";

/// The sum of the squares of all elements; 0 on `plan`.
pub fn sum_of_squares(gradient: View<'_>) -> Result<f64> {
    expect(OP, "gradient", gradient, (gradient.rows(), gradient.cols()), DType::F32)?;
    if gradient.device().is_plan() {
        gradient.device().book(OP, 2.0 * gradient.shape().len() as f64, gradient.bytes() as f64);
        return Ok(0.0);
    }
    Ok(cpu::sum_of_squares(gradient.as_slice()))
}

/// What the gradient is multiplied with so that its norm is at most `max_norm`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}

/// `gradient *= factor`.
pub fn scale(gradient: ViewMut<'_>, factor: f32) -> Result<()> {
    expect(OP, "gradient", gradient.view(), (gradient.rows(), gradient.cols()), DType::F32)?;
    if gradient.device().is_plan() {
        let view = gradient.view();
        gradient.device().book(
            "grad_norm scale",
            view.shape().len() as f64,
            2.0 * view.bytes() as f64,
        );
        return Ok(());
    }
    cpu::scale(gradient.into_mut_slice(), factor);
    Ok(())
}
