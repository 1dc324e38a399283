//! A block forward.

use engine::memory::arena::Category;
use engine::ops::{add, attention, gated_mlp, rms_norm, rope};
use engine::tensor::{Tensor, View, ViewMut};

use super::super::linear;
use super::{Activations, Visit};
use crate::error::Result;
use crate::generate::LayerCache;
use crate::weights::{Layer, Linear};

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

    /// Adds what is pending, and `y = norm(x)`.
    fn norm(&mut self, weight: &Tensor, eps: f32, mut rstd: ViewMut<'_>) -> Result<()> {
        let (weight, rstd) = (weight.view(), rstd.reborrow());
        let (x, y) = (&mut self.x, self.y.view_mut());
        if self.pending {
            rms_norm::add_forward(x.view_mut(), y, weight, 0.0, eps, rstd)?;
        } else {
            rms_norm::forward(x.view(), weight, 0.0, eps, y, rstd)?;
        }
        self.pending = false;
        Ok(())
    }

    /// The stream behind the last block.
    pub(in crate::decoder) fn finish(mut self) -> Result<Tensor> {
        if self.pending {
            add::forward(self.y.view(), self.x.view_mut())?;
        }
        Ok(self.x)
    }
}

/// What is kept of a block for backward.
pub(in crate::decoder) enum Keeping<'a> {
    /// Nothing.
    Nothing,
    /// The stream it starts from.
    Input(&'a mut Tensor),
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
    match attention(visit, stream, keeping, cache)? {
        Some(keep) => mlp(visit, 0, stream.y.view_mut(), Some(keep))?,
        None => {
            for rows in visit.tiles(stream.y.rows()) {
                mlp(visit, rows.start, stream.y.slice_mut(rows), None)?;
            }
        }
    }
    stream.pending = true;
    Ok(())
}

/// The block's attention again, from its input, for backward, which computes the MLP again by itself.
pub(in crate::decoder) fn again(
    visit: Visit<'_>,
    input: Tensor,
    keep: &mut Activations,
) -> Result<()> {
    attention(visit, &mut Stream::new(input)?, Keeping::All(keep), None)?;
    Ok(())
}

/// The block as far as its second norm; hands on where all is kept.
fn attention<'a>(
    visit: Visit<'_>,
    stream: &mut Stream,
    keeping: Keeping<'a>,
    cache: Option<&mut LayerCache>,
) -> Result<Option<&'a mut Activations>> {
    let (config, layer) = (&visit.model.config, &visit.model.weights.layers[visit.index]);
    let mut rstd = visit.numbers(stream.x.rows(), 1)?;
    stream.norm(&layer.input_layernorm, config.rms_norm_eps, rstd.view_mut())?;
    let mut keep = match keeping {
        Keeping::Nothing => None,
        Keeping::Input(input) => {
            input.copy_prefix(stream.x.view());
            None
        }
        Keeping::All(keep) => {
            keep.x.copy_prefix(stream.x.view());
            keep.rstd.copy_prefix(rstd.view());
            Some(keep)
        }
    };
    attend(visit, &mut stream.y, keep.as_deref_mut(), cache)?;
    stream.pending = true;

    stream.norm(&layer.post_attention_layernorm, config.rms_norm_eps, rstd.view_mut())?;
    if let Some(keep) = &mut keep {
        keep.middle.copy_prefix(stream.x.view());
        keep.middle_rstd.copy_prefix(rstd.view());
    }
    Ok(keep)
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
    run(Linear::Gate, y.view(), gate.view_mut())?;
    run(Linear::Up, y.view(), up.view_mut())?;
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
    let (config, layer, n) = (&model.config, &model.weights.layers[visit.index], y.rows());
    let mut q = visit.buffer(n, config.query_size())?;
    let mut k = visit.buffer(n, config.key_value_size())?;
    let mut v = visit.buffer(n, config.key_value_size())?;
    for (linear, to) in [(Linear::Q, &mut q), (Linear::K, &mut k), (Linear::V, &mut v)] {
        let mid = keep.as_deref_mut().and_then(|keep| keep.mids[linear as usize].as_mut());
        linear::forward(visit.place(linear), y.view(), to.view_mut(), mid)?;
    }
    norm_heads(visit, layer, &mut q, &mut k, keep.as_deref_mut())?;
    let (cos, sin) = (model.rope.cos.view(), model.rope.sin.view());
    for rows in [&mut q, &mut k] {
        rope::forward(rows.view_mut(), pass.positions, cos, sin)?;
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

/// The norms of query and key heads, in place, where the family has them.
fn norm_heads(
    visit: Visit<'_>,
    layer: &Layer,
    q: &mut Tensor,
    k: &mut Tensor,
    keep: Option<&mut Activations>,
) -> Result<()> {
    let (Some(q_norm), Some(k_norm)) = (&layer.q_norm, &layer.k_norm) else { return Ok(()) };
    let eps = visit.model.config.rms_norm_eps;
    let mut kept = keep.and_then(|keep| keep.normed_heads.as_mut());
    for (i, (rows, weight)) in [(q, q_norm), (k, k_norm)].into_iter().enumerate() {
        let mut before = visit.buffer(rows.rows(), rows.cols())?;
        let mut rstd = visit.numbers(rows.rows(), rows.cols() / weight.rows())?;
        before.copy_prefix(rows.view());
        let (y, r) = (rows.view_mut(), rstd.view_mut());
        rms_norm::forward(before.view(), weight.view(), 0.0, eps, y, r)?;
        if let Some(kept) = &mut kept {
            kept[i].0.copy_prefix(before.view());
            kept[i].1.copy_prefix(rstd.view());
        }
    }
    Ok(())
}
