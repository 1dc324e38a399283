//! RMSNorm (Zhang and Sennrich, arXiv 1910.07467, eq. 4): `y = x * rstd * (weight + offset)` with
//! `rstd = 1 / sqrt(mean(x^2) + eps)` per row.
//!
//! * `x`, `y` (N, C) activations, `weight` (C) f32, `rstd` (N) f32 is saved for backward
//! * [`add_forward`] does `x += y` first: what a block adds to the stream, and the next norm of it
//! * `offset` is 1 where a family stores `weight - 1`, else 0
//! * a row may hold several norms side by side: with `weight` of C elements and `x` of (N, G C), each of the G
//!   parts is normalized on its own (the norms of query and key heads) and `rstd` is (N, G)
//! * backward: `dx += rstd * (dy w - x rstd^2 mean(dy w x))`, added because the residual stream also flows past
//!   the norm; `dweight += sum over rows of dy x rstd`

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::{add, expect};
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const OP: &str = "rms_norm";

fn check(x: View<'_>, weight: View<'_>, rstd: View<'_>) -> Result<()> {
    let c = weight.rows();
    if c == 0 || !x.cols().is_multiple_of(c) {
        return Err(Error::Shape { op: OP, name: "weight", got: (c, 1), expected: (x.cols(), 1) });
    }
    expect(OP, "x", x, (x.rows(), x.cols()), x.device().activations())?;
    expect(OP, "weight", weight, (c, 1), DType::F32)?;
    expect(OP, "rstd", rstd, (x.rows(), x.cols() / c), DType::F32)
}

/// See the room's contract.
pub fn forward(
    x: View<'_>,
    weight: View<'_>,
    offset: f32,
    eps: f32,
    y: ViewMut<'_>,
    rstd: ViewMut<'_>,
) -> Result<()> {
    check(x, weight, rstd.view())?;
    expect(OP, "y", y.view(), (x.rows(), x.cols()), x.dtype())?;
    if y.device().is_plan() {
        y.device().book("rms_norm", 4.0 * x.shape().len() as f64, 2.0 * x.bytes() as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(x, false, weight, offset, eps, y, rstd);
    }
    cpu::forward(
        x.as_slice(),
        weight.as_slice(),
        offset,
        eps,
        y.into_mut_slice(),
        rstd.into_mut_slice(),
    );
    Ok(())
}

/// `x += y`, then [`forward`] of it into `y`.
pub fn add_forward(
    mut x: ViewMut<'_>,
    y: ViewMut<'_>,
    weight: View<'_>,
    offset: f32,
    eps: f32,
    rstd: ViewMut<'_>,
) -> Result<()> {
    if x.device().kind() != Kind::Cuda {
        add::forward(y.view(), x.reborrow())?;
        return forward(x.view(), weight, offset, eps, y, rstd);
    }
    check(x.view(), weight, rstd.view())?;
    expect(OP, "y", y.view(), (x.rows(), x.cols()), x.view().dtype())?;
    cuda::forward(x.view(), true, weight, offset, eps, y, rstd)
}

/// See the room's contract. `dweight` is left out where the weight is frozen.
pub fn backward(
    dy: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    offset: f32,
    rstd: View<'_>,
    dx: ViewMut<'_>,
    dweight: Option<ViewMut<'_>>,
) -> Result<()> {
    check(x, weight, rstd)?;
    expect(OP, "dy", dy, (x.rows(), x.cols()), x.dtype())?;
    expect(OP, "dx", dx.view(), (x.rows(), x.cols()), x.dtype())?;
    if let Some(dweight) = &dweight {
        expect(OP, "dweight", dweight.view(), (weight.rows(), 1), DType::F32)?;
    }
    if dx.device().is_plan() {
        dx.device().book("rms_norm backward", 8.0 * x.shape().len() as f64, 4.0 * x.bytes() as f64);
        return Ok(());
    }
    if dx.device().kind() == Kind::Cuda {
        return cuda::backward(dy, x, weight, offset, rstd, dx, dweight);
    }
    let (dy, x, weight, rstd) = (dy.as_slice(), x.as_slice(), weight.as_slice(), rstd.as_slice());
    if let Some(dweight) = dweight {
        cpu::backward_weight(dy, x, rstd, dweight.into_mut_slice());
    }
    cpu::backward_input(dy, x, weight, offset, rstd, dx.into_mut_slice());
    Ok(())
}
