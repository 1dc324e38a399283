//! The products of a linear layer on the CPU. Sizes are `[n, m, k]` as in the room's contract.

use super::Output;
use crate::cpu::gemm::{Matrix, multiply};

pub(super) fn forward(
    x: &[f32],
    weight: &[f32],
    [n, m, k]: [usize; 3],
    alpha: f32,
    output: Output,
    y: &mut [f32],
) {
    let (x, weight) = (Matrix::new(x, n, k, k), Matrix::new(weight, m, k, k).transposed());
    multiply(x, weight, alpha, output == Output::Add, y, m);
}

pub(super) fn backward_input(
    dy: &[f32],
    weight: &[f32],
    [n, m, k]: [usize; 3],
    alpha: f32,
    output: Output,
    dx: &mut [f32],
) {
    let (dy, weight) = (Matrix::new(dy, n, m, m), Matrix::new(weight, m, k, k));
    multiply(dy, weight, alpha, output == Output::Add, dx, k);
}

pub(super) fn backward_weight(
    dy: &[f32],
    x: &[f32],
    [n, m, k]: [usize; 3],
    alpha: f32,
    dweight: &mut [f32],
) {
    let (dy, x) = (Matrix::new(dy, n, m, m).transposed(), Matrix::new(x, n, k, k));
    multiply(dy, x, alpha, true, dweight, k);
}
