//! Rotary position embedding on the CPU.

use rayon::prelude::*;

use crate::cpu::parallel::rows_per_task;
use crate::cpu::simd::vectorized;

pub(super) fn turn(
    x: &mut [f32],
    cols: usize,
    positions: &[u32],
    cos: &[f32],
    sin: &[f32],
    half: usize,
    direction: f32,
) {
    let rows = x.par_chunks_mut(cols).zip(positions).with_min_len(rows_per_task(cols));
    rows.for_each(|(row, position)| {
        let at = *position as usize * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        vectorized(
            #[inline(always)]
            || {
                for head in row.chunks_exact_mut(2 * half) {
                    let (first, second) = head.split_at_mut(half);
                    for i in 0..half {
                        let (a, b, s) = (first[i], second[i], direction * sin[i]);
                        first[i] = a * cos[i] - b * s;
                        second[i] = b * cos[i] + a * s;
                    }
                }
            },
        );
    });
}
