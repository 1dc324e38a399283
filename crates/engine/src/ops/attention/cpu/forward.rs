//! Attention forward on the CPU.

use std::ops::Range;

use rayon::prelude::*;

use super::{Heads, KEYS, QUERIES, Segment, head_of, key_tiles, tanh, visible};
use crate::cpu::gemm::{Matrix, multiply_serial};
use crate::cpu::parallel::Disjoint;
use crate::cpu::simd;

pub(in super::super) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segments: &[Segment],
    heads: Heads,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let mut tasks: Vec<(usize, Range<usize>, usize)> = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        for start in (0..segment.len).step_by(QUERIES) {
            let queries = start..(start + QUERIES).min(segment.len);
            tasks.extend((0..heads.num_heads).map(|head| (i, queries.clone(), head)));
        }
    }
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    tasks.par_iter().for_each_init(
        || (vec![0f32; QUERIES * KEYS], vec![0f32; QUERIES * heads.head_dim]),
        |(scores, sums), (segment, queries, head)| {
            let segment = &segments[*segment];
            let logs = tile(q, k, v, segment, queries, heads, *head, scores, sums);
            let (d, cols) = (heads.head_dim, heads.query_cols());
            for (i, log) in logs.into_iter().take(queries.len()).enumerate() {
                let row = segment.query_start + queries.start + i;
                // SAFETY: segments share no query rows, and a task writes its own queries and head only.
                #[allow(unsafe_code)]
                unsafe {
                    out.range(row * cols + head * d..row * cols + (head + 1) * d)
                        .copy_from_slice(&sums[i * d..(i + 1) * d]);
                    lse.range(row * heads.num_heads + head..row * heads.num_heads + head + 1)[0] =
                        log;
                }
            }
        },
    );
}

/// One tile of queries of one head: leaves the outputs in `sums` and returns the lse of each query.
fn tile(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segment: &Segment,
    queries: &Range<usize>,
    heads: Heads,
    head: usize,
    scores: &mut [f32],
    sums: &mut [f32],
) -> [f32; QUERIES] {
    let d = heads.head_dim;
    let kv_head = head / (heads.num_heads / heads.num_key_value_heads);
    let rows = segment.query_start + queries.start..segment.query_start + queries.end;
    let q = head_of(q, rows, head, d, heads.query_cols());
    let mut top = [f32::NEG_INFINITY; QUERIES];
    let mut weight = [0f32; QUERIES];
    sums[..queries.len() * d].fill(0.0);
    for keys in key_tiles(segment, queries, heads) {
        let width = keys.rows.len();
        let tile_k = head_of(k, keys.rows.clone(), kv_head, d, heads.key_cols());
        let tile_v = head_of(v, keys.rows.clone(), kv_head, d, heads.key_cols());
        multiply_serial(q, tile_k.transposed(), heads.scale, false, scores, width);
        simd::vectorized(
            #[inline(always)]
            || {
                for i in 0..queries.len() {
                    let row = &mut scores[i * width..(i + 1) * width];
                    if let Some(cap) = heads.soft_cap {
                        row.iter_mut().for_each(|s| *s = cap * tanh(*s / cap));
                    }
                    let seen = visible(&keys, segment.position0 + queries.start + i, heads);
                    row[..seen.start].fill(0.0);
                    row[seen.end..].fill(0.0);
                    let row = &mut row[seen];
                    let new_top = simd::max(row).max(top[i]);
                    if new_top == f32::NEG_INFINITY {
                        continue;
                    }
                    let shrink = simd::exp(top[i] - new_top);
                    row.iter_mut().for_each(|s| *s = simd::exp(*s - new_top));
                    weight[i] = weight[i] * shrink + simd::lane_sum(row.len(), |j| row[j]);
                    sums[i * d..(i + 1) * d].iter_mut().for_each(|o| *o *= shrink);
                    top[i] = new_top;
                }
            },
        );
        let probabilities = Matrix::new(&*scores, queries.len(), width, width);
        multiply_serial(probabilities, tile_v, 1.0, true, sums, d);
    }
    let mut lse = [0f32; QUERIES];
    for i in 0..queries.len() {
        sums[i * d..(i + 1) * d].iter_mut().for_each(|o| *o /= weight[i]);
        lse[i] = top[i] + weight[i].ln();
    }
    lse
}
