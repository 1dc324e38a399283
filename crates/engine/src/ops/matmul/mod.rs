//! Matrix products of a linear layer, `y = alpha x W^T`, and its two gradients.
//!
//! * `x` (N, K), `weight` (M, K) as Hugging Face stores it, `y` (N, M), in the device's activations; on a GPU `y` and
//!   `dx` may be f32
//! * backward: `dx (N, K) = alpha dy (N, M) weight (M, K)`, `dweight (M, K) += alpha dy^T x`, f32
//! * [`Output::Add`] adds to what is there instead of overwriting: for the second summand of a sum of products
//! * nothing is saved; the caller keeps `x` where the weight has a gradient

mod cpu;
pub(crate) mod cuda;
pub(crate) mod low_rank;
#[cfg(test)]
mod tests;

use super::expect;
use crate::cuda::gemm::{self, Layout};
use crate::device::Kind;
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

/// Checks a result that is in the device's activations, or f32.
fn expect_result(name: &'static str, view: View<'_>, shape: (usize, usize)) -> Result<()> {
    let activations = view.device().activations();
    let dtype = if view.dtype() == DType::F32 { DType::F32 } else { activations };
    expect(OP, name, view, shape, dtype)
}

/// True on `plan`, where the product is booked and nothing else is to do.
fn book(name: &'static str, operands: [View<'_>; 2], [n, m, k]: [usize; 3], out: View<'_>) -> bool {
    let bytes = operands.iter().map(View::bytes).sum::<usize>() + out.bytes();
    out.device().book(name, 2.0 * n as f64 * m as f64 * k as f64, bytes as f64);
    out.device().is_plan()
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
    let device = x.device();
    expect(OP, "x", x, (n, k), device.activations())?;
    expect(OP, "weight", weight, (m, k), device.activations())?;
    expect_result("y", y.view(), (n, m))?;
    let workspace = gemm::workspace(device)?;
    if book("matmul", [x, weight], [n, m, k], y.view()) {
        return Ok(());
    }
    if device.kind() == Kind::Cuda {
        let (operands, sizes) = ([x, weight], [n, m, k]);
        return cuda::multiply(
            Layout::Forward,
            operands,
            sizes,
            alpha,
            output,
            &y,
            workspace.as_ref(),
        );
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
    let device = dy.device();
    expect(OP, "dy", dy, (n, m), device.activations())?;
    expect(OP, "weight", weight, (m, k), device.activations())?;
    expect_result("dx", dx.view(), (n, k))?;
    let workspace = gemm::workspace(device)?;
    if book("matmul backward_input", [dy, weight], [n, m, k], dx.view()) {
        return Ok(());
    }
    if device.kind() == Kind::Cuda {
        let (operands, sizes) = ([dy, weight], [n, m, k]);
        let layout = Layout::BackwardInput;
        return cuda::multiply(layout, operands, sizes, alpha, output, &dx, workspace.as_ref());
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
    let device = dy.device();
    expect(OP, "dy", dy, (n, m), device.activations())?;
    expect(OP, "x", x, (n, k), device.activations())?;
    expect(OP, "dweight", dweight.view(), (m, k), DType::F32)?;
    let workspace = gemm::workspace(device)?;
    if book("matmul backward_weight", [dy, x], [n, m, k], dweight.view()) {
        return Ok(());
    }
    if device.kind() == Kind::Cuda {
        let (operands, sizes) = ([dy, x], [n, m, k]);
        let (layout, add) = (Layout::BackwardWeight, Output::Add);
        return cuda::multiply(layout, operands, sizes, alpha, add, &dweight, workspace.as_ref());
    }
    cpu::backward_weight(dy.as_slice(), x.as_slice(), [n, m, k], alpha, dweight.into_mut_slice());
    Ok(())
}
