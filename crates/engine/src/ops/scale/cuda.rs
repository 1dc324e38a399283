//! The launch of scale.cu.

use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::ViewMut;

pub(crate) static MODULE: Module =
    Module { name: "scale", ptx: include_str!("scale.ptx"), kernels: &[("scale_forward", 256, 0)] };

pub(super) fn forward(x: ViewMut<'_>, factor: f32) -> Result<()> {
    let n = x.shape().len();
    let args = [(&x).into(), (n as u64).into(), factor.into()];
    x.device().cuda().launch(&MODULE, "scale_forward", blocks(n, 8), &args)
}
