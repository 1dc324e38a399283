//! The launches of add.cu.

use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "add",
    ptx: include_str!("add.ptx"),
    kernels: &[("add_forward", 256, 0), ("add_bias", 256, 0), ("add_bias_backward", 256, 0)],
};

pub(super) fn forward(x: View<'_>, y: ViewMut<'_>) -> Result<()> {
    let n = x.shape().len();
    let args = [x.into(), (&y).into(), (n as u64).into()];
    y.device().cuda().launch(&MODULE, "add_forward", blocks(n, 8), &args)
}

pub(super) fn bias(bias: View<'_>, y: ViewMut<'_>) -> Result<()> {
    let n = y.shape().len();
    let args = [bias.into(), (&y).into(), (n as u64).into(), (y.cols() as u32).into()];
    y.device().cuda().launch(&MODULE, "add_bias", blocks(n, 1), &args)
}

pub(super) fn bias_backward(dy: View<'_>, dbias: ViewMut<'_>) -> Result<()> {
    let (n, c) = (dy.rows() as u32, dy.cols() as u32);
    let args = [dy.into(), (&dbias).into(), n.into(), c.into()];
    dbias.device().cuda().launch(&MODULE, "add_bias_backward", [c.div_ceil(32), 1, 1], &args)
}
