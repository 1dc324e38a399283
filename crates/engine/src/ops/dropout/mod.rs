//! Dropout (Srivastava et al., JMLR 15, 2014), inverted: `y_i = x_i mask_i / (1 - p)`, where `mask_i` is 0 with chance p.
//!
//! * `x`, `y` (N, C) activations; the mask is a function of (seed, stream, i), so it is drawn again instead of saved
//! * forward overwrites `y`; backward: `dx += dy mask / (1 - p)`, added because the layer's input flows on elsewhere

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

const OP: &str = "dropout";

/// What the mask is drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mask {
    /// The run's seed.
    pub seed: u64,
    /// Another one for every step, micro-batch and layer.
    pub stream: u64,
    /// Chance of a zero, below 1.
    pub p: f32,
}

/// See the room's contract.
pub fn forward(x: View<'_>, mask: Mask, y: ViewMut<'_>) -> Result<()> {
    expect(OP, "x", x, (y.rows(), y.cols()), x.device().activations())?;
    expect(OP, "y", y.view(), (x.rows(), x.cols()), x.dtype())?;
    if y.device().is_plan() {
        y.device().book(OP, x.shape().len() as f64, 2.0 * x.bytes() as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(x, mask, y);
    }
    cpu::apply(x.as_slice(), mask, y.into_mut_slice(), |y, value| *y = value);
    Ok(())
}

/// See the room's contract.
pub fn backward(dy: View<'_>, mask: Mask, dx: ViewMut<'_>) -> Result<()> {
    expect(OP, "dy", dy, (dx.rows(), dx.cols()), dy.device().activations())?;
    expect(OP, "dx", dx.view(), (dy.rows(), dy.cols()), dy.dtype())?;
    if dx.device().is_plan() {
        dx.device().book("dropout backward", dy.shape().len() as f64, 3.0 * dy.bytes() as f64);
        return Ok(());
    }
    if dx.device().kind() == Kind::Cuda {
        return cuda::backward(dy, mask, dx);
    }
    cpu::apply(dy.as_slice(), mask, dx.into_mut_slice(), |dx, value| *dx += value);
    Ok(())
}

impl Mask {
    /// What is kept is multiplied with this.
    fn keep(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// Draws below this become zero.
    fn threshold(&self) -> u32 {
        (f64::from(self.p) * 4_294_967_296.0) as u32
    }
}
