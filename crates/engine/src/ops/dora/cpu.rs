//! DoRA on the CPU.

use rayon::prelude::*;

/// `|w_j + d_j|` of each row, summed in f64.
pub(super) fn row_norms(weight: &[f32], update: &[f32], k: usize, norm: &mut [f32]) {
    let rows = weight.par_chunks_exact(k).zip(update.par_chunks_exact(k));
    norm.par_iter_mut().zip(rows).for_each(|(norm, (weight, update))| {
        let squares = weight.iter().zip(update).map(|(w, d)| f64::from(w + d).powi(2));
        *norm = squares.sum::<f64>().sqrt() as f32;
    });
}

pub(super) fn forward(y: &mut [f32], magnitude: &[f32], norm: &[f32]) {
    y.par_chunks_mut(norm.len()).with_min_len(16).for_each(|row| {
        for ((y, m), norm) in row.iter_mut().zip(magnitude).zip(norm) {
            *y *= m / norm;
        }
    });
}

pub(super) fn backward_input(dy: &[f32], magnitude: &[f32], norm: &[f32], du: &mut [f32]) {
    let c = norm.len();
    du.par_chunks_mut(c).zip(dy.par_chunks(c)).with_min_len(16).for_each(|(du, dy)| {
        for (((du, dy), m), norm) in du.iter_mut().zip(dy).zip(magnitude).zip(norm) {
            *du = dy * (m / norm);
        }
    });
}

/// Columns that a task owns; it walks all rows in order.
const COLUMNS: usize = 64;

pub(super) fn backward_magnitude(dy: &[f32], u: &[f32], norm: &[f32], dmagnitude: &mut [f32]) {
    let c = norm.len();
    dmagnitude.par_chunks_mut(COLUMNS).enumerate().for_each(|(task, dmagnitude)| {
        let first = task * COLUMNS;
        let mut sums = [0f32; COLUMNS];
        for (dy, u) in dy.chunks_exact(c).zip(u.chunks_exact(c)) {
            for ((sum, dy), u) in sums.iter_mut().zip(&dy[first..]).zip(&u[first..]) {
                *sum += dy * u;
            }
        }
        for ((to, sum), norm) in dmagnitude.iter_mut().zip(sums).zip(&norm[first..]) {
            *to += sum / norm;
        }
    });
}
