//! The launches of dora.cu.

use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "dora",
    ptx: include_str!("dora.ptx"),
    kernels: &[
        ("dora_row_norms", 256, 0),
        ("dora_scale", 256, 0),
        ("dora_backward_magnitude", 256, 0),
    ],
};

pub(super) fn row_norms(weight: View<'_>, update: View<'_>, norm: ViewMut<'_>) -> Result<()> {
    let (m, k) = (weight.rows() as u32, weight.cols() as u32);
    let args = [weight.into(), update.into(), (&norm).into(), k.into()];
    norm.device().cuda().launch(&MODULE, "dora_row_norms", [m, 1, 1], &args)
}

pub(super) fn forward(y: ViewMut<'_>, magnitude: View<'_>, norm: View<'_>) -> Result<()> {
    scale(y.view(), magnitude, norm, &y)
}

fn scale(from: View<'_>, magnitude: View<'_>, norm: View<'_>, to: &ViewMut<'_>) -> Result<()> {
    let n = from.shape().len();
    let args = [
        from.into(),
        magnitude.into(),
        norm.into(),
        to.into(),
        (n as u64).into(),
        (from.cols() as u32).into(),
    ];
    to.device().cuda().launch(&MODULE, "dora_scale", blocks(n, 1), &args)
}

pub(super) fn backward(
    dy: View<'_>,
    u: View<'_>,
    magnitude: View<'_>,
    norm: View<'_>,
    du: ViewMut<'_>,
    dmagnitude: ViewMut<'_>,
) -> Result<()> {
    scale(dy, magnitude, norm, &du)?;
    let (n, c) = (dy.rows() as u32, dy.cols() as u32);
    let args = [dy.into(), u.into(), norm.into(), (&dmagnitude).into(), n.into(), c.into()];
    let grid = [c.div_ceil(32), 1, 1];
    dmagnitude.device().cuda().launch(&MODULE, "dora_backward_magnitude", grid, &args)
}
