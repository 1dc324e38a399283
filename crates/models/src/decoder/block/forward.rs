//! A block forward.

use engine::memory::arena::Category;
use engine::ops::{add, attention, columns, gated_mlp, rms_norm, rope, scale};
use engine::tensor::{Tensor, View, ViewMut};

use super::super::linear;
use super::{Activations, Visit};
use crate::error::Result;
use crate::generate::LayerCache;
use crate::lora::saved::Module;
use crate::weights::{Layer, Linear, Norm};

/// The residual stream between blocks. What a block computes is added to it together with the norm that follows, one
/// pass over the rows for both.
pub(in crate::decoder) struct Stream {
    /// (N, C).
    pub(in crate::decoder) x: Tensor,
    /// (N, C): what is still to be added to `x`; within a block, its norm.
    y: Tensor,
    pending: bool,
}

impl Stream {
    pub(in crate::decoder) fn new(x: Tensor) -> Result<Stream> {
        let y = x.device().scratch(x.shape(), x.dtype(), Category::Workspace)?;
        Ok(Stream { x, y, pending: false })
    }

    /// Adds what is pending, and `y = norm(x)`, each part of the rows with its weight; where there is no such norm,
    /// `y = x`.
    fn norm(&mut self, visit: Visit<'_>, norm: Norm, rstd: &mut Tensor) -> Result<()> {
        let Some(module) = visit.norm(norm) else {
            self.settle()?;
            self.y.copy_prefix(self.x.view());
            return Ok(());
        };
        let config = &visit.model.config;
        let (offset, eps) = (config.norm_offset, config.rms_norm_eps);
        for (rows, weight) in visit.weights(module) {
            let rows = || rows.clone();
            let (x, y) = (&mut self.x, self.y.slice_mut(rows()));
            let rstd = rstd.slice_mut(rows());
            if self.pending {
                rms_norm::add_forward(x.slice_mut(rows()), y, weight, offset, eps, rstd)?;
            } else {
                rms_norm::forward(x.slice(rows()), weight, offset, eps, y, rstd)?;
            }
        }
        self.pending = false;
        Ok(())
    }

    /// Adds what is pending.
    fn settle(&mut self) -> Result<()> {
        if self.pending {
            add::forward(self.y.view(), self.x.view_mut())?;
        }
        self.pending = false;
        Ok(())
    }

    /// The stream behind the last block.
    pub(in crate::decoder) fn finish(mut self) -> Result<Tensor> {
        self.settle()?;
        Ok(self.x)
    }
}

/// What is kept of a block for backward.
pub(in crate::decoder) enum Keeping<'a> {
    /// Nothing.
    Nothing,
    /// The stream it starts from.
    Input(ViewMut<'a>),
    /// All that backward reads.
    All(&'a mut Activations),
}

/// The block adds to the stream.
pub(in crate::decoder) fn forward(
    visit: Visit<'_>,
    stream: &mut Stream,
    keeping: Keeping<'_>,
    cache: Option<&mut LayerCache>,
) -> Result<()> {
    let mut rstd = visit.numbers(stream.x.rows(), 1)?;
    let mut keep = attention(visit, stream, &mut rstd, keeping, cache)?;
    match keep.as_deref_mut() {
        Some(keep) => mlp(visit, 0, stream.y.view_mut(), Some(keep))?,
        None => {
            for rows in visit.tiles(stream.y.rows()) {
                mlp(visit, rows.start, stream.y.slice_mut(rows), None)?;
            }
        }
    }
    leave(visit, Norm::AfterMlp, &mut stream.y, &mut rstd, keep)?;
    stream.pending = true;
    Ok(())
}

/// The block again from its input, as far as backward, which computes the MLP again by itself, needs it: attention, and
/// where a norm follows the MLP what goes into that.
pub(in crate::decoder) fn again(
    visit: Visit<'_>,
    input: Tensor,
    keep: &mut Activations,
) -> Result<()> {
    let mut rstd = visit.numbers(input.rows(), 1)?;
    let mut stream = Stream::new(input)?;
    let keep = attention(visit, &mut stream, &mut rstd, Keeping::All(keep), None)?;
    if visit.layer().norm(Norm::AfterMlp).is_some() {
        for rows in visit.tiles(stream.y.rows()) {
            mlp(visit, rows.start, stream.y.slice_mut(rows), None)?;
        }
        leave(visit, Norm::AfterMlp, &mut stream.y, &mut rstd, keep)?;
    }
    Ok(())
}

/// The block as far as its second norm; hands on where all is kept.
fn attention<'a>(
    visit: Visit<'_>,
    stream: &mut Stream,
    rstd: &mut Tensor,
    keeping: Keeping<'a>,
    cache: Option<&mut LayerCache>,
) -> Result<Option<&'a mut Activations>> {
    stream.norm(visit, Norm::BeforeAttention, rstd)?;
    let mut keep = match keeping {
        Keeping::Nothing => None,
        Keeping::Input(mut input) => {
            let rows = 0..input.rows();
            input.copy_from(stream.x.slice(rows));
            None
        }
        Keeping::All(keep) => {
            keep.x.copy_prefix(stream.x.view());
            keep.put_rstd(Norm::BeforeAttention, rstd);
            Some(keep)
        }
    };
    attend(visit, &mut stream.y, keep.as_deref_mut(), cache)?;
    leave(visit, Norm::AfterAttention, &mut stream.y, rstd, keep.as_deref_mut())?;
    stream.pending = true;

    stream.norm(visit, Norm::BeforeMlp, rstd)?;
    if let Some(keep) = &mut keep {
        keep.middle.copy_prefix(stream.x.view());
        keep.put_rstd(Norm::BeforeMlp, rstd);
    }
    Ok(keep)
}

/// `y = m norm(y)`, of what comes out of attention or MLP, where the family has such a norm and such a multiplier.
fn leave(
    visit: Visit<'_>,
    norm: Norm,
    y: &mut Tensor,
    rstd: &mut Tensor,
    keep: Option<&mut Activations>,
) -> Result<()> {
    let config = &visit.model.config;
    if let Some(module) = visit.norm(norm) {
        let mut raw = visit.buffer(y.rows(), y.cols())?;
        raw.copy_prefix(y.view());
        let (offset, eps) = (config.norm_offset, config.rms_norm_eps);
        for (rows, weight) in visit.weights(module) {
            let (to, r) = (y.slice_mut(rows.clone()), rstd.slice_mut(rows.clone()));
            rms_norm::forward(raw.slice(rows), weight, offset, eps, to, r)?;
        }
        if let Some(keep) = keep {
            if let Some(kept) = keep.raw_mut(norm) {
                kept.copy_prefix(raw.view());
            }
            keep.put_rstd(norm, rstd);
        }
    }
    if config.residual_multiplier != 1.0 {
        scale::forward(y.view_mut(), config.residual_multiplier)?;
    }
    Ok(())
}

/// `y = down_proj(act(gate_proj(y)) * up_proj(y))`, for rows of the pass from `first` on.
fn mlp(
    visit: Visit<'_>,
    first: usize,
    mut y: ViewMut<'_>,
    keep: Option<&mut Activations>,
) -> Result<()> {
    let (config, n) = (&visit.model.config, y.rows());
    let width = config.intermediate_size;
    let (mut gate, mut up) = (visit.buffer(n, width)?, visit.buffer(n, width)?);
    let mut keep = keep;
    let mut run = |linear: Linear, x: View<'_>, y: ViewMut<'_>| {
        let mid = keep.as_deref_mut().and_then(|keep| keep.mids[linear as usize].as_mut());
        linear::forward(visit.place_from(linear, first), x, y, mid)
    };
    if config.fused_linears {
        let mut both = visit.buffer(n, 2 * width)?;
        run(Linear::GateUp, y.view(), both.view_mut())?;
        columns::take(both.view(), 0, gate.view_mut())?;
        columns::take(both.view(), width, up.view_mut())?;
    } else {
        run(Linear::Gate, y.view(), gate.view_mut())?;
        run(Linear::Up, y.view(), up.view_mut())?;
    }
    {
        let mut product = visit.buffer(n, width)?;
        gated_mlp::forward(gate.view(), up.view(), config.activation, product.view_mut())?;
        run(Linear::Down, product.view(), y.reborrow())?;
    }
    if let Some([kept_gate, kept_up]) = keep.and_then(|keep| keep.mlp.as_mut()) {
        kept_gate.copy_prefix(gate.view());
        kept_up.copy_prefix(up.view());
    }
    Ok(())
}

/// `y = o_proj(attention(y))`.
fn attend(
    visit: Visit<'_>,
    y: &mut Tensor,
    mut keep: Option<&mut Activations>,
    cache: Option<&mut LayerCache>,
) -> Result<()> {
    let (model, pass) = (visit.model, visit.pass);
    let (config, layer, n) = (&model.config, visit.layer(), y.rows());
    let mut q = visit.buffer(n, config.query_size())?;
    let mut k = visit.buffer(n, config.key_value_size())?;
    let mut v = visit.buffer(n, config.key_value_size())?;
    let mut run = |linear: Linear, to: ViewMut<'_>| {
        let mid = keep.as_deref_mut().and_then(|keep| keep.mids[linear as usize].as_mut());
        linear::forward(visit.place(linear), y.view(), to, mid)
    };
    if config.fused_linears {
        let mut all = visit.buffer(n, q.cols() + k.cols() + v.cols())?;
        run(Linear::Qkv, all.view_mut())?;
        let mut start = 0;
        for part in [&mut q, &mut k, &mut v] {
            columns::take(all.view(), start, part.view_mut())?;
            start += part.cols();
        }
    } else {
        run(Linear::Q, q.view_mut())?;
        run(Linear::K, k.view_mut())?;
        run(Linear::V, v.view_mut())?;
    }
    norm_heads(visit, layer, &mut q, &mut k, keep.as_deref_mut())?;
    if let Some([turns, cos, sin]) = visit.rotary(n) {
        for rows in [&mut q, &mut k] {
            rope::forward(rows.view_mut(), config.head_dim, turns, cos, sin)?;
        }
    }
    let mut out = visit.buffer(n, config.query_size())?;
    let mut lse = visit.numbers(n, config.num_attention_heads)?;
    let (keys, values) = match cache {
        None => (k.view(), v.view()),
        Some(cache) => cache.put(&pass.segments, k.view(), v.view()),
    };
    let (o, l) = (out.view_mut(), lse.view_mut());
    attention::forward(q.view(), keys, values, visit.segments, visit.heads(), o, l)?;
    let mid = keep.as_deref_mut().and_then(|keep| keep.mids[Linear::O as usize].as_mut());
    linear::forward(visit.place(Linear::O), out.view(), y.view_mut(), mid)?;
    if let Some(keep) = keep {
        let copies = [
            (&mut keep.q, &q),
            (&mut keep.k, &k),
            (&mut keep.v, &v),
            (&mut keep.out, &out),
            (&mut keep.lse, &lse),
        ];
        for (to, from) in copies {
            to.copy_prefix(from.view());
        }
    }
    Ok(())
}

/// The norms of queries and keys, in place, where the family has them: of each head, or of all of them at once, as long
/// as their weight is.
fn norm_heads(
    visit: Visit<'_>,
    layer: &Layer,
    q: &mut Tensor,
    k: &mut Tensor,
    keep: Option<&mut Activations>,
) -> Result<()> {
    let (Some(q_norm), Some(k_norm)) = (&layer.q_norm, &layer.k_norm) else { return Ok(()) };
    let config = &visit.model.config;
    let mut kept = keep.and_then(|keep| keep.normed_heads.as_mut());
    for (i, (rows, weight)) in [(q, q_norm), (k, k_norm)].into_iter().enumerate() {
        let mut before = visit.buffer(rows.rows(), rows.cols())?;
        let mut rstd = visit.numbers(rows.rows(), rows.cols() / weight.rows())?;
        before.copy_prefix(rows.view());
        let (offset, eps) = (config.norm_offset, config.rms_norm_eps);
        let module = if i == 0 { Module::QNorm } else { Module::KNorm };
        for (part, weight) in visit.weights(module(visit.index)) {
            let (y, r) = (rows.slice_mut(part.clone()), rstd.slice_mut(part.clone()));
            rms_norm::forward(before.slice(part), weight, offset, eps, y, r)?;
        }
        if let Some(kept) = &mut kept {
            kept[i].0.copy_prefix(before.view());
            kept[i].1.copy_prefix(rstd.view());
        }
    }
    Ok(())
}
