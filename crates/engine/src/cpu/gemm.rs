//! Matrix products on the CPU: the `gemm` crate's kernels over tiles of the result.
//!
//! The tiles depend on the shape alone and the inner dimension is never split among tasks, so the bytes of the
//! result do not depend on the number of threads.

use std::ops::Range;

use super::parallel::{self, Disjoint};

/// A matrix to read: `rows` x `cols`, element (i, j) at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows lie `row_stride` elements apart.
    pub fn new(values: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Matrix<'a> {
        assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= values.len());
        Matrix { values, rows, cols, row_stride, col_stride: 1 }
    }

    /// Rows become columns.
    pub fn transposed(self) -> Matrix<'a> {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn rows(self, range: Range<usize>) -> Matrix<'a> {
        let start = (range.start * self.row_stride).min(self.values.len());
        Matrix { values: &self.values[start..], rows: range.len(), ..self }
    }

    fn columns(self, range: Range<usize>) -> Matrix<'a> {
        let start = (range.start * self.col_stride).min(self.values.len());
        Matrix { values: &self.values[start..], cols: range.len(), ..self }
    }
}

/// Columns of a result tile.
const TILE_COLS: usize = 128;

/// Rows of a result tile. The right side is packed anew for every tile, which for a transposed one (a linear layer's
/// weight) costs a quarter of the product at 256 rows and a twentieth at 1024. Few columns leave few tiles for the
/// cores and little to pack, so there they are short.
fn tile_rows(columns: usize) -> usize {
    if columns < TILE_COLS { 256 } else { 1024 }
}

/// `out (M, N) = [out +] alpha * a (M, K) b (K, N)`, with the rows of `out` `stride` elements apart.
pub fn multiply(
    a: Matrix<'_>,
    b: Matrix<'_>,
    alpha: f32,
    add: bool,
    out: &mut [f32],
    stride: usize,
) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    let (m, n) = (a.rows, b.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * stride + n <= out.len() && n <= stride);
    let (column_tiles, tile_rows) = (n.div_ceil(TILE_COLS), tile_rows(n));
    let out = Disjoint::new(out);
    parallel::ranges(m.div_ceil(tile_rows) * column_tiles, 1, |tile| {
        let (row, column) =
            (tile.start / column_tiles * tile_rows, tile.start % column_tiles * TILE_COLS);
        let rows = row..(row + tile_rows).min(m);
        let columns = column..(column + TILE_COLS).min(n);
        let start = row * stride + column;
        let end = (rows.end - 1) * stride + columns.end;
        // SAFETY: two tiles share no element; the slices of two tiles may overlap in the columns between, which
        // neither touches, and both are only used through the pointer below.
        #[allow(unsafe_code)]
        let tile = unsafe { out.range(start..end) };
        multiply_serial(a.rows(rows), b.columns(columns), alpha, add, tile, stride);
    });
}

/// [`multiply`] on the calling thread, for kernels that are parallel themselves.
pub fn multiply_serial(
    a: Matrix<'_>,
    b: Matrix<'_>,
    alpha: f32,
    add: bool,
    out: &mut [f32],
    stride: usize,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!(b.rows == k && (m - 1) * stride + n <= out.len());
    if k == 0 {
        if !add {
            out.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    // SAFETY: `Matrix::new` and the assertion above keep every element that the strides reach inside its slice.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn tiles_agree_with_the_triple_loop_in_odd_shapes_and_all_layouts() {
        for (m, n, k) in [(1, 1, 1), (7, 33, 47), (257, 513, 33), (1030, 131, 5), (300, 1, 7)] {
            let a = Stream::new(1, 0).normals(m * k);
            let b = Stream::new(2, 0).normals(k * n);
            let bt: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let exact = |i: usize, j: usize| -> f64 {
                (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum()
            };
            for right in [Matrix::new(&b, k, n, n), Matrix::new(&bt, n, k, k).transposed()] {
                let mut out = vec![1.0; m * n];
                multiply(Matrix::new(&a, m, k, k), right, 2.0, true, &mut out, n);
                for i in 0..m {
                    for j in 0..n {
                        let want = 1.0 + 2.0 * exact(i, j);
                        assert!(
                            (f64::from(out[i * n + j]) - want).abs() < 1e-4,
                            "({m}, {n}, {k}) at ({i}, {j})"
                        );
                    }
                }
            }
        }
    }
}
