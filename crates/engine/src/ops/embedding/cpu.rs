//! Embedding on the CPU.

use half::bf16;
use rayon::prelude::*;

use crate::cpu::parallel::{self, Disjoint, rows_per_task};
use crate::dtype::DType;
use crate::tensor::{View, ViewMut};

pub(super) fn forward(ids: &[u32], table: View<'_>, y: ViewMut<'_>) {
    gather(ids, table, y.into_mut_slice());
}

/// Rows of a table of bf16 or f32, as bf16.
pub(super) fn gather_bf16(ids: &[u32], table: View<'_>, y: &mut [bf16]) {
    let c = table.cols();
    let rows = ids.par_iter().zip(y.par_chunks_mut(c)).with_min_len(rows_per_task(c));
    match table.dtype() {
        DType::BF16 => {
            let table: &[bf16] = table.as_slice();
            rows.for_each(|(id, row)| row.copy_from_slice(&table[*id as usize * c..][..c]));
        }
        _ => {
            let table: &[f32] = table.as_slice();
            rows.for_each(|(id, row)| {
                let from = &table[*id as usize * c..][..c];
                row.iter_mut().zip(from).for_each(|(to, from)| *to = bf16::from_f32(*from));
            });
        }
    }
}

/// Rows of a table of bf16 or f32, as f32.
pub(super) fn gather(ids: &[u32], table: View<'_>, y: &mut [f32]) {
    let c = table.cols();
    let rows = ids.par_iter().zip(y.par_chunks_mut(c)).with_min_len(rows_per_task(c));
    match table.dtype() {
        DType::BF16 => {
            let table: &[bf16] = table.as_slice();
            rows.for_each(|(id, row)| {
                let from = &table[*id as usize * c..][..c];
                row.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
            });
        }
        _ => {
            let table: &[f32] = table.as_slice();
            rows.for_each(|(id, row)| row.copy_from_slice(&table[*id as usize * c..][..c]));
        }
    }
}

pub(super) fn backward(ids: &[u32], dy: &[f32], dtable: &mut [f32], c: usize) {
    // Sorted by id, equal ids in the order they occur: the order of the additions is fixed.
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|i| ids[*i]);
    let runs: Vec<&[usize]> = order.chunk_by(|a, b| ids[*a] == ids[*b]).collect();
    let dtable = Disjoint::new(dtable);
    parallel::ranges(runs.len(), rows_per_task(c), |range| {
        for run in &runs[range] {
            let id = ids[run[0]] as usize;
            // SAFETY: every run has another id, so no two tasks write the same row.
            #[allow(unsafe_code)]
            let row = unsafe { dtable.range(id * c..(id + 1) * c) };
            for i in *run {
                row.iter_mut().zip(&dy[i * c..][..c]).for_each(|(sum, d)| *sum += d);
            }
        }
    });
}
