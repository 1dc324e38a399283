//! Neighbouring columns out of a wider matrix, and back into it: a linear layer that computes queries, keys and values
//! at once is split so.
//!
//! * `wide` (N, W) activations, `part` (N, C) activations, columns `start..start + C` of `wide`
//! * [`take`] overwrites `part`; [`put`] overwrites those columns of `wide` and leaves the others as they are
//! * the backward of either is the other, on the gradients

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const OP: &str = "columns";

fn check(wide: View<'_>, start: usize, part: View<'_>) -> Result<()> {
    expect(OP, "wide", wide, (part.rows(), wide.cols()), wide.device().activations())?;
    expect(OP, "part", part, (wide.rows(), part.cols()), wide.dtype())?;
    if start.checked_add(part.cols()).is_none_or(|end| end > wide.cols()) {
        return Err(Error::Argument {
            op: OP,
            what: format!("{} columns from {start} on, of {}", part.cols(), wide.cols()),
            hint: "the parts of a fused layer lie within its output",
        });
    }
    Ok(())
}

/// `part = wide[:, start..start + C]`.
pub fn take(wide: View<'_>, start: usize, part: ViewMut<'_>) -> Result<()> {
    check(wide, start, part.view())?;
    if wide.device().is_plan() {
        wide.device().book(OP, 0.0, 2.0 * part.view().bytes() as f64);
        return Ok(());
    }
    if wide.device().kind() == Kind::Cuda {
        return cuda::take(wide, start, part);
    }
    let cols = part.cols();
    cpu::take(wide.as_slice(), wide.cols(), start, part.into_mut_slice(), cols);
    Ok(())
}

/// `wide[:, start..start + C] = part`.
pub fn put(part: View<'_>, start: usize, wide: ViewMut<'_>) -> Result<()> {
    check(wide.view(), start, part)?;
    if part.device().is_plan() {
        part.device().book(OP, 0.0, 2.0 * part.bytes() as f64);
        return Ok(());
    }
    if part.device().kind() == Kind::Cuda {
        return cuda::put(part, start, wide);
    }
    let cols = wide.cols();
    cpu::put(part.as_slice(), part.cols(), start, wide.into_mut_slice(), cols);
    Ok(())
}
