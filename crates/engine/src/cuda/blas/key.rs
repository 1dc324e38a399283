//! What a product looks like to cuBLASLt: the key under which its algorithm is kept, and its shape in columns.

use crate::cuda::gemm::{Layout, Product};
use crate::dtype::DType;

/// What the choice of an algorithm hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Which of the three products.
    pub layout: Layout,
    /// Rows of x and y, rounded up by [`bucket`].
    pub rows: usize,
    /// Outputs of the layer.
    pub m: usize,
    /// Inputs of the layer.
    pub k: usize,
    /// Row strides of left, right and out, in elements.
    pub strides: [usize; 3],
    /// True where the result is f32, false where it is bf16.
    pub wide: bool,
    /// True where the product is added to the result's old value.
    pub add: bool,
    /// True where all addresses are multiples of 16.
    pub aligned: bool,
}

/// Rows rounded up so that shapes repeat: powers of two to 256, then multiples of 256.
pub(crate) fn bucket(rows: usize) -> usize {
    if rows <= 256 { rows.next_power_of_two() } else { rows.next_multiple_of(256) }
}

impl Key {
    pub(crate) fn of(product: &Product) -> Key {
        let Product { left, right, out, .. } = product;
        Key {
            layout: product.layout,
            rows: bucket(product.n),
            m: product.m,
            k: product.k,
            strides: [left.stride, right.stride, out.stride],
            wide: out.dtype == DType::F32,
            add: product.add,
            aligned: [left, right, out].iter().all(|matrix| matrix.address % 16 == 0),
        }
    }
}

/// A product as cuBLASLt sees it: columns first. Pairs are (rows, columns).
pub(super) struct Transposed {
    pub(super) transpose: [bool; 2],
    pub(super) right: (usize, usize),
    pub(super) left: (usize, usize),
    pub(super) out: (usize, usize),
}

impl Transposed {
    pub(super) fn new(layout: Layout, n: usize, m: usize, k: usize) -> Transposed {
        match layout {
            // y^T (M, N) = W x^T
            Layout::Forward => {
                Transposed { transpose: [true, false], right: (k, m), left: (k, n), out: (m, n) }
            }
            // dx^T (K, N) = W^T dy^T
            Layout::BackwardInput => {
                Transposed { transpose: [false, false], right: (k, m), left: (m, n), out: (k, n) }
            }
            // dW^T (K, M) = x^T dy
            Layout::BackwardWeight => {
                Transposed { transpose: [false, true], right: (k, n), left: (m, n), out: (k, m) }
            }
        }
    }
}
