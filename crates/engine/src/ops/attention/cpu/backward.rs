//! Attention backward on the CPU: a task takes one family of segments and one KV head. Only that task touches
//! the family's columns of dq, dk and dv, so the sums over query heads and children run in a fixed order.

use std::ops::Range;

use rayon::prelude::*;

use super::super::Saved;
use super::{Heads, KEYS, QUERIES, Segment, head_of, key_tiles, tanh, visible};
use crate::cpu::gemm::{Matrix, multiply_serial};
use crate::cpu::parallel::Disjoint;
use crate::cpu::simd;

/// Where the gradients go.
pub(in super::super) struct Gradients<'a> {
    dq: Disjoint<'a, f32>,
    dk: Disjoint<'a, f32>,
    dv: Disjoint<'a, f32>,
}

impl<'a> Gradients<'a> {
    pub(in super::super) fn new(
        dq: &'a mut [f32],
        dk: &'a mut [f32],
        dv: &'a mut [f32],
    ) -> Gradients<'a> {
        Gradients { dq: Disjoint::new(dq), dk: Disjoint::new(dk), dv: Disjoint::new(dv) }
    }
}

/// Buffers of one task.
struct Scratch {
    scores: Vec<f32>,
    dscores: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

pub(in super::super) fn backward(
    dout: &[f32],
    saved: Saved<'_>,
    segments: &[Segment],
    families: &[Vec<usize>],
    heads: Heads,
    gradients: &Gradients<'_>,
) {
    let mut tasks: Vec<(usize, usize)> = (0..families.len())
        .flat_map(|family| (0..heads.num_key_value_heads).map(move |kv_head| (family, kv_head)))
        .collect();
    // The longest families first, so that no core is left with one at the end.
    let size = |family: usize| families[family].iter().map(|s| segments[*s].len).sum::<usize>();
    tasks.sort_by_key(|(family, kv_head)| (std::cmp::Reverse(size(*family)), *family, *kv_head));
    tasks.par_iter().with_max_len(1).for_each_init(
        || {
            let d = heads.head_dim;
            Scratch {
                scores: vec![0.0; QUERIES * KEYS],
                dscores: vec![0.0; QUERIES * KEYS],
                dq: vec![0.0; QUERIES * d],
                dk: Vec::new(),
                dv: Vec::new(),
            }
        },
        |scratch, (family, kv_head)| {
            task(dout, saved, segments, &families[*family], heads, *kv_head, gradients, scratch);
        },
    );
}

fn task(
    dout: &[f32],
    saved: Saved<'_>,
    segments: &[Segment],
    family: &[usize],
    heads: Heads,
    kv_head: usize,
    gradients: &Gradients<'_>,
    scratch: &mut Scratch,
) {
    let d = heads.head_dim;
    // The family's keys, segment after segment, in a buffer of their own.
    let mut place = vec![0; segments.len()];
    let mut total = 0;
    for segment in family {
        place[*segment] = total;
        total += segments[*segment].len;
    }
    for sums in [&mut scratch.dk, &mut scratch.dv] {
        sums.clear();
        sums.resize(total * d, 0.0);
    }
    let group = heads.num_heads / heads.num_key_value_heads;
    let root = &segments[family[0]];
    for index in family {
        let segment = &segments[*index];
        // Rows of k to rows of the buffer: the parent is the root, which comes first.
        let buffer_row = |row: usize| {
            if row >= segment.key_start && row < segment.key_start + segment.len {
                row - segment.key_start + place[*index]
            } else {
                row - root.key_start
            }
        };
        for head in kv_head * group..(kv_head + 1) * group {
            for start in (0..segment.len).step_by(QUERIES) {
                let queries = start..(start + QUERIES).min(segment.len);
                tile(dout, saved, segment, &queries, heads, head, buffer_row, scratch);
                let cols = heads.query_cols();
                for i in 0..queries.len() {
                    let at = (segment.query_start + queries.start + i) * cols + head * d;
                    // SAFETY: this task alone has these queries and this head.
                    #[allow(unsafe_code)]
                    unsafe { gradients.dq.range(at..at + d) }
                        .copy_from_slice(&scratch.dq[i * d..(i + 1) * d]);
                }
            }
        }
    }
    let cols = heads.key_cols();
    for index in family {
        let segment = &segments[*index];
        for i in 0..segment.len {
            let at = (segment.key_start + i) * cols + kv_head * d;
            let from = (place[*index] + i) * d;
            // SAFETY: this task alone has these keys and this KV head.
            #[allow(unsafe_code)]
            unsafe {
                gradients.dk.range(at..at + d).copy_from_slice(&scratch.dk[from..from + d]);
                gradients.dv.range(at..at + d).copy_from_slice(&scratch.dv[from..from + d]);
            }
        }
    }
}

/// One tile of queries of one head: leaves dq in `scratch.dq`, adds to the family's dk and dv.
fn tile(
    dout: &[f32],
    saved: Saved<'_>,
    segment: &Segment,
    queries: &Range<usize>,
    heads: Heads,
    head: usize,
    buffer_row: impl Fn(usize) -> usize,
    scratch: &mut Scratch,
) {
    let (d, n) = (heads.head_dim, queries.len());
    let kv_head = head / (heads.num_heads / heads.num_key_value_heads);
    let rows = segment.query_start + queries.start..segment.query_start + queries.end;
    let of_head = |values| head_of(values, rows.clone(), head, d, heads.query_cols());
    let (q, do_tile) = (of_head(saved.q.as_slice()), of_head(dout));
    let (out, lse): (&[f32], &[f32]) = (saved.out.as_slice(), saved.lse.as_slice());
    let mut delta = [0f32; QUERIES];
    for i in 0..n {
        let at = (rows.start + i) * heads.query_cols() + head * d;
        let (o, g) = (&out[at..at + d], &dout[at..at + d]);
        delta[i] = simd::lane_sum(d, |j| o[j] * g[j]);
    }
    scratch.dq[..n * d].fill(0.0);
    for keys in key_tiles(segment, queries, heads) {
        let width = keys.rows.len();
        let of_keys = |values| head_of(values, keys.rows.clone(), kv_head, d, heads.key_cols());
        let (k, v) = (of_keys(saved.k.as_slice()), of_keys(saved.v.as_slice()));
        let (scores, dscores) = (&mut scratch.scores, &mut scratch.dscores);
        multiply_serial(q, k.transposed(), heads.scale, false, scores, width);
        multiply_serial(do_tile, v.transposed(), 1.0, false, dscores, width);
        simd::vectorized(
            #[inline(always)]
            || {
                for i in 0..n {
                    let seen = visible(&keys, segment.position0 + queries.start + i, heads);
                    let log = lse[(rows.start + i) * heads.num_heads + head];
                    let (p, ds) =
                        (&mut scores[i * width..][..width], &mut dscores[i * width..][..width]);
                    for outside in [0..seen.start, seen.end..width] {
                        p[outside.clone()].fill(0.0);
                        ds[outside].fill(0.0);
                    }
                    let (p, ds) = (&mut p[seen.clone()], &mut ds[seen]);
                    if let Some(cap) = heads.soft_cap {
                        for (p, ds) in p.iter_mut().zip(ds) {
                            let bent = tanh(*p / cap);
                            *p = simd::exp(cap * bent - log);
                            *ds = *p * (*ds - delta[i]) * (1.0 - bent * bent) * heads.scale;
                        }
                    } else {
                        for (p, ds) in p.iter_mut().zip(ds) {
                            *p = simd::exp(*p - log);
                            *ds = *p * (*ds - delta[i]) * heads.scale;
                        }
                    }
                }
            },
        );
        let p = Matrix::new(scores, n, width, width);
        let ds = Matrix::new(dscores, n, width, width);
        let at = buffer_row(keys.rows.start) * d;
        multiply_serial(ds, k, 1.0, true, &mut scratch.dq, d);
        multiply_serial(ds.transposed(), q, 1.0, true, &mut scratch.dk[at..at + width * d], d);
        multiply_serial(p.transposed(), do_tile, 1.0, true, &mut scratch.dv[at..at + width * d], d);
    }
}
