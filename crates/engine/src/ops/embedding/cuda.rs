//! The launches of embedding.cu.

use crate::cuda::Module;
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "embedding",
    ptx: include_str!("embedding.ptx"),
    kernels: &[
        ("embedding_forward_bf16", 256, 0),
        ("embedding_forward_f32", 256, 0),
        ("embedding_backward_bf16", 256, 0),
        ("embedding_backward_f32", 256, 0),
    ],
};

pub(super) fn forward(ids: View<'_>, table: View<'_>, y: ViewMut<'_>) -> Result<()> {
    let kernel = match table.dtype() {
        DType::BF16 => "embedding_forward_bf16",
        _ => "embedding_forward_f32",
    };
    y.device().cuda().launch(
        &MODULE,
        kernel,
        [ids.rows() as u32, 1, 1],
        &[
            ids.into(),
            table.into(),
            (&y).into(),
            (table.rows() as u32).into(),
            (table.cols() as u32).into(),
        ],
    )
}

pub(super) fn backward(ids: View<'_>, dy: View<'_>, dtable: ViewMut<'_>) -> Result<()> {
    let kernel = match dtable.view().dtype() {
        DType::BF16 => "embedding_backward_bf16",
        _ => "embedding_backward_f32",
    };
    dtable.device().cuda().launch(
        &MODULE,
        kernel,
        [ids.rows() as u32, 1, 1],
        &[
            ids.into(),
            dy.into(),
            (&dtable).into(),
            (ids.rows() as u32).into(),
            (dtable.rows() as u32).into(),
            (dtable.cols() as u32).into(),
        ],
    )
}
