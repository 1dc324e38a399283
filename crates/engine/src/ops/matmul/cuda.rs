//! The products on a GPU: what the room's functions ask of [`gemm`], and the launches of matmul.cu, which it falls
//! back to.

use super::Output;
use crate::cuda::gemm::{self, Layout, Matrix, Product, WORKSPACE_BYTES};
use crate::cuda::{Arg, Cuda, Module};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::{Tensor, View, ViewMut};

/// Kernel, threads of a block, shared bytes: `stages (rows + columns) inner` bf16 of the [`TILES`].
const KERNELS: &[(&str, u32, u32)] = &[
    ("matmul_128x256", 256, 98_304),
    ("matmul_128x128", 128, 49_152),
    ("matmul_64x32", 128, 49_152),
    ("matmul_32x64", 128, 49_152),
    ("matmul_any", 128, 16_384),
    ("matmul_reduce", 256, 0),
];

pub(crate) static FORWARD: Module =
    Module { name: "matmul_forward", ptx: include_str!("matmul_forward.ptx"), kernels: KERNELS };
pub(crate) static BACKWARD_INPUT: Module = Module {
    name: "matmul_backward_input",
    ptx: include_str!("matmul_backward_input.ptx"),
    kernels: KERNELS,
};
pub(crate) static BACKWARD_WEIGHT: Module = Module {
    name: "matmul_backward_weight",
    ptx: include_str!("matmul_backward_weight.ptx"),
    kernels: KERNELS,
};

/// A product of the room, n, m, k as in its contract.
pub(super) fn multiply(
    layout: Layout,
    [left, right]: [View<'_>; 2],
    [n, m, k]: [usize; 3],
    alpha: f32,
    output: Output,
    out: &ViewMut<'_>,
    workspace: Option<&Tensor>,
) -> Result<()> {
    let product = Product {
        layout,
        n,
        m,
        k,
        left: left.into(),
        right: right.into(),
        out: out.into(),
        alpha,
        add: output == Output::Add,
        workspace: workspace.map_or(0, |workspace| workspace.view().address()),
    };
    gemm::multiply(left.device().cuda(), &product)
}

/// A kernel's tile of results, the step it takes along the inner size, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    kernel: &'static str,
    rows: usize,
    columns: usize,
    inner: usize,
    /// The shortest part of the inner size worth a block of its own.
    split: usize,
}

const WIDE: Tile =
    Tile { kernel: "matmul_128x256", rows: 128, columns: 256, inner: 32, split: usize::MAX };
const SQUARE: Tile =
    Tile { kernel: "matmul_128x128", rows: 128, columns: 128, inner: 32, split: 512 };
const FEW_COLUMNS: Tile =
    Tile { kernel: "matmul_64x32", rows: 64, columns: 32, inner: 64, split: 256 };
const FEW_ROWS: Tile =
    Tile { kernel: "matmul_32x64", rows: 32, columns: 64, inner: 64, split: 256 };
const ANY: Tile = Tile { kernel: "matmul_any", rows: 64, columns: 64, inner: 32, split: 256 };

/// How a product is cut: the tile, and the parts of the inner size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    tile: Tile,
    splits: usize,
    inner_of_split: usize,
}

impl Tile {
    fn count(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }
}

/// The cut of a product of (rows, columns, inner), from its shape and the GPU's size alone. `aligned`: the kernels
/// that copy 16 bytes at a time can be used.
fn cut(rows: usize, columns: usize, inner: usize, aligned: bool, multiprocessors: usize) -> Cut {
    let tile = if !aligned {
        ANY
    } else if columns <= 64 {
        FEW_COLUMNS
    } else if rows <= 64 {
        FEW_ROWS
    } else {
        // A wide tile is two square ones of work and reads less; the square ones waste less at the edges and in the
        // last wave. 1.1: what the reading costs.
        let waves = |tile: Tile| tile.count(rows, columns).div_ceil(multiprocessors) as f64;
        if 2.0 * waves(WIDE) <= 1.1 * waves(SQUARE) { WIDE } else { SQUARE }
    };
    let tiles = tile.count(rows, columns);
    let partial = rows * columns.next_multiple_of(4) * 4;
    let splits = (2 * multiprocessors / tiles.max(1))
        .min(inner / tile.split)
        .min(WORKSPACE_BYTES / partial.max(1))
        .max(1);
    let inner_of_split = inner.div_ceil(splits).next_multiple_of(tile.inner);
    Cut { tile, splits: inner.div_ceil(inner_of_split.max(1)).max(1), inner_of_split }
}

/// True where the rows of all three start where 16-byte copies can.
fn aligned(left: &Matrix, right: &Matrix, out: &Matrix, columns: usize) -> bool {
    let operand = |m: &Matrix| m.address.is_multiple_of(16) && m.stride.is_multiple_of(8);
    let four = 4 * out.dtype.bytes() as u64;
    operand(left)
        && operand(right)
        && out.address.is_multiple_of(four)
        && out.stride.is_multiple_of(4)
        && columns.is_multiple_of(4)
}

/// Computes a product with the kernels of matmul.cu.
pub(crate) fn launch(cuda: &Cuda, product: &Product) -> Result<()> {
    let Product { layout, n, m, k, left, right, out, alpha, add, workspace } = product;
    let (module, rows, columns, inner) = match layout {
        Layout::Forward => (&FORWARD, *n, *m, *k),
        Layout::BackwardInput => (&BACKWARD_INPUT, *n, *k, *m),
        Layout::BackwardWeight => (&BACKWARD_WEIGHT, *m, *k, *n),
    };
    let aligned = aligned(left, right, out, columns);
    let cut = cut(rows, columns, inner, aligned, cuda.multiprocessors() as usize);
    let number = |value: usize| Arg::from(value as u32);
    let flags = u32::from(*add) | u32::from(out.dtype == DType::F32) << 1;
    let args = [
        left.address.into(),
        right.address.into(),
        out.address.into(),
        (*workspace).into(),
        number(rows),
        number(columns),
        number(inner),
        number(left.stride),
        number(right.stride),
        number(out.stride),
        (*alpha).into(),
        flags.into(),
        number(cut.inner_of_split),
    ];
    let tiles = cut.tile.count(rows, columns) as u32;
    cuda.launch(module, cut.tile.kernel, [tiles, cut.splits as u32, 1], &args)?;
    if cut.splits > 1 {
        let quads = rows * columns.div_ceil(4);
        let args = [
            (*workspace).into(),
            out.address.into(),
            number(rows),
            number(columns),
            number(out.stride),
            (*alpha).into(),
            flags.into(),
            number(cut.splits),
        ];
        cuda.launch(module, "matmul_reduce", [quads.div_ceil(256) as u32, 1, 1], &args)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_in_the_launch_table_is_what_the_tiles_take() {
        let stages = [4, 3, 4, 4, 2];
        let tiles = [WIDE, SQUARE, FEW_COLUMNS, FEW_ROWS, ANY];
        for ((tile, stages), (kernel, _, shared)) in tiles.iter().zip(stages).zip(KERNELS) {
            assert_eq!(tile.kernel, *kernel);
            assert_eq!(stages * (tile.rows + tile.columns) * tile.inner * 2, *shared as usize);
        }
    }

    #[test]
    fn splits_cover_the_inner_size_once_and_fit_the_workspace() {
        for multiprocessors in [1, 68, 82, 132] {
            for rows in [1, 16, 65, 200, 4096, 10_000] {
                for columns in [4, 16, 64, 128, 4096, 11_008] {
                    for inner in [0, 1, 16, 256, 1000, 4096, 10_000] {
                        let cut = cut(rows, columns, inner, inner % 8 == 0, multiprocessors);
                        let Cut { tile, splits, inner_of_split } = cut;
                        assert!(splits * inner_of_split >= inner, "{cut:?} of {inner}");
                        assert!(splits == 1 || (splits - 1) * inner_of_split < inner, "{cut:?}");
                        assert!(inner_of_split % tile.inner == 0, "{cut:?}");
                        assert!(splits == 1 || splits * rows * columns * 4 <= WORKSPACE_BYTES);
                    }
                }
            }
        }
    }

    #[test]
    fn skinny_products_are_split_and_large_ones_are_not() {
        let of = |rows, columns, inner| cut(rows, columns, inner, true, 132);
        assert_eq!(of(16, 4096, 10_240).tile, FEW_ROWS);
        assert!(of(16, 4096, 10_240).splits >= 4);
        assert!(of(4096, 16, 4096).splits >= 4);
        assert_eq!((of(4096, 4096, 4096).tile, of(4096, 4096, 4096).splits), (WIDE, 1));
        assert_eq!(cut(4096, 4097, 4096, false, 132).tile, ANY);
    }
}
