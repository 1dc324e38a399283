//! The tables of tiles, without a GPU: the kernels' walks over them, repeated here, visit what is visible once.

use std::collections::HashMap;

use super::{Roots, heads, trees};
use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::memory::arena::Category;
use crate::ops::attention::segments::{TILE, families, key_tiles, query_tiles};
use crate::ops::attention::{self, Heads, Saved, Segment, Segments, cuda};

/// How often each (query row, key row) was visited.
type Visits = HashMap<(usize, usize), usize>;

/// Every pair that the contract says is visible, once.
fn visible(segments: &[Segment], window: usize) -> Visits {
    let mut pairs = HashMap::new();
    for s in segments {
        for i in 0..s.len {
            let parent = (0..s.parent_len).map(|j| (s.parent_start + j, s.parent_len - j + i));
            let own = (0..=i).map(|j| (s.key_start + j, i - j));
            for (key, _) in parent.chain(own).filter(|(_, behind)| *behind < window) {
                *pairs.entry((s.query_start + i, key)).or_insert(0) += 1;
            }
        }
    }
    pairs
}

/// `Queries` of tiles.cuh and the loops of its kernels, with blocks of `own` queries and `other` keys.
fn walk_queries(segments: &[Segment], window: i64, own: usize, other: i64) -> Visits {
    let mut visits = Visits::new();
    for entry in query_tiles(segments) {
        let [query_start, key_start, len, parent_row, parent_len, start, ..] = entry.map(i64::from);
        for part in 0..(TILE / own) as i64 {
            let start = start + part * own as i64;
            let rows = (own as i64).min(len - start);
            if rows <= 0 {
                continue;
            }
            let (own_row, diagonal) = (key_start - parent_len, parent_len + start);
            let (first, total) = (0.max(diagonal + 1 - window), diagonal + rows);
            for key0 in (first..total).step_by(other as usize) {
                let mut seen = false;
                for row in 0..rows {
                    for key in key0..(key0 + other).min(total) {
                        let behind = diagonal + row - key;
                        if (0..window).contains(&behind) {
                            seen = true;
                            let at = key + if key < parent_len { parent_row } else { own_row };
                            let pair = ((query_start + start + row) as usize, at as usize);
                            *visits.entry(pair).or_insert(0) += 1;
                        }
                    }
                }
                assert!(seen, "queries {start}.. of {query_start} visit keys {key0}.. for nothing");
            }
        }
    }
    visits
}

/// `Walk` of flash_backward.cu and the loop of its kernel.
fn walk_keys(segments: &[Segment], window: i64, own: usize, other: i64) -> Visits {
    let mut visits = Visits::new();
    let (tiles, runs) = key_tiles(segments, &families(segments).unwrap());
    for entry in tiles {
        let [key_row, keys, position, first_run, end_run, ..] = entry.map(i64::from);
        for part in 0..(TILE / own) as i64 {
            let start = part * own as i64;
            let (keys, key_row) = ((own as i64).min(keys - start), key_row + start);
            if keys <= 0 {
                continue;
            }
            let (from, before) = (position + start, position + start + keys - 1 + window);
            for run in &runs[first_run as usize..end_run as usize] {
                let [row, len, position0, _] = run.map(i64::from);
                let end = len.min(before - position0);
                for query0 in (0.max(from - position0)..end).step_by(other as usize) {
                    let mut seen = false;
                    for query in query0..(query0 + other).min(end) {
                        for key in 0..keys {
                            let behind = position0 + query - (from + key);
                            if (0..window).contains(&behind) {
                                seen = true;
                                let pair = ((row + query) as usize, (key_row + key) as usize);
                                *visits.entry(pair).or_insert(0) += 1;
                            }
                        }
                    }
                    assert!(seen, "keys {key_row}.. visit queries {query0}.. of {row} for nothing");
                }
            }
        }
    }
    visits
}

const PACKS: [Roots; 5] = [
    &[(1, &[])],
    &[(130, &[33, 1, 200]), (7, &[])],
    &[(257, &[])],
    &[(64, &[64, 128]), (128, &[300])],
    &[(300, &[47, 47]), (1, &[1]), (33, &[130])],
];

#[test]
fn every_visible_pair_of_tiles_is_visited_once_and_no_other() {
    for roots in PACKS {
        let (segments, _) = trees(roots);
        for window in [1 << 30, 1, 20, 100, 200] {
            let want = visible(&segments, window as usize);
            for (own, other) in [(128, 64), (64, 32), (128, 32), (64, 16), (64, 64)] {
                let got = walk_queries(&segments, window, own, other);
                assert!(got == want, "{roots:?}, window {window}, queries {own} x {other}");
                let got = walk_keys(&segments, window, own, other);
                assert!(got == want, "{roots:?}, window {window}, keys {own} x {other}");
            }
        }
    }
}

#[test]
fn keys_of_a_cache_are_found_where_they_are() {
    let segment = |query_start, key_start, len, parent_start, parent_len| Segment {
        query_start,
        key_start,
        len,
        parent_start,
        parent_len,
        position0: parent_len,
    };
    let segments = [segment(0, 46, 1, 0, 46), segment(1, 220, 3, 90, 130)];
    for window in [1 << 30, 30] {
        assert!(walk_queries(&segments, window, 64, 32) == visible(&segments, window as usize));
    }
}

#[test]
fn long_tiles_come_first() {
    let (segments, _) = trees(&[(130, &[33, 200]), (300, &[])]);
    let seen = |tile: &[u32; 8]| tile[4] + (tile[5] + TILE as u32).min(tile[2]);
    assert!(query_tiles(&segments).windows(2).all(|pair| seen(&pair[0]) >= seen(&pair[1])));
    let (tiles, _) = key_tiles(&segments, &families(&segments).unwrap());
    // The prompt's keys are seen by 130 + 33 + 200 queries.
    assert_eq!(tiles[0][..3], [0, 128, 0]);
}

#[test]
fn every_kernel_fits_the_shared_memory_of_an_rtx_3090() {
    for module in cuda::modules() {
        for (kernel, threads, shared) in module.kernels {
            assert!(*shared <= 101_376, "{kernel} of {} takes {shared} bytes", module.name);
            let entry = module.ptx.split_once(&format!(".entry {kernel}("));
            let bound = entry.and_then(|(_, body)| body.split_once(".maxntid "));
            let bound = bound.and_then(|(_, rest)| rest.split_once(','));
            assert_eq!(bound.map(|(x, _)| x.parse()), Some(Ok(*threads)), "{kernel}");
        }
    }
}

/// Plans forward and backward on CUDA; the bytes at the peak.
fn planned(roots: Roots, heads: Heads) -> crate::error::Result<usize> {
    let plan = Device::plan_for(Kind::Cuda);
    let (segments, n) = trees(roots);
    let (qs, ks) = ((n, heads.query_cols()), (n, heads.key_cols()));
    let take = |shape: (usize, usize)| plan.scratch(shape, DType::BF16, Category::Activations);
    let (q, k, v, mut out) = (take(qs)?, take(ks)?, take(ks)?, take(qs)?);
    let mut lse = plan.scratch((n, heads.num_heads), DType::F32, Category::Activations)?;
    let (mut dq, mut dk, mut dv) = (take(qs)?, take(ks)?, take(ks)?);
    let segments = Segments::new(&plan, segments)?;
    let before = plan.used_bytes();
    let (o, l) = (out.view_mut(), lse.view_mut());
    attention::forward(q.view(), k.view(), v.view(), &segments, heads, o, l)?;
    let saved = Saved { q: q.view(), k: k.view(), v: v.view(), out: out.view(), lse: lse.view() };
    let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
    attention::backward(out.view(), saved, &segments, heads, a, b, c)?;
    assert!(plan.ledger().total().flops > 0.0);
    Ok(plan.peak_bytes() - before)
}

#[test]
fn a_plan_for_cuda_counts_what_the_kernels_take() {
    let heads = heads(4, 2, 64, None);
    let roots: Roots = &[(100, &[60])];
    // Two floats of every row and head; the largest segment's scores twice, and sums of dk and dv.
    assert_eq!(planned(roots, heads).unwrap(), (160 * 4 * 2 * 4usize).next_multiple_of(256));
    let standard = Heads { kernel: attention::Kernel::Standard, ..heads };
    // 100 queries see up to 104 columns of keys; 60 x 160 are fewer.
    let scores = 4 * (100 * 104usize) * 2;
    let bytes = 2 * scores.next_multiple_of(256) + 2 * (160 * 128 * 4);
    assert_eq!(planned(roots, standard).unwrap(), bytes);
}

#[test]
fn head_sizes_without_a_kernel_are_refused_by_name() {
    let error = planned(&[(3, &[])], heads(1, 1, 72, None)).unwrap_err().to_string();
    assert!(error.contains("head_dim = 72") && error.contains("standard"), "{error}");
    let standard = Heads { kernel: attention::Kernel::Standard, ..heads(1, 1, 72, None) };
    planned(&[(3, &[])], standard).unwrap();
}
