//! Sums on the CPU.

use rayon::prelude::*;

const CHUNK: usize = 16 * 1024;

pub(super) fn forward(x: &[f32], y: &mut [f32]) {
    x.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK)).for_each(|(x, y)| {
        x.iter().zip(y).for_each(|(x, y)| *y += x);
    });
}

pub(super) fn bias(bias: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(bias.len()).with_min_len(16).for_each(|row| {
        row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
    });
}

pub(super) fn bias_backward(dy: &[f32], dbias: &mut [f32]) {
    let c = dbias.len();
    // Each task owns some columns and walks all rows in order.
    dbias.par_chunks_mut(64).enumerate().for_each(|(task, sums)| {
        for row in dy.chunks_exact(c) {
            sums.iter_mut().zip(&row[task * 64..]).for_each(|(sum, dy)| *sum += dy);
        }
    });
}
