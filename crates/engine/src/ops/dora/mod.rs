//! DoRA (Liu et al., arXiv 2402.09353, eq. 5, as PEFT 0.21 computes it): a low-rank update in which the length of
//! each output's weight row is trained apart from its direction, `y_j = u_j m_j / norm_j` with
//! `u = x W^T + s (x A^T) B^T` and `norm_j = |w_j + s (B A)_j|`.
//!
//! * [`row_norms`]: `weight` (M, K), `a` (R, K), `b` (M, R) activations, `norm` (M) f32. `B A` exists in tiles of
//!   [`TILE_ROWS`] rows, in f32
//! * [`forward`]: `y` (N, M) activations holds `u` and becomes `y`; `magnitude`, `norm` (M) f32. The caller keeps `u`
//!   where the magnitude has a gradient
//! * [`backward`]: `du = dy m / norm`, overwritten; `dmagnitude_j += sum over rows of dy_j u_j / norm_j`. The norm is
//!   taken as a constant (section 4.3 of the paper)

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use super::matmul::{self, Output};
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{View, ViewMut};

const OP: &str = "dora";

/// Rows of `B A` that exist at a time.
pub const TILE_ROWS: usize = 512;

/// See the room's contract.
pub fn row_norms(
    weight: View<'_>,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    mut norm: ViewMut<'_>,
) -> Result<()> {
    let (m, k) = (weight.rows(), weight.cols());
    let device = weight.device();
    expect(OP, "weight", weight, (m, k), device.activations())?;
    expect(OP, "a", a, (a.rows(), k), device.activations())?;
    expect(OP, "b", b, (m, a.rows()), device.activations())?;
    expect(OP, "norm", norm.view(), (m, 1), DType::F32)?;
    let mut tile = device.scratch((TILE_ROWS.min(m), k), DType::F32, Category::Workspace)?;
    for start in (0..m).step_by(TILE_ROWS) {
        let rows = start..(start + TILE_ROWS).min(m);
        let mut update = tile.slice_mut(0..rows.len());
        let b = b.slice(rows.clone());
        matmul::backward_input(b, a, scale, Output::Write, update.reborrow())?;
        let (weight, norm) = (weight.slice(rows.clone()), norm.slice_mut(rows));
        let update = update.view();
        if device.is_plan() {
            let bytes = weight.bytes() + update.bytes();
            device.book("dora row_norms", 3.0 * weight.shape().len() as f64, bytes as f64);
        } else if device.kind() == Kind::Cuda {
            cuda::row_norms(weight, update, norm)?;
        } else {
            cpu::row_norms(weight.as_slice(), update.as_slice(), k, norm.into_mut_slice());
        }
    }
    Ok(())
}

fn check(rows: View<'_>, magnitude: View<'_>, norm: View<'_>) -> Result<()> {
    expect(OP, "magnitude", magnitude, (rows.cols(), 1), DType::F32)?;
    expect(OP, "norm", norm, (rows.cols(), 1), DType::F32)
}

/// See the room's contract.
pub fn forward(mut y: ViewMut<'_>, magnitude: View<'_>, norm: View<'_>) -> Result<()> {
    expect(OP, "y", y.view(), (y.rows(), y.cols()), y.device().activations())?;
    check(y.view(), magnitude, norm)?;
    if y.device().is_plan() {
        y.device().book(OP, y.shape().len() as f64, 2.0 * y.view().bytes() as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(y.reborrow(), magnitude, norm);
    }
    cpu::forward(y.into_mut_slice(), magnitude.as_slice(), norm.as_slice());
    Ok(())
}

/// See the room's contract.
pub fn backward(
    dy: View<'_>,
    u: View<'_>,
    magnitude: View<'_>,
    norm: View<'_>,
    du: ViewMut<'_>,
    dmagnitude: ViewMut<'_>,
) -> Result<()> {
    let shape = (dy.rows(), dy.cols());
    expect(OP, "dy", dy, shape, dy.device().activations())?;
    expect(OP, "u", u, shape, dy.dtype())?;
    expect(OP, "du", du.view(), shape, dy.dtype())?;
    check(dy, magnitude, norm)?;
    expect(OP, "dmagnitude", dmagnitude.view(), (dy.cols(), 1), DType::F32)?;
    if du.device().is_plan() {
        du.device().book("dora backward", 3.0 * dy.shape().len() as f64, 3.0 * dy.bytes() as f64);
        return Ok(());
    }
    if du.device().kind() == Kind::Cuda {
        return cuda::backward(dy, u, magnitude, norm, du, dmagnitude);
    }
    let (dy, norm) = (dy.as_slice(), norm.as_slice());
    cpu::backward_input(dy, magnitude.as_slice(), norm, du.into_mut_slice());
    cpu::backward_magnitude(dy, u.as_slice(), norm, dmagnitude.into_mut_slice());
    Ok(())
}
