//! The launches of columns.cu.

use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "columns",
    ptx: include_str!("columns.ptx"),
    kernels: &[
        ("columns_take_8", 256, 0),
        ("columns_take_1", 256, 0),
        ("columns_put_8", 256, 0),
        ("columns_put_1", 256, 0),
    ],
};

/// Whether eight neighbours move at once: every row of both, and the first column, lie on 16 bytes.
fn in_eights(width: usize, start: usize, cols: usize) -> bool {
    [width, start, cols].iter().all(|size| size.is_multiple_of(8))
}

pub(super) fn take(wide: View<'_>, start: usize, part: ViewMut<'_>) -> Result<()> {
    let (n, cols) = (part.shape().len(), part.cols());
    let (kernel, each) = if in_eights(wide.cols(), start, cols) {
        ("columns_take_8", 8)
    } else {
        ("columns_take_1", 1)
    };
    let args = [
        wide.into(),
        (&part).into(),
        ((n / each) as u64).into(),
        (cols as u32).into(),
        (wide.cols() as u32).into(),
        (start as u32).into(),
    ];
    wide.device().cuda().launch(&MODULE, kernel, blocks(n / each, 1), &args)
}

pub(super) fn put(part: View<'_>, start: usize, wide: ViewMut<'_>) -> Result<()> {
    let (n, cols) = (part.shape().len(), part.cols());
    let (kernel, each) = if in_eights(wide.cols(), start, cols) {
        ("columns_put_8", 8)
    } else {
        ("columns_put_1", 1)
    };
    let args = [
        part.into(),
        (&wide).into(),
        ((n / each) as u64).into(),
        (cols as u32).into(),
        (wide.cols() as u32).into(),
        (start as u32).into(),
    ];
    part.device().cuda().launch(&MODULE, kernel, blocks(n / each, 1), &args)
}
