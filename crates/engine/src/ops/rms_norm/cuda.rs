//! The launches of rms_norm.cu.

use crate::cuda::Module;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "rms_norm",
    ptx: include_str!("rms_norm.ptx"),
    kernels: &[
        ("rms_norm_forward_warp", 256, 0),
        ("rms_norm_forward_block", 256, 0),
        ("rms_norm_backward_warp", 256, 0),
        ("rms_norm_backward_block", 256, 0),
        ("rms_norm_backward_weight", 256, 0),
    ],
};

/// Rows up to this long are done by a warp each, eight to a block.
const WARP_ROW: usize = 512;

fn grid(rows: usize, cols: usize) -> [u32; 3] {
    [if cols <= WARP_ROW { rows.div_ceil(8) } else { rows } as u32, 1, 1]
}

/// Where `adds`, `y` is added to `x` first: the caller holds `x` to write then.
pub(super) fn forward(
    x: View<'_>,
    adds: bool,
    weight: View<'_>,
    offset: f32,
    eps: f32,
    y: ViewMut<'_>,
    rstd: ViewMut<'_>,
) -> Result<()> {
    let c = weight.rows();
    let n = x.shape().len() / c;
    let kernel = if c <= WARP_ROW { "rms_norm_forward_warp" } else { "rms_norm_forward_block" };
    x.device().cuda().launch(
        &MODULE,
        kernel,
        grid(n, c),
        &[
            x.into(),
            u32::from(adds).into(),
            weight.into(),
            offset.into(),
            eps.into(),
            (&y).into(),
            (&rstd).into(),
            (n as u32).into(),
            (c as u32).into(),
        ],
    )
}

pub(super) fn backward(
    dy: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    offset: f32,
    rstd: View<'_>,
    dx: ViewMut<'_>,
    dweight: Option<ViewMut<'_>>,
) -> Result<()> {
    let (cuda, c) = (x.device().cuda(), weight.rows());
    let n = x.shape().len() / c;
    if let Some(dweight) = dweight {
        cuda.launch(
            &MODULE,
            "rms_norm_backward_weight",
            [c.div_ceil(32) as u32, 1, 1],
            &[
                dy.into(),
                x.into(),
                rstd.into(),
                (&dweight).into(),
                (n as u32).into(),
                (c as u32).into(),
            ],
        )?;
    }
    let kernel = if c <= WARP_ROW { "rms_norm_backward_warp" } else { "rms_norm_backward_block" };
    cuda.launch(
        &MODULE,
        kernel,
        grid(n, c),
        &[
            dy.into(),
            x.into(),
            weight.into(),
            offset.into(),
            rstd.into(),
            (&dx).into(),
            (n as u32).into(),
            (c as u32).into(),
        ],
    )
}
