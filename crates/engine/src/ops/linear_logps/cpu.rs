//! Log-probabilities under a linear head on the CPU.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{ByRow, Items, Logits, TILE_ROWS, TILE_VOCABULARY};
use crate::cpu::gemm::{Matrix, multiply};
use crate::cpu::simd;
use crate::tensor::{Tensor, View};

/// The head's weight, handed out in f32 tiles of rows.
pub(super) struct Head<'a> {
    weight: View<'a>,
    widened: Option<Tensor>,
}

impl<'a> Head<'a> {
    pub(super) fn new(weight: View<'a>, widened: Option<Tensor>) -> Head<'a> {
        Head { weight, widened }
    }

    fn tile(&mut self, tokens: Range<usize>) -> &[f32] {
        let view = self.weight.slice(tokens);
        match &mut self.widened {
            None => view.as_slice(),
            Some(buffer) => {
                let from: &[bf16] = view.as_slice();
                let to = &mut buffer.as_mut_slice::<f32>()[..from.len()];
                to.par_iter_mut()
                    .zip(from)
                    .with_min_len(4096)
                    .for_each(|(to, from)| *to = from.to_f32());
                to
            }
        }
    }
}

/// Calls `visit` for every tile: its rows, its tokens and its logits (row-major, as wide as the tile).
fn for_each_tile(
    x: &[f32],
    head: &mut Head<'_>,
    form: Logits,
    rows: Range<usize>,
    logits: &mut [f32],
    mut visit: impl FnMut(Range<usize>, &mut [f32], &[f32]),
) {
    let (v, c) = (head.weight.rows(), head.weight.cols());
    for start in (0..v).step_by(TILE_VOCABULARY) {
        let tokens = start..(start + TILE_VOCABULARY).min(v);
        let width = tokens.len();
        let weight = head.tile(tokens.clone());
        let logits = &mut logits[..rows.len() * width];
        let x = Matrix::new(&x[rows.start * c..rows.end * c], rows.len(), c, c);
        let weight_t = Matrix::new(weight, width, c, c).transposed();
        multiply(x, weight_t, form.scale, false, logits, width);
        if let Some(cap) = form.soft_cap {
            // tanh u = 1 - 2 / (e^2u + 1), which saturates without overflow.
            logits.par_chunks_mut(width).for_each(|row| {
                simd::vectorized(
                    #[inline(always)]
                    || {
                        row.iter_mut().for_each(|l| {
                            *l = cap * (1.0 - 2.0 / (simd::exp(2.0 * *l / cap) + 1.0));
                        });
                    },
                );
            });
        }
        visit(tokens, logits, weight);
    }
}

pub(super) fn forward(
    x: &[f32],
    mut head: Head<'_>,
    items: Items<'_>,
    form: Logits,
    lse: &mut [f32],
    logps: &mut [f32],
    logits: &mut [f32],
) {
    let by_row = ByRow::new(items, lse.len());
    for start in (0..lse.len()).step_by(TILE_ROWS) {
        let rows = start..(start + TILE_ROWS).min(lse.len());
        // Largest logit and sum of exponentials so far.
        let mut sums = vec![(f32::NEG_INFINITY, 0f32); rows.len()];
        for_each_tile(x, &mut head, form, rows.clone(), logits, |tokens, logits, _| {
            let width = tokens.len();
            sums.par_iter_mut().zip(logits.par_chunks(width)).for_each(|((top, sum), row)| {
                simd::vectorized(
                    #[inline(always)]
                    || {
                        let new_top = simd::max(row).max(*top);
                        *sum = *sum * simd::exp(*top - new_top)
                            + simd::lane_sum(width, |i| simd::exp(row[i] - new_top));
                        *top = new_top;
                    },
                );
            });
            for row in rows.clone() {
                for item in by_row.of(row) {
                    let target = items.targets[*item] as usize;
                    if tokens.contains(&target) {
                        logps[*item] = logits[(row - rows.start) * width + target - tokens.start];
                    }
                }
            }
        });
        for (row, (top, sum)) in rows.clone().zip(sums) {
            lse[row] = top + sum.ln();
            for item in by_row.of(row) {
                logps[*item] -= lse[row];
            }
        }
    }
}

/// Where the gradients go.
pub(super) struct Gradients<'a> {
    pub(super) dx: &'a mut [f32],
    pub(super) dweight: Option<&'a mut [f32]>,
}

pub(super) fn backward(
    dlogps: &[f32],
    x: &[f32],
    mut head: Head<'_>,
    items: Items<'_>,
    form: Logits,
    lse: &[f32],
    mut gradients: Gradients<'_>,
    logits: &mut [f32],
) {
    let c = head.weight.cols();
    let by_row = ByRow::new(items, lse.len());
    let row_sum = |row: usize| by_row.of(row).iter().map(|item| dlogps[*item]).sum::<f32>();
    for start in (0..lse.len()).step_by(TILE_ROWS) {
        let rows = start..(start + TILE_ROWS).min(lse.len());
        for_each_tile(x, &mut head, form, rows.clone(), logits, |tokens, logits, weight| {
            let width = tokens.len();
            logits.par_chunks_mut(width).zip(rows.clone()).for_each(|(values, row)| {
                let (sum, lse) = (row_sum(row), lse[row]);
                let here = |item: &usize| {
                    let target = items.targets[*item] as usize;
                    tokens.contains(&target).then(|| target - tokens.start)
                };
                // Targets' logits are overwritten below: the cap's slope there is taken first.
                let slope =
                    |logit: f32| form.soft_cap.map_or(1.0, |c| 1.0 - (logit / c) * (logit / c));
                let picked: Vec<(usize, f32)> = by_row
                    .of(row)
                    .iter()
                    .filter_map(|item| here(item).map(|at| (at, dlogps[*item] * slope(values[at]))))
                    .collect();
                simd::vectorized(
                    #[inline(always)]
                    || match form.soft_cap {
                        None => {
                            values.iter_mut().for_each(|l| *l = -sum * simd::exp(*l - lse));
                        }
                        Some(cap) => values.iter_mut().for_each(|l| {
                            let bent = *l / cap;
                            *l = -sum * simd::exp(*l - lse) * (1.0 - bent * bent);
                        }),
                    },
                );
                for (at, gradient) in picked {
                    values[at] += gradient;
                }
            });
            let dlogits = Matrix::new(logits, rows.len(), width, width);
            let add = tokens.start > 0;
            let dx = &mut gradients.dx[rows.start * c..rows.end * c];
            multiply(dlogits, Matrix::new(weight, width, c, c), form.scale, add, dx, c);
            if let Some(dweight) = &mut gradients.dweight {
                let x = Matrix::new(&x[rows.start * c..rows.end * c], rows.len(), c, c);
                let dweight = &mut dweight[tokens.start * c..tokens.end * c];
                multiply(dlogits.transposed(), x, form.scale, true, dweight, c);
            }
        });
    }
}
