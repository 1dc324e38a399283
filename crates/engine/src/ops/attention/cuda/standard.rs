//! The launches of standard.cu: a segment at a time, all heads of it.

use super::super::{Heads, Saved, Segment};
use super::{Workspace, soft_cap, window};
use crate::cuda::{Arg, Module};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{Tensor, View, ViewMut};

const THREADS: u32 = 128;
/// Rows and columns of a block's tile.
const TILE: usize = 64;

pub(super) static MODULE: Module = Module {
    name: "standard_attention",
    ptx: include_str!("../standard.ptx"),
    kernels: &[
        ("standard_scores", THREADS, 0),
        ("standard_softmax", THREADS, 0),
        ("standard_softmax_backward", THREADS, 0),
        ("standard_gather", THREADS, 0),
        ("standard_scatter", THREADS, 0),
        ("standard_store", THREADS, 0),
    ],
};

/// Keys that a segment could see.
fn keys(segment: &Segment) -> usize {
    segment.parent_len + segment.len
}

/// Columns of its scores in memory.
fn columns(segment: &Segment) -> usize {
    keys(segment).next_multiple_of(8)
}

/// Room for the scores of the largest segment, of all heads.
pub(super) fn scores(device: &Device, segments: &[Segment], heads: Heads) -> Result<Tensor> {
    let largest = segments.iter().map(|s| s.len * columns(s)).max().unwrap_or(0);
    device.scratch((heads.num_heads, largest), DType::BF16, Category::Workspace)
}

/// A launch's arguments for one segment.
struct Pass<'a> {
    device: &'a Device,
    segment: &'a Segment,
    heads: Heads,
}

impl Pass<'_> {
    fn launch(&self, kernel: &'static str, grid: [usize; 3], args: &[Arg]) -> Result<()> {
        self.device.cuda().launch(&MODULE, kernel, grid.map(|blocks| blocks as u32), args)
    }

    /// Where the segment's queries and keys are.
    fn place(&self) -> [Arg; 6] {
        let s = self.segment;
        [
            (s.query_start as u32).into(),
            (s.len as u32).into(),
            (s.parent_start as u32).into(),
            (s.parent_len as u32).into(),
            (s.key_start as i32 - s.parent_len as i32).into(),
            (columns(s) as u32).into(),
        ]
    }

    /// How heads lie.
    fn shape(&self) -> [Arg; 3] {
        let heads = self.heads;
        [(heads.num_heads as u32).into(), heads.group().into(), (heads.head_dim as u32).into()]
    }

    fn grid(&self, rows: usize, cols: usize, heads: usize) -> [usize; 3] {
        [cols.div_ceil(TILE), rows.div_ceil(TILE), heads]
    }

    /// Masked and capped scores of queries and keys; or, of `dout` and values, the gradients of the weights.
    fn scores(&self, a: View<'_>, b: View<'_>, scores: View<'_>, masked: bool) -> Result<()> {
        let (s, heads) = (self.segment, self.heads);
        let form: [Arg; 3] = if masked {
            [heads.scale.into(), window(heads).into(), soft_cap(heads).into()]
        } else {
            [1f32.into(), 0i32.into(), 0f32.into()]
        };
        self.launch(
            "standard_scores",
            self.grid(s.len, columns(s), heads.num_heads),
            &[&[a.into(), b.into(), scores.into()], &self.place()[..], &self.shape(), &form]
                .concat(),
        )
    }

    fn gather(&self, weights: View<'_>, b: View<'_>, out: &ViewMut<'_>, scale: f32) -> Result<()> {
        self.launch(
            "standard_gather",
            self.grid(self.segment.len, self.heads.head_dim, self.heads.num_heads),
            &[
                &[weights.into(), b.into(), out.into()],
                &self.place()[..],
                &self.shape(),
                &[scale.into()],
            ]
            .concat(),
        )
    }

    fn scatter(&self, weights: View<'_>, a: View<'_>, sums: View<'_>, scale: f32) -> Result<()> {
        self.launch(
            "standard_scatter",
            self.grid(keys(self.segment), self.heads.head_dim, self.heads.num_key_value_heads),
            &[
                &[weights.into(), a.into(), sums.into()],
                &self.place()[..],
                &self.shape(),
                &[scale.into()],
            ]
            .concat(),
        )
    }

    /// The gradients of the segment's own keys are complete.
    fn store(&self, sums: View<'_>, to: &ViewMut<'_>) -> Result<()> {
        let (first, count) = (self.segment.key_start * sums.cols(), self.segment.len * sums.cols());
        self.launch(
            "standard_store",
            [count.div_ceil(8 * THREADS as usize), 1, 1],
            &[sums.into(), to.into(), (first as u64).into(), (count as u64).into()],
        )
    }
}

pub(in super::super) fn forward(
    q: View<'_>,
    k: View<'_>,
    v: View<'_>,
    segments: &[Segment],
    heads: Heads,
    workspace: &Workspace,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    let scores = workspace.tensors[0].view();
    for segment in segments {
        let pass = Pass { device: q.device(), segment, heads };
        pass.scores(q, k, scores, true)?;
        pass.launch(
            "standard_softmax",
            [segment.len, heads.num_heads, 1],
            &[
                scores.into(),
                (&lse).into(),
                (segment.query_start as u32).into(),
                (segment.len as u32).into(),
                (columns(segment) as u32).into(),
                (heads.num_heads as u32).into(),
            ],
        )?;
        pass.gather(scores, v, &out, 1.0)?;
    }
    Ok(())
}

pub(in super::super) fn backward(
    dout: View<'_>,
    saved: Saved<'_>,
    segments: &[Segment],
    heads: Heads,
    workspace: &mut Workspace,
    dq: ViewMut<'_>,
    dk: ViewMut<'_>,
    dv: ViewMut<'_>,
) -> Result<()> {
    let Saved { q, k, v, out, lse } = saved;
    let [scores, dscores, dk_sums, dv_sums] = &mut workspace.tensors[..] else {
        unreachable!("backward takes four tensors of the stack")
    };
    dk_sums.zero();
    dv_sums.zero();
    let (scores, dscores) = (scores.view(), dscores.view());
    let (dk_sums, dv_sums) = (dk_sums.view(), dv_sums.view());
    let pass = |segment| Pass { device: q.device(), segment, heads };
    for segment in segments {
        let pass = pass(segment);
        pass.scores(q, k, scores, true)?;
        pass.scores(dout, v, dscores, false)?;
        pass.launch(
            "standard_softmax_backward",
            [segment.len, heads.num_heads, 1],
            &[
                scores.into(),
                dscores.into(),
                lse.into(),
                dout.into(),
                out.into(),
                (segment.query_start as u32).into(),
                (segment.len as u32).into(),
                (columns(segment) as u32).into(),
                (heads.num_heads as u32).into(),
                (heads.head_dim as u32).into(),
                soft_cap(heads).into(),
            ],
        )?;
        pass.gather(dscores, k, &dq, heads.scale)?;
        pass.scatter(dscores, q, dk_sums, heads.scale)?;
        pass.scatter(scores, dout, dv_sums, 1.0)?;
    }
    for segment in segments {
        pass(segment).store(dk_sums, &dk)?;
        pass(segment).store(dv_sums, &dv)?;
    }
    Ok(())
}
