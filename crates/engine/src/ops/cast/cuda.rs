//! The launches of cast.cu.

use crate::cuda::Module;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "cast",
    ptx: include_str!("cast.ptx"),
    kernels: &[("cast_widen", 256, 0), ("cast_narrow", 256, 0)],
};

pub(super) fn forward(x: View<'_>, y: ViewMut<'_>) -> Result<()> {
    let n = x.shape().len();
    let kernel = if x.dtype() == DType::BF16 { "cast_widen" } else { "cast_narrow" };
    let args = [x.into(), (&y).into(), (n as u64).into()];
    y.device().cuda().launch(&MODULE, kernel, blocks(n, 8), &args)
}
