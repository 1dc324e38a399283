//! Attention on the CPU, tile by tile: a task takes some queries of one head, or one family of segments and one
//! KV head, so that every output element is written by one task in a fixed order.

pub(super) mod backward;
pub(super) mod forward;

use std::ops::Range;

use super::{Heads, Segment};
use crate::cpu::gemm::Matrix;
use crate::cpu::simd;

/// Queries of a tile.
const QUERIES: usize = 64;
/// Keys of a tile.
const KEYS: usize = 128;

/// A run of keys: their rows, and the position of the first.
struct Keys {
    rows: Range<usize>,
    position0: usize,
}

/// The tiles of keys that queries `queries` of `segment` see, parent first.
fn key_tiles(segment: &Segment, queries: &Range<usize>, heads: Heads) -> Vec<Keys> {
    let first_visible = heads.first_visible(segment.position0 + queries.start);
    let parent0 = segment.position0 - segment.parent_len;
    let runs = [
        (segment.parent_start, parent0, segment.parent_len),
        (segment.key_start, segment.position0, queries.end),
    ];
    let mut tiles = Vec::new();
    for (row0, position0, len) in runs {
        let mut at = first_visible.saturating_sub(position0).min(len);
        while at < len {
            let end = (at + KEYS).min(len);
            tiles.push(Keys { rows: row0 + at..row0 + end, position0: position0 + at });
            at = end;
        }
    }
    tiles
}

/// The keys of a tile that the query at `position` sees, as a range of the tile's columns.
#[inline(always)]
fn visible(keys: &Keys, position: usize, heads: Heads) -> Range<usize> {
    let len = keys.rows.len();
    let end = (position + 1).saturating_sub(keys.position0).min(len);
    let start = heads.first_visible(position).saturating_sub(keys.position0).min(end);
    start..end
}

/// Rows `rows` of head `head` in a matrix of all heads.
fn head_of(
    values: &[f32],
    rows: Range<usize>,
    head: usize,
    head_dim: usize,
    cols: usize,
) -> Matrix<'_> {
    let start = rows.start * cols + head * head_dim;
    Matrix::new(&values[start.min(values.len())..], rows.len(), head_dim, cols)
}

/// tanh x = 1 - 2 / (e^2x + 1), which saturates without overflow.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (simd::exp(2.0 * x) + 1.0)
}
