//! Cast: the same values in another element type, bf16 to f32 (exact) or f32 to bf16 (nearest, ties to even).
//!
//! * `x` and `y` (N, C), one f32 and the other bf16; `y` is overwritten; weights only, so there is no backward

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

const OP: &str = "cast";

/// See the room's contract.
pub fn forward(x: View<'_>, y: ViewMut<'_>) -> Result<()> {
    let other = if x.dtype() == DType::F32 { DType::BF16 } else { DType::F32 };
    let from = if other == DType::F32 { DType::BF16 } else { DType::F32 };
    expect(OP, "x", x, (x.rows(), x.cols()), from)?;
    expect(OP, "y", y.view(), (x.rows(), x.cols()), other)?;
    if y.device().is_plan() {
        y.device().book(OP, 0.0, (x.shape().len() * 6) as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(x, y);
    }
    match other {
        DType::F32 => cpu::widen(x.as_slice(), y.into_mut_slice()),
        _ => cpu::narrow(x.as_slice(), y.into_mut_slice()),
    }
    Ok(())
}
