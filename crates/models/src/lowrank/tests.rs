//! Factors against what a singular value decomposition must be, and against spectra that are known.

use engine::testing::{cpu, tensor};

use super::*;

/// `sum_i s_i u_i v_i^T`.
fn product(factors: &Factors, rows: usize, cols: usize) -> Vec<f64> {
    let mut matrix = vec![0f64; rows * cols];
    let vectors = factors.u.chunks(rows).zip(factors.v.chunks(cols));
    for (s, (u, v)) in factors.s.iter().zip(vectors) {
        for (row, u) in matrix.chunks_mut(cols).zip(u) {
            row.iter_mut().zip(v).for_each(|(x, v)| *x += s * u * v);
        }
    }
    matrix
}

fn assert_orthonormal(vectors: &[f64], length: usize, tolerance: f64) {
    for (i, a) in vectors.chunks(length).enumerate() {
        for (j, b) in vectors.chunks(length).enumerate() {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((dot(a, b) - expected).abs() < tolerance, "vectors {i} and {j}: {}", dot(a, b));
        }
    }
}

/// A matrix with the singular values `s`, its vectors those of random matrices.
fn with_spectrum(rows: usize, cols: usize, s: &[f64]) -> Vec<f32> {
    let vectors = |length: usize, stream: u64| {
        let random = Stream::new(3, stream).normals(length * s.len());
        first_columns_of_q(&transpose(&random, length), s.len(), s.len())
    };
    let factors = Factors { u: vectors(rows, 1), s: s.to_vec(), v: vectors(cols, 2) };
    product(&factors, rows, cols).into_iter().map(|x| x as f32).collect()
}

fn transpose(matrix: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|column| matrix.iter().skip(column).step_by(cols).copied()).collect()
}

#[test]
fn all_factors_give_the_matrix_back() {
    for (rows, cols) in [(1, 1), (1, 7), (7, 1), (33, 47), (47, 33), (32, 32)] {
        let matrix = Stream::new(1, (rows * 100 + cols) as u64).normals(rows * cols);
        let n = rows.min(cols);
        let factors = exact(&matrix, rows, n);
        assert_orthonormal(&factors.u, rows, 1e-12);
        assert_orthonormal(&factors.v, cols, 1e-12);
        assert!(factors.s.is_sorted_by(|a, b| a >= b));
        for (ours, exact) in product(&factors, rows, cols).iter().zip(&matrix) {
            assert!((ours - f64::from(*exact)).abs() < 1e-11, "{ours}, not {exact}");
        }
    }
}

#[test]
fn singular_values_worked_by_hand_come_out() {
    // [[3, 0], [4, 5]] has sqrt 45 and sqrt 5 (Trefethen and Bau's kind of example: M M^T = [[9, 12], [12, 41]]).
    let factors = exact(&[3.0, 0.0, 4.0, 5.0], 2, 2);
    assert!(
        (factors.s[0] - 45f64.sqrt()).abs() < 1e-12 && (factors.s[1] - 5f64.sqrt()).abs() < 1e-12
    );
    assert_eq!(exact(&[0.0; 6], 2, 1).s, [0.0]);
}

#[test]
fn leading_factors_of_a_spectrum_that_falls_are_the_exact_ones() {
    let device = cpu();
    let s: Vec<f64> = (0..40).map(|i| 0.7f64.powi(i)).collect();
    for (rows, cols) in [(60, 130), (130, 60)] {
        let matrix = with_spectrum(rows, cols, &s);
        let view = tensor(&device, (rows, cols), &matrix);
        let ours = leading(view.view(), 4, 8, Stream::new(5, 0)).unwrap().unwrap();
        let exact = exact(&matrix, rows, 4);
        for (a, b) in ours.s.iter().zip(&exact.s) {
            assert!((a - b).abs() < 1e-5 * b, "{a}, not {b}");
        }
        assert_orthonormal(&ours.u, rows, 1e-5);
        let (ours, exact) = (product(&ours, rows, cols), product(&exact, rows, cols));
        for (a, b) in ours.iter().zip(&exact) {
            assert!((a - b).abs() < 1e-5, "{a}, not {b}");
        }
    }
}

#[test]
fn what_iteration_leaves_is_little_more_than_the_least_that_can_be_left() {
    // A flat spectrum is the hardest: the theorem of Eckart and Young gives the least.
    let (rows, cols, r) = (120, 90, 8);
    let matrix = Stream::new(9, 0).normals(rows * cols);
    let left = |factors: &Factors| {
        let product = product(factors, rows, cols);
        product.iter().zip(&matrix).map(|(a, b)| (a - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
    };
    let device = cpu();
    let view = tensor(&device, (rows, cols), &matrix);
    let ours = leading(view.view(), r, 16, Stream::new(5, 0)).unwrap().unwrap();
    let (ours, least) = (left(&ours), left(&exact(&matrix, rows, r)));
    assert!(ours < 1.001 * least, "{ours}, {least} at the least");
}

#[test]
fn a_plan_takes_what_is_said() {
    let plan = Device::plan_for(engine::device::Kind::Cpu);
    let matrix = tensor(&plan, (300, 500), &vec![0.0; 150_000]);
    let before = plan.peak_bytes();
    assert!(leading(matrix.view(), 16, 4, Stream::new(0, 0)).unwrap().is_none());
    assert_eq!(plan.peak_bytes() - before, workspace_bytes(300, 500, 16));
}
