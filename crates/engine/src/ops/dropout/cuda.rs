//! The launches of dropout.cu.

use super::Mask;
use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "dropout",
    ptx: include_str!("dropout.ptx"),
    kernels: &[("dropout_forward", 256, 0), ("dropout_backward", 256, 0)],
};

pub(super) fn forward(x: View<'_>, mask: Mask, y: ViewMut<'_>) -> Result<()> {
    launch("dropout_forward", x, mask, y)
}

pub(super) fn backward(dy: View<'_>, mask: Mask, dx: ViewMut<'_>) -> Result<()> {
    launch("dropout_backward", dy, mask, dx)
}

fn launch(kernel: &'static str, x: View<'_>, mask: Mask, y: ViewMut<'_>) -> Result<()> {
    let n = x.shape().len();
    let args = [
        x.into(),
        (&y).into(),
        (n as u64).into(),
        mask.seed.into(),
        mask.stream.into(),
        mask.threshold().into(),
        mask.keep().into(),
    ];
    y.device().cuda().launch(&MODULE, kernel, blocks(n, 4), &args)
}
