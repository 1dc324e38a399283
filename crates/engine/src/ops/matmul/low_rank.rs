//! The launches of low_rank.cu: an adapter's share of a layer's outputs.

use crate::cuda::gemm::{Layout, Product};
use crate::cuda::{Arg, Cuda, Module};
use crate::dtype::DType;
use crate::error::Result;

pub(crate) static MODULE: Module = Module {
    name: "low_rank",
    ptx: include_str!("low_rank.ptx"),
    kernels: &[("low_rank_add_16", THREADS, 0), ("low_rank_add_32", THREADS, 0)],
};

const THREADS: u32 = 128;
/// Columns of a block: 64 a warp.
const COLUMNS: usize = 256;

/// True for what low_rank.cu computes: a product with a small inner size that is added to bf16 results, all of whose
/// rows start where the kernel's loads can.
pub(crate) fn takes(product: &Product) -> bool {
    let Product { layout, m, k, left, right, out, add, .. } = product;
    let pairs = |address: u64, stride: usize| address.is_multiple_of(4) && stride.is_multiple_of(2);
    *layout == Layout::Forward
        && *add
        && out.dtype == DType::BF16
        && (8..=32).contains(k)
        && k.is_multiple_of(8)
        && m.is_multiple_of(8)
        && pairs(left.address, left.stride)
        && pairs(right.address, right.stride)
        && out.address.is_multiple_of(16)
        && out.stride.is_multiple_of(8)
}

/// Queues a product that is taken.
pub(crate) fn launch(cuda: &Cuda, product: &Product) -> Result<()> {
    let &Product { n, m, k, left, right, out, alpha, .. } = product;
    let kernel = if k <= 16 { "low_rank_add_16" } else { "low_rank_add_32" };
    // Long columns spare reading the adapter's matrix again; short ones give every multiprocessor something to do.
    let enough = 4 * cuda.multiprocessors() as usize;
    let blocks = |rows: usize| n.div_ceil(rows) * m.div_ceil(COLUMNS);
    let rows = [128, 64].into_iter().find(|rows| blocks(*rows) >= enough).unwrap_or(32);
    let number = |value: usize| Arg::from(value as u32);
    let args = [
        left.address.into(),
        right.address.into(),
        out.address.into(),
        number(n),
        number(m),
        number(k),
        number(left.stride),
        number(right.stride),
        number(out.stride),
        alpha.into(),
        number(rows),
    ];
    let grid = [m.div_ceil(COLUMNS) as u32, n.div_ceil(rows) as u32, 1];
    cuda.launch(&MODULE, kernel, grid, &args)
}
