//! Attention over packed token trees: `o = softmax(scale q k^T + mask) v` per head, grouped-query, exact, without
//! the score matrix (online softmax: Milakov and Gimelshein, arXiv 1805.02867; tiling: Dao et al., arXiv
//! 2205.14135).
//!
//! A [`Segment`] attends to itself causally and to all of its parent. A sliding window of W lets a token see
//! the keys whose position is less than W behind its own.
//!
//! * `q`, `out` (N, H D), `k`, `v` (M, HKV D) f32; query head h reads KV head `h / (H / HKV)`; in training M = N
//!   and keys lie where their queries lie, in generation M is the cache
//! * `lse` (N, H), the logarithm of each softmax's sum, is saved for backward, as are q, k, v and out
//! * rows of `out` and `lse` that no segment covers are left as they are
//! * backward: `dq`, `dk`, `dv` of the rows covered are overwritten; every parent must itself be a segment

mod cpu;
#[cfg(test)]
mod tests;

use super::expect;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const OP: &str = "attention";

/// A run of queries and the keys it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row of its queries.
    pub query_start: usize,
    /// First row of its own keys; the i-th query sees the first i + 1 of them.
    pub key_start: usize,
    /// Number of queries and of own keys.
    pub len: usize,
    /// First row of the parent's keys, all of which every query sees.
    pub parent_start: usize,
    /// Number of the parent's keys, 0 for none. Their positions end at `position0 - 1`.
    pub parent_len: usize,
    /// Position of the first query.
    pub position0: usize,
}

/// How heads are laid out and scores are formed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor of q k^T, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Sliding window in tokens, the query's own position included.
    pub window: Option<usize>,
}

impl Heads {
    fn query_cols(&self) -> usize {
        self.num_heads * self.head_dim
    }

    fn key_cols(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The first position a query at `position` sees.
    fn first_visible(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// See the room's contract.
pub fn forward(
    q: View<'_>,
    k: View<'_>,
    v: View<'_>,
    segments: &[Segment],
    heads: Heads,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    check(q, k, v, segments, heads)?;
    expect(OP, "out", out.view(), (q.rows(), heads.query_cols()), DType::F32)?;
    expect(OP, "lse", lse.view(), (q.rows(), heads.num_heads), DType::F32)?;
    if out.device().is_plan() {
        out.device().book(
            OP,
            4.0 * scores(segments, heads),
            (2 * q.bytes() + 2 * k.bytes()) as f64,
        );
        return Ok(());
    }
    cpu::forward::forward(
        q.as_slice(),
        k.as_slice(),
        v.as_slice(),
        segments,
        heads,
        out.into_mut_slice(),
        lse.into_mut_slice(),
    );
    Ok(())
}

/// What backward reads besides the gradient of the output.
#[derive(Clone, Copy)]
pub struct Saved<'a> {
    /// Queries as they went into forward.
    pub q: View<'a>,
    /// Keys as they went into forward.
    pub k: View<'a>,
    /// Values as they went into forward.
    pub v: View<'a>,
    /// The output of forward.
    pub out: View<'a>,
    /// Written by forward.
    pub lse: View<'a>,
}

/// See the room's contract.
pub fn backward(
    dout: View<'_>,
    saved: Saved<'_>,
    segments: &[Segment],
    heads: Heads,
    dq: ViewMut<'_>,
    dk: ViewMut<'_>,
    dv: ViewMut<'_>,
) -> Result<()> {
    let n = saved.q.rows();
    check(saved.q, saved.k, saved.v, segments, heads)?;
    let families = families(segments)?;
    for (name, view) in [("out", saved.out), ("dout", dout), ("dq", dq.view())] {
        expect(OP, name, view, (n, heads.query_cols()), DType::F32)?;
    }
    expect(OP, "lse", saved.lse, (n, heads.num_heads), DType::F32)?;
    for (name, view) in [("dk", dk.view()), ("dv", dv.view())] {
        expect(OP, name, view, (saved.k.rows(), heads.key_cols()), DType::F32)?;
    }
    if dq.device().is_plan() {
        let traffic = 4 * saved.q.bytes() + 4 * saved.k.bytes();
        dq.device().book("attention backward", 10.0 * scores(segments, heads), traffic as f64);
        return Ok(());
    }
    let gradients = cpu::backward::Gradients::new(
        dq.into_mut_slice(),
        dk.into_mut_slice(),
        dv.into_mut_slice(),
    );
    cpu::backward::backward(dout.as_slice(), saved, segments, &families, heads, &gradients);
    Ok(())
}

/// Score elements times head size, over all query heads: a product over it costs twice this many operations.
fn scores(segments: &[Segment], heads: Heads) -> f64 {
    let pairs: f64 = segments
        .iter()
        .map(|s| {
            let (len, seen) = (s.len as f64, heads.window.map_or(f64::INFINITY, |w| w as f64));
            let full = s.position0 as f64;
            // Query i sees min(position0 + i + 1, W) keys.
            let steps = (seen - full).clamp(0.0, len);
            steps * full + steps * (steps + 1.0) / 2.0 + (len - steps) * seen.min(full + len)
        })
        .sum();
    pairs * heads.query_cols() as f64
}

fn check(q: View<'_>, k: View<'_>, v: View<'_>, segments: &[Segment], heads: Heads) -> Result<()> {
    expect(OP, "q", q, (q.rows(), heads.query_cols()), DType::F32)?;
    expect(OP, "k", k, (k.rows(), heads.key_cols()), DType::F32)?;
    expect(OP, "v", v, (k.rows(), heads.key_cols()), DType::F32)?;
    if heads.num_key_value_heads == 0 || !heads.num_heads.is_multiple_of(heads.num_key_value_heads)
    {
        return Err(Error::Argument {
            op: OP,
            what: format!(
                "{} query heads over {} key-value heads",
                heads.num_heads, heads.num_key_value_heads
            ),
            hint: "num_attention_heads must be a multiple of num_key_value_heads in config.json",
        });
    }
    let fits = |s: &Segment| {
        s.query_start + s.len <= q.rows()
            && s.key_start + s.len <= k.rows()
            && s.parent_start + s.parent_len <= k.rows()
            && s.parent_len <= s.position0
    };
    match segments.iter().find(|s| !fits(s)) {
        None => Ok(()),
        Some(segment) => Err(Error::Argument {
            op: OP,
            what: format!("{segment:?} does not fit {} queries and {} keys", q.rows(), k.rows()),
            hint: "the segment table belongs to another batch",
        }),
    }
}

/// Groups segments by root: each root with its children, in order. Keys of a family are read by it alone.
fn families(segments: &[Segment]) -> Result<Vec<Vec<usize>>> {
    let mut families: Vec<Vec<usize>> = Vec::new();
    let mut root_at = std::collections::HashMap::new();
    for (i, segment) in segments.iter().enumerate() {
        if segment.parent_len == 0 {
            root_at.insert(segment.key_start, (families.len(), segment.len));
            families.push(vec![i]);
            continue;
        }
        match root_at.get(&segment.parent_start) {
            Some((family, len)) if *len == segment.parent_len => families[*family].push(i),
            _ => {
                return Err(Error::Argument {
                    op: OP,
                    what: format!("the parent of {segment:?} is not a root segment before it"),
                    hint: "trees are two deep in training: list every prompt before its completions",
                });
            }
        }
    }
    Ok(families)
}
