//! Attention over packed token trees: `o = softmax(scale q k^T + mask) v` per head, grouped-query, exact, without
//! the score matrix (online softmax: Milakov and Gimelshein, arXiv 1805.02867; tiling: Dao et al., arXiv
//! 2205.14135).
//!
//! A [`Segment`] attends to itself causally and to all of its parent. A sliding window of W lets a token see
//! the keys whose position is less than W behind its own. A soft cap c turns every scaled score s into
//! `c tanh(s / c)` (Gemma 2, arXiv 2408.00118, section 2).
//!
//! * `q`, `out` (N, H D), `k`, `v` (M, HKV D) activations; query head h reads KV head `h / (H / HKV)`; in training
//!   M = N and keys lie where their queries lie, in generation M is the cache
//! * `lse` (N, H) f32, the logarithm of each softmax's sum, is saved for backward, as are q, k, v and out
//! * rows of `out` and `lse` that no segment covers are left as they are
//! * backward: `dq`, `dk`, `dv` of the rows covered are overwritten; every parent must itself be a segment
//! * [`Segments`] are made once a pass and serve every layer; the kernel and the window are the layer's
//! * on CUDA the flash kernels take heads of 64, 80, 96, 128 and 256, the standard ones any multiple of 8, with scores
//!   in bf16; on the CPU both are the same

mod cpu;
pub(super) mod cuda;
mod segments;
#[cfg(test)]
mod tests;

pub use segments::{Segment, Segments};

use super::expect;
use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const OP: &str = "attention";

/// How attention is computed on CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Without the score matrix.
    Flash,
    /// With every score written to memory: for comparison, and for head sizes that no flash kernel is for.
    Standard,
}

impl Kernel {
    /// The fastest there is for heads of `head_dim` elements.
    pub fn fastest(head_dim: usize) -> Kernel {
        if cuda::has_flash(head_dim) { Kernel::Flash } else { Kernel::Standard }
    }
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
    /// Bound that scaled scores approach.
    pub soft_cap: Option<f32>,
    /// How it is computed.
    pub kernel: Kernel,
}

impl Heads {
    /// What forward and backward are booked as.
    fn name(&self, device: &Device) -> [&'static str; 2] {
        match (device.arithmetic(), self.kernel) {
            (Kind::Cuda, Kernel::Standard) => ["standard attention", "standard attention backward"],
            _ => [OP, "attention backward"],
        }
    }

    fn query_cols(&self) -> usize {
        self.num_heads * self.head_dim
    }

    fn key_cols(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads that share a KV head.
    fn group(&self) -> u32 {
        (self.num_heads / self.num_key_value_heads) as u32
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
    segments: &Segments,
    heads: Heads,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    let (device, list): (&Device, &[Segment]) = (q.device(), segments);
    check(device, q, k, v, list, heads)?;
    expect(OP, "out", out.view(), (q.rows(), heads.query_cols()), device.activations())?;
    expect(OP, "lse", lse.view(), (q.rows(), heads.num_heads), DType::F32)?;
    let workspace = match device.arithmetic() {
        Kind::Cuda => Some(cuda::Workspace::forward(device, list, heads)?),
        _ => None,
    };
    if device.is_plan() {
        let traffic = (2 * q.bytes() + 2 * k.bytes()) as f64;
        device.book(heads.name(device)[0], 4.0 * scores(list, heads), traffic);
        return Ok(());
    }
    if let Some(workspace) = workspace {
        return match heads.kernel {
            Kernel::Flash => cuda::flash_forward(q, k, v, segments, heads, out, lse),
            Kernel::Standard => cuda::standard_forward(q, k, v, list, heads, &workspace, out, lse),
        };
    }
    cpu::forward::forward(
        q.as_slice(),
        k.as_slice(),
        v.as_slice(),
        list,
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
    segments: &Segments,
    heads: Heads,
    dq: ViewMut<'_>,
    dk: ViewMut<'_>,
    dv: ViewMut<'_>,
) -> Result<()> {
    let (device, list): (&Device, &[Segment]) = (dout.device(), segments);
    let n = saved.q.rows();
    check(device, saved.q, saved.k, saved.v, list, heads)?;
    let families = segments::families(list)?;
    for (name, view) in [("out", saved.out), ("dout", dout), ("dq", dq.view())] {
        expect(OP, name, view, (n, heads.query_cols()), device.activations())?;
    }
    expect(OP, "lse", saved.lse, (n, heads.num_heads), DType::F32)?;
    for (name, view) in [("dk", dk.view()), ("dv", dv.view())] {
        expect(OP, name, view, (saved.k.rows(), heads.key_cols()), device.activations())?;
    }
    let rows = (n, saved.k.rows());
    let workspace = match device.arithmetic() {
        Kind::Cuda => Some(cuda::Workspace::backward(device, list, heads, rows)?),
        _ => None,
    };
    if device.is_plan() {
        let traffic = 4 * saved.q.bytes() + 4 * saved.k.bytes();
        device.book(heads.name(device)[1], 10.0 * scores(list, heads), traffic as f64);
        return Ok(());
    }
    if let Some(mut workspace) = workspace {
        return match heads.kernel {
            Kernel::Flash => {
                cuda::flash_backward(dout, saved, segments, heads, &workspace, dq, dk, dv)
            }
            Kernel::Standard => {
                cuda::standard_backward(dout, saved, list, heads, &mut workspace, dq, dk, dv)
            }
        };
    }
    let gradients = cpu::backward::Gradients::new(
        dq.into_mut_slice(),
        dk.into_mut_slice(),
        dv.into_mut_slice(),
    );
    cpu::backward::backward(dout.as_slice(), saved, list, &families, heads, &gradients);
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

fn check(
    device: &Device,
    q: View<'_>,
    k: View<'_>,
    v: View<'_>,
    segments: &[Segment],
    heads: Heads,
) -> Result<()> {
    expect(OP, "q", q, (q.rows(), heads.query_cols()), device.activations())?;
    expect(OP, "k", k, (k.rows(), heads.key_cols()), device.activations())?;
    expect(OP, "v", v, (k.rows(), heads.key_cols()), device.activations())?;
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
    if device.arithmetic() == Kind::Cuda {
        cuda::check(heads)?;
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
