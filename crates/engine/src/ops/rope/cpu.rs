//! Rotary position embedding on the CPU.

use rayon::prelude::*;

use crate::cpu::parallel::rows_per_task;
use crate::cpu::simd::vectorized;

/// How heads lie in a row.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) cols: usize,
    pub(super) head_dim: usize,
    /// Pairs that turn.
    pub(super) half: usize,
}

pub(super) fn turn(
    x: &mut [f32],
    heads: Heads,
    positions: &[u32],
    cos: &[f32],
    sin: &[f32],
    direction: f32,
) {
    let Heads { cols, head_dim, half } = heads;
    let rows = x.par_chunks_mut(cols).zip(positions).with_min_len(rows_per_task(cols));
    rows.for_each(|(row, position)| {
        let at = *position as usize * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        vectorized(
            #[inline(always)]
            || {
                for head in row.chunks_exact_mut(head_dim) {
                    let (first, second) = head[..2 * half].split_at_mut(half);
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
