//! Matrix products of a linear layer, `y = alpha x W^T`, and its two gradients.
//!
//! * `x` (N, K), `weight` (M, K) as Hugging Face stores it, `y` (N, M), all f32
//! * backward: `dx (N, K) = alpha dy (N, M) weight (M, K)`, `dweight (M, K) += alpha dy^T x`
//! * [`Output::Add`] adds to what is there instead of overwriting: for the second summand of a sum of products
//! * nothing is saved; the caller keeps `x` where the weight has a gradient

mod cpu;
#[cfg(test)]
mod tests;

use super::expect;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

const OP: &str = "matmul";

/// What happens to the result's old value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It is overwritten.
    Write,
    /// The product is added to it.
    Add,
}

fn book(out: &ViewMut<'_>, name: &'static str, n: usize, m: usize, k: usize) -> bool {
    let planned = out.device().is_plan();
    if planned {
        out.device().book(
            name,
            2.0 * n as f64 * m as f64 * k as f64,
            4.0 * (n * m + m * k + n * k) as f64,
        );
    }
    planned
}

/// `y = alpha x weight^T`.
pub fn forward(
    x: View<'_>,
    weight: View<'_>,
    alpha: f32,
    output: Output,
    y: ViewMut<'_>,
) -> Result<()> {
    let (n, m, k) = (x.rows(), weight.rows(), x.cols());
    expect(OP, "x", x, (n, k), DType::F32)?;
    expect(OP, "weight", weight, (m, k), DType::F32)?;
    expect(OP, "y", y.view(), (n, m), DType::F32)?;
    if book(&y, "matmul", n, m, k) {
        return Ok(());
    }
    cpu::forward(x.as_slice(), weight.as_slice(), [n, m, k], alpha, output, y.into_mut_slice());
    Ok(())
}

/// `dx = alpha dy weight`.
pub fn backward_input(
    dy: View<'_>,
    weight: View<'_>,
    alpha: f32,
    output: Output,
    dx: ViewMut<'_>,
) -> Result<()> {
    let (n, m, k) = (dy.rows(), dy.cols(), weight.cols());
    expect(OP, "dy", dy, (n, m), DType::F32)?;
    expect(OP, "weight", weight, (m, k), DType::F32)?;
    expect(OP, "dx", dx.view(), (n, k), DType::F32)?;
    if book(&dx, "matmul backward_input", n, m, k) {
        return Ok(());
    }
    cpu::backward_input(
        dy.as_slice(),
        weight.as_slice(),
        [n, m, k],
        alpha,
        output,
        dx.into_mut_slice(),
    );
    Ok(())
}

/// `dweight += alpha dy^T x`.
pub fn backward_weight(dy: View<'_>, x: View<'_>, alpha: f32, dweight: ViewMut<'_>) -> Result<()> {
    let (n, m, k) = (dy.rows(), dy.cols(), x.cols());
    expect(OP, "dy", dy, (n, m), DType::F32)?;
    expect(OP, "x", x, (n, k), DType::F32)?;
    expect(OP, "dweight", dweight.view(), (m, k), DType::F32)?;
    if book(&dweight, "matmul backward_weight", n, m, k) {
        return Ok(());
    }
    cpu::backward_weight(dy.as_slice(), x.as_slice(), [n, m, k], alpha, dweight.into_mut_slice());
    Ok(())
}
