//! The launches of rope.cu.

use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "rope",
    ptx: include_str!("rope.ptx"),
    kernels: &[("rope_turn_8", 256, 0), ("rope_turn_1", 256, 0)],
};

pub(super) fn turn(
    x: ViewMut<'_>,
    head_dim: usize,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    direction: f32,
) -> Result<()> {
    let half = cos.cols();
    let (kernel, each) = if half.is_multiple_of(8) && head_dim.is_multiple_of(8) {
        ("rope_turn_8", 8)
    } else {
        ("rope_turn_1", 1)
    };
    let heads = x.cols() / head_dim;
    let total = x.rows() * heads * (half / each);
    x.device().cuda().launch(
        &MODULE,
        kernel,
        blocks(total, 1),
        &[
            (&x).into(),
            positions.into(),
            cos.into(),
            sin.into(),
            (total as u64).into(),
            (heads as u32).into(),
            (head_dim as u32).into(),
            (half as u32).into(),
            (cos.rows() as u32).into(),
            direction.into(),
        ],
    )
}
