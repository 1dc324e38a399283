//! RMSNorm on the CPU: a row function and its driver. A matrix of (N, G C) is walked as N G rows of C.

use rayon::prelude::*;

use crate::cpu::parallel::rows_per_task;
use crate::cpu::simd::{lane_sum, vectorized};

pub(super) fn forward(
    x: &[f32],
    weight: &[f32],
    offset: f32,
    eps: f32,
    y: &mut [f32],
    rstd: &mut [f32],
) {
    let c = weight.len();
    let rows = x.par_chunks(c).zip(y.par_chunks_mut(c)).zip(rstd.par_iter_mut());
    rows.with_min_len(rows_per_task(c)).for_each(|((x, y), rstd)| {
        vectorized(
            #[inline(always)]
            || {
                let mean = lane_sum(c, |i| x[i] * x[i]) / c as f32;
                *rstd = 1.0 / (mean + eps).sqrt();
                for i in 0..c {
                    y[i] = x[i] * *rstd * (weight[i] + offset);
                }
            },
        );
    });
}

pub(super) fn backward_input(
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    offset: f32,
    rstd: &[f32],
    dx: &mut [f32],
) {
    let c = weight.len();
    let rows = dy.par_chunks(c).zip(x.par_chunks(c)).zip(dx.par_chunks_mut(c)).zip(rstd.par_iter());
    rows.with_min_len(rows_per_task(c)).for_each(|(((dy, x), dx), &rstd)| {
        vectorized(
            #[inline(always)]
            || {
                let mean = lane_sum(c, |i| dy[i] * (weight[i] + offset) * x[i]) / c as f32;
                let along = mean * rstd * rstd;
                for i in 0..c {
                    dx[i] += rstd * (dy[i] * (weight[i] + offset) - x[i] * along);
                }
            },
        );
    });
}

pub(super) fn backward_weight(dy: &[f32], x: &[f32], rstd: &[f32], dweight: &mut [f32]) {
    let c = dweight.len();
    const ROWS: usize = 256;
    let parts: Vec<Vec<f32>> = dy
        .par_chunks(ROWS * c)
        .zip(x.par_chunks(ROWS * c))
        .zip(rstd.par_chunks(ROWS))
        .map(|((dy, x), rstd)| {
            let mut part = vec![0.0; c];
            for (row, rstd) in rstd.iter().enumerate() {
                let (dy, x) = (&dy[row * c..][..c], &x[row * c..][..c]);
                for i in 0..c {
                    part[i] += dy[i] * x[i] * rstd;
                }
            }
            part
        })
        .collect();
    for part in parts {
        dweight.iter_mut().zip(part).for_each(|(sum, d)| *sum += d);
    }
}
