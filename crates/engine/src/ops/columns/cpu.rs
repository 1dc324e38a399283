//! Columns of a matrix on the CPU.

use rayon::prelude::*;

use crate::cpu::parallel::rows_per_task;

pub(super) fn take(wide: &[f32], width: usize, start: usize, part: &mut [f32], cols: usize) {
    let rows = wide.par_chunks(width).zip(part.par_chunks_mut(cols));
    rows.with_min_len(rows_per_task(cols))
        .for_each(|(wide, part)| part.copy_from_slice(&wide[start..start + cols]));
}

pub(super) fn put(part: &[f32], cols: usize, start: usize, wide: &mut [f32], width: usize) {
    let rows = part.par_chunks(cols).zip(wide.par_chunks_mut(width));
    rows.with_min_len(rows_per_task(cols))
        .for_each(|(part, wide)| wide[start..start + cols].copy_from_slice(part));
}
