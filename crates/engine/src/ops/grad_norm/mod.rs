//! The norm of a gradient, and the factor that clips it.
//!
//! * [`sum_of_squares`] of `gradient` (N, C) f32, in f64 on the host; the norm over several tensors is the square
//!   root of their sum
//! * [`clip_factor`] as torch.nn.utils.clip_grad_norm_: `min(1, max_norm / (norm + 1e-6))`

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::View;

const OP: &str = "grad_norm";

/// The sum of the squares of all elements of all `gradients`, in their order; 0 on `plan`.
pub fn sum_of_squares(gradients: &[View<'_>]) -> Result<f64> {
    for gradient in gradients {
        expect(OP, "gradient", *gradient, (gradient.rows(), gradient.cols()), DType::F32)?;
    }
    let Some(first) = gradients.first() else { return Ok(0.0) };
    let device = first.device();
    let partial = match device.arithmetic() {
        Kind::Cuda => Some(cuda::partial_sums(device, gradients.len())?),
        _ => None,
    };
    if device.is_plan() {
        let count: usize = gradients.iter().map(|gradient| gradient.shape().len()).sum();
        device.book(OP, 2.0 * count as f64, 4.0 * count as f64);
        return Ok(0.0);
    }
    match partial {
        Some(partial) => cuda::sum_of_squares(gradients, partial),
        None => Ok(gradients.iter().map(|g| cpu::sum_of_squares(g.as_slice())).sum()),
    }
}

/// What the gradient is multiplied with so that its norm is at most `max_norm`.
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}
