//! The leading singular vectors of a matrix, for adapters that start from the base's weights.
//!
//! * [`exact`]: one-sided Jacobi (Hestenes 1958; Golub and Van Loan, "Matrix Computations", 8.6.3) in f64 on the shorter
//!   side: all singular vectors. Its work grows with the square of that side, so it is for small matrices
//! * [`leading`]: randomized subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061, algorithm 4.4) with products
//!   in f32 on all cores, orthonormal bases in f64, and a few more vectors than are asked for
//!
//! A crate for dense linear algebra would bring a dozen more for these two; neither needs its speed.

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::matmul::{self, Output};
use engine::random::Stream;
use engine::tensor::{Tensor, View};

use crate::error::Result;

/// `M = sum_i s_i u_i v_i^T` over the largest singular values, descending.
pub(crate) struct Factors {
    /// Left vectors, one after another, each as long as a column of M.
    pub(crate) u: Vec<f64>,
    /// Singular values.
    pub(crate) s: Vec<f64>,
    /// Right vectors, each as long as a row of M.
    pub(crate) v: Vec<f64>,
}

/// Rotations stop when no pair of rows is nearer to each other than this cosine.
const ORTHOGONAL: f64 = 1e-13;
/// Sweeps over all pairs; a dozen are enough for any matrix that is not made to need more.
const SWEEPS: usize = 60;

/// The `r` leading factors of a matrix of `rows` rows, `r` at most its shorter side.
pub(crate) fn exact(matrix: &[f32], rows: usize, r: usize) -> Factors {
    let cols = matrix.len() / rows.max(1);
    if rows <= cols {
        let (s, left, right) = jacobi(matrix.iter().map(|x| f64::from(*x)).collect(), rows);
        return Factors { u: first(left, rows, r), s: s[..r].to_vec(), v: first(right, cols, r) };
    }
    let mut transposed = Vec::with_capacity(matrix.len());
    for column in 0..cols {
        transposed.extend((0..rows).map(|row| f64::from(matrix[row * cols + column])));
    }
    let (s, left, right) = jacobi(transposed, cols);
    Factors { u: first(right, rows, r), s: s[..r].to_vec(), v: first(left, cols, r) }
}

fn first(mut vectors: Vec<f64>, length: usize, count: usize) -> Vec<f64> {
    vectors.truncate(length * count);
    vectors
}

/// Singular values, descending, with left and right vectors, of a matrix whose `n` rows are no more than its columns.
fn jacobi(mut matrix: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let length = matrix.len() / n.max(1);
    // Row i of `turned` is the i-th left vector: rotations of the matrix's rows, gathered.
    let mut turned = vec![0f64; n * n];
    (0..n).for_each(|i| turned[i * n + i] = 1.0);
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for i in 0..n {
            for j in i + 1..n {
                let (before, after) = matrix.split_at_mut(j * length);
                let (x, y) = (&mut before[i * length..][..length], &mut after[..length]);
                let (xx, yy, xy) = (dot(x, x), dot(y, y), dot(x, y));
                if xy.abs() <= ORTHOGONAL * (xx * yy).sqrt() {
                    continue;
                }
                rotated = true;
                let zeta = (yy - xx) / (2.0 * xy);
                let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                rotate(x, y, cosine, cosine * tangent);
                let (before, after) = turned.split_at_mut(j * n);
                rotate(&mut before[i * n..][..n], &mut after[..n], cosine, cosine * tangent);
            }
        }
        if !rotated {
            break;
        }
    }
    let lengths: Vec<f64> = matrix.chunks(length).map(|row| dot(row, row).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| lengths[*j].total_cmp(&lengths[*i]));
    let (mut s, mut left, mut right) = (Vec::new(), Vec::new(), Vec::new());
    for i in order {
        s.push(lengths[i]);
        left.extend(&turned[i * n..][..n]);
        // A singular value of zero has no right vector of its own; what it is multiplied with is zero.
        let scale = if lengths[i] > 0.0 { 1.0 / lengths[i] } else { 0.0 };
        right.extend(matrix[i * length..][..length].iter().map(|x| x * scale));
    }
    (s, left, right)
}

/// Eight sums side by side, added in a fixed order.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (x, x_rest) = x.as_chunks::<8>();
    let (y, y_rest) = y.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for (x, y) in x.iter().zip(y) {
        (0..8).for_each(|i| sums[i] += x[i] * y[i]);
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

fn rotate(x: &mut [f64], y: &mut [f64], cosine: f64, sine: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

/// Vectors beyond those that are asked for: they make the first ones exact sooner.
const MORE: usize = 8;

/// Vectors that [`leading`] works with.
fn width(rows: usize, cols: usize, r: usize) -> usize {
    (r + MORE).min(rows).min(cols)
}

/// Bytes that [`leading`] takes of the device of its matrix.
pub(crate) fn workspace_bytes(rows: usize, cols: usize, r: usize) -> usize {
    let aligned = engine::memory::arena::aligned;
    let k = width(rows, cols, r);
    aligned(4 * k * rows) + aligned(4 * k * cols)
}

/// The `r` leading factors after `iterations` steps of subspace iteration. The matrix is f32, on the CPU or on `plan`;
/// on `plan` there are none.
pub(crate) fn leading(
    matrix: View<'_>,
    r: usize,
    iterations: usize,
    stream: Stream,
) -> Result<Option<Factors>> {
    let (rows, cols, device): (usize, usize, &Device) =
        (matrix.rows(), matrix.cols(), matrix.device());
    let k = width(rows, cols, r);
    let take = |cols| device.scratch((k, cols), DType::F32, Category::Workspace);
    // Vectors lie in rows: `right` (k, cols) and `left` (k, rows), so left = right M^T and right = left M.
    let (mut right, mut left) = (take(cols)?, take(rows)?);
    if device.is_plan() {
        return Ok(None);
    }
    right.write(&stream.normals(k * cols))?;
    matmul::forward(right.view(), matrix, 1.0, Output::Write, left.view_mut())?;
    for _ in 0..iterations {
        orthonormalize(&mut left);
        matmul::backward_input(left.view(), matrix, 1.0, Output::Write, right.view_mut())?;
        orthonormalize(&mut right);
        matmul::forward(right.view(), matrix, 1.0, Output::Write, left.view_mut())?;
    }
    orthonormalize(&mut left);
    // The matrix within the subspace, (k, cols), is small enough for Jacobi.
    matmul::backward_input(left.view(), matrix, 1.0, Output::Write, right.view_mut())?;
    let within = right.as_slice::<f32>().iter().map(|x| f64::from(*x)).collect();
    let (s, turned, v) = jacobi(within, k);
    let basis = left.as_slice::<f32>();
    let mut u = vec![0f64; r * rows];
    for (u, turned) in u.chunks_mut(rows).zip(turned.chunks(k)) {
        for (weight, vector) in turned.iter().zip(basis.chunks(rows)) {
            u.iter_mut().zip(vector).for_each(|(u, x)| *u += weight * f64::from(*x));
        }
    }
    Ok(Some(Factors { u, s: s[..r].to_vec(), v: first(v, cols, r) }))
}

/// Makes the rows orthonormal, one after another, twice each (Giraud et al. 2005: twice is enough).
fn orthonormalize(vectors: &mut Tensor) {
    let length = vectors.cols();
    let mut basis: Vec<f64> = Vec::with_capacity(vectors.shape().len());
    for row in vectors.as_slice::<f32>().chunks(length) {
        let mut vector: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        orthogonalize(&mut vector, &basis);
        basis.extend(vector);
    }
    vectors.as_mut_slice::<f32>().iter_mut().zip(basis).for_each(|(to, from)| *to = from as f32);
}

/// Takes what lies along the vectors of `basis` out of `vector` and gives it length 1, or zero where nothing is left.
fn orthogonalize(vector: &mut [f64], basis: &[f64]) {
    let before = dot(vector, vector).sqrt();
    for _ in 0..2 {
        for other in basis.chunks(vector.len()) {
            let along = dot(vector, other);
            vector.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
        }
    }
    let length = dot(vector, vector).sqrt();
    let scale = if length > 1e-12 * before { 1.0 / length } else { 0.0 };
    vector.iter_mut().for_each(|x| *x *= scale);
}

/// The first `r` columns of Q of the matrix's QR factorization, one after another.
pub(crate) fn first_columns_of_q(matrix: &[f32], cols: usize, r: usize) -> Vec<f64> {
    let mut basis = Vec::new();
    for column in 0..r {
        let mut vector: Vec<f64> =
            matrix.iter().skip(column).step_by(cols).map(|x| f64::from(*x)).collect();
        orthogonalize(&mut vector, &basis);
        basis.extend(vector);
    }
    basis
}

#[cfg(test)]
mod tests;
