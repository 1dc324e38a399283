//! One block: `x += o_proj(attention(norm(x)))`, then `x += down_proj(act(gate) * up)` of the second norm.

use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::attention::{self, Heads};
use engine::ops::matmul::Output;
use engine::ops::{add, gated_mlp, rms_norm, rope};
use engine::tensor::{Tensor, View, ViewMut};

use super::linear::{self, Place};
use super::{Model, Pass};
use crate::error::Result;
use crate::generate::LayerCache;
use crate::trained::Gradients;
use crate::weights::{Layer, Linear};

/// What backward reads of a block: rows with gradient only. The normed inputs and the gated product are cheap
/// and are computed again.
pub(super) struct Activations {
    /// The block's input, (G, C).
    x: Tensor,
    /// Of the first norm.
    rstd: Tensor,
    /// Queries and keys before their norms with the norms' rstd, where there are such norms.
    normed_heads: Option<[(Tensor, Tensor); 2]>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    /// The stream between attention and MLP, (G, C).
    middle: Tensor,
    /// Of the second norm.
    middle_rstd: Tensor,
    gate: Tensor,
    up: Tensor,
    /// `x A^T` of the policy's adapter, by [`Linear`].
    mids: [Option<Tensor>; 7],
}

impl Activations {
    pub(super) fn new(model: &Model, index: usize, pass: &Pass<'_>) -> Result<Activations> {
        let (config, n) = (&model.config, pass.grad_rows);
        let take = |cols: usize| -> Result<Tensor> {
            Ok(model.device().scratch((n, cols), DType::F32, Category::Activations)?)
        };
        let (c, qc, kc) = (config.hidden_size, config.query_size(), config.key_value_size());
        let normed_heads = if config.qk_norm {
            Some([
                (take(qc)?, take(config.num_attention_heads)?),
                (take(kc)?, take(config.num_key_value_heads)?),
            ])
        } else {
            None
        };
        let mut mids = [const { None }; 7];
        for (linear, mid) in Linear::ALL.into_iter().zip(&mut mids) {
            if let Some(rank) = (Place { model, pass, index, linear }).rank() {
                *mid = Some(take(rank)?);
            }
        }
        Ok(Activations {
            x: take(c)?,
            rstd: take(1)?,
            normed_heads,
            q: take(qc)?,
            k: take(kc)?,
            v: take(kc)?,
            out: take(qc)?,
            lse: take(config.num_attention_heads)?,
            middle: take(c)?,
            middle_rstd: take(1)?,
            gate: take(config.intermediate_size)?,
            up: take(config.intermediate_size)?,
            mids,
        })
    }
}

fn heads(model: &Model, index: usize) -> Heads {
    let config = &model.config;
    Heads {
        num_heads: config.num_attention_heads,
        num_key_value_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
        window: config.windows[index],
    }
}

/// `x` (N, C) is the stream: the block adds to it.
pub(super) fn forward(
    model: &Model,
    index: usize,
    pass: &Pass<'_>,
    mut x: ViewMut<'_>,
    mut keep: Option<&mut Activations>,
    cache: Option<&mut LayerCache>,
) -> Result<()> {
    let (layer, n) = (&model.weights.layers[index], x.rows());
    let take = |cols: usize| -> Result<Tensor> {
        Ok(model.device().scratch((n, cols), DType::F32, Category::Workspace)?)
    };
    if let Some(keep) = &mut keep {
        keep.x.copy_prefix(x.view());
    }
    let mut update = take(model.config.hidden_size)?;
    attend(model, index, pass, x.view(), update.view_mut(), keep.as_deref_mut(), cache)?;
    add::forward(update.view(), x.reborrow())?;
    if let Some(keep) = &mut keep {
        keep.middle.copy_prefix(x.view());
    }

    let mut rstd = take(1)?;
    let norm = layer.post_attention_layernorm.view();
    rms_norm::forward(
        x.view(),
        norm,
        0.0,
        model.config.rms_norm_eps,
        update.view_mut(),
        rstd.view_mut(),
    )?;
    let (mut gate, mut up) =
        (take(model.config.intermediate_size)?, take(model.config.intermediate_size)?);
    let mut mids = keep.as_deref_mut().map(|keep| &mut keep.mids);
    let mut run = |linear: Linear, x: View<'_>, y: ViewMut<'_>| {
        let mid = mids.as_deref_mut().and_then(|mids| mids[linear as usize].as_mut());
        linear::forward(Place { model, pass, index, linear }, x, y, mid)
    };
    run(Linear::Gate, update.view(), gate.view_mut())?;
    run(Linear::Up, update.view(), up.view_mut())?;
    {
        let mut product = take(model.config.intermediate_size)?;
        gated_mlp::forward(gate.view(), up.view(), model.config.activation, product.view_mut())?;
        run(Linear::Down, product.view(), update.view_mut())?;
    }
    add::forward(update.view(), x)?;
    if let Some(keep) = keep {
        keep.middle_rstd.copy_prefix(rstd.view());
        keep.gate.copy_prefix(gate.view());
        keep.up.copy_prefix(up.view());
    }
    Ok(())
}

/// `update = o_proj(attention(norm(x)))`.
fn attend(
    model: &Model,
    index: usize,
    pass: &Pass<'_>,
    x: View<'_>,
    mut update: ViewMut<'_>,
    mut keep: Option<&mut Activations>,
    cache: Option<&mut LayerCache>,
) -> Result<()> {
    let (config, layer, n) = (&model.config, &model.weights.layers[index], x.rows());
    let take = |cols: usize| -> Result<Tensor> {
        Ok(model.device().scratch((n, cols), DType::F32, Category::Workspace)?)
    };
    let mut rstd = take(1)?;
    let mut q = take(config.query_size())?;
    let (mut k, mut v) = (take(config.key_value_size())?, take(config.key_value_size())?);
    rms_norm::forward(
        x,
        layer.input_layernorm.view(),
        0.0,
        config.rms_norm_eps,
        update.reborrow(),
        rstd.view_mut(),
    )?;
    for (linear, y) in [(Linear::Q, &mut q), (Linear::K, &mut k), (Linear::V, &mut v)] {
        let mid = keep.as_deref_mut().and_then(|keep| keep.mids[linear as usize].as_mut());
        linear::forward(Place { model, pass, index, linear }, update.view(), y.view_mut(), mid)?;
    }
    norm_heads(model, layer, &mut q, &mut k, keep.as_deref_mut())?;
    for rows in [&mut q, &mut k] {
        rope::forward(
            rows.view_mut(),
            pass.positions,
            model.rope.cos.view(),
            model.rope.sin.view(),
        )?;
    }
    let (mut out, mut lse) = (take(config.query_size())?, take(config.num_attention_heads)?);
    let (keys, values) = match cache {
        None => (k.view(), v.view()),
        Some(cache) => cache.put(&pass.segments, k.view(), v.view()),
    };
    let heads = heads(model, index);
    attention::forward(
        q.view(),
        keys,
        values,
        &pass.segments,
        heads,
        out.view_mut(),
        lse.view_mut(),
    )?;
    let mid = keep.as_deref_mut().and_then(|keep| keep.mids[Linear::O as usize].as_mut());
    linear::forward(Place { model, pass, index, linear: Linear::O }, out.view(), update, mid)?;
    if let Some(keep) = keep {
        let copies = [
            (&mut keep.rstd, &rstd),
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
    model: &Model,
    layer: &Layer,
    q: &mut Tensor,
    k: &mut Tensor,
    keep: Option<&mut Activations>,
) -> Result<()> {
    let (Some(q_norm), Some(k_norm)) = (&layer.q_norm, &layer.k_norm) else { return Ok(()) };
    let mut kept = keep.and_then(|keep| keep.normed_heads.as_mut());
    for (i, (rows, weight)) in [(q, q_norm), (k, k_norm)].into_iter().enumerate() {
        let take = |cols: usize| {
            model.device().scratch((rows.rows(), cols), DType::F32, Category::Workspace)
        };
        let (mut before, mut rstd) = (take(rows.cols())?, take(rows.cols() / weight.rows())?);
        before.copy_prefix(rows.view());
        let eps = model.config.rms_norm_eps;
        rms_norm::forward(
            before.view(),
            weight.view(),
            0.0,
            eps,
            rows.view_mut(),
            rstd.view_mut(),
        )?;
        if let Some(kept) = &mut kept {
            kept[i].0.copy_prefix(before.view());
            kept[i].1.copy_prefix(rstd.view());
        }
    }
    Ok(())
}

/// `dx` (G, C) is the gradient of the block's output and becomes that of its input, unless `needs_input_gradient`
/// is false: then it is left undefined.
pub(super) fn backward(
    model: &Model,
    index: usize,
    pass: &Pass<'_>,
    kept: &Activations,
    mut dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
    needs_input_gradient: bool,
) -> Result<()> {
    let (config, layer, n) = (&model.config, &model.weights.layers[index], dx.rows());
    let take = |cols: usize| -> Result<Tensor> {
        Ok(model.device().scratch((n, cols), DType::F32, Category::Workspace)?)
    };
    let place = |linear| Place { model, pass, index, linear };
    let mid = |linear: Linear| kept.mids[linear as usize].as_ref();
    // Every norm's output is computed again; the rstd that comes with it is the one that was kept.
    let mut rstd = take(1)?;
    let (mut normed, mut dnormed) = (take(config.hidden_size)?, take(config.hidden_size)?);
    {
        let (mut dgate, mut dup) =
            (take(config.intermediate_size)?, take(config.intermediate_size)?);
        let (gate, up) = (kept.gate.view(), kept.up.view());
        {
            let (mut product, mut dproduct) =
                (take(config.intermediate_size)?, take(config.intermediate_size)?);
            gated_mlp::forward(gate, up, config.activation, product.view_mut())?;
            let out = Some((dproduct.view_mut(), Output::Write));
            linear::backward(
                place(Linear::Down),
                dx.view(),
                product.view(),
                mid(Linear::Down),
                out,
                gradients,
            )?;
            gated_mlp::backward(
                dproduct.view(),
                gate,
                up,
                config.activation,
                dgate.view_mut(),
                dup.view_mut(),
            )?;
        }
        let norm = layer.post_attention_layernorm.view();
        rms_norm::forward(
            kept.middle.view(),
            norm,
            0.0,
            config.rms_norm_eps,
            normed.view_mut(),
            rstd.view_mut(),
        )?;
        for (linear, dy, output) in
            [(Linear::Gate, &dgate, Output::Write), (Linear::Up, &dup, Output::Add)]
        {
            let out = Some((dnormed.view_mut(), output));
            linear::backward(place(linear), dy.view(), normed.view(), mid(linear), out, gradients)?;
        }
        let dnorm = gradients.norm(|weights| &mut weights.layers[index].post_attention_layernorm);
        let (dy, x, rstd) = (dnormed.view(), kept.middle.view(), kept.middle_rstd.view());
        rms_norm::backward(dy, x, norm, 0.0, rstd, dx.reborrow(), dnorm)?;
    }

    let (mut dq, mut dk, mut dv) = (
        take(config.query_size())?,
        take(config.key_value_size())?,
        take(config.key_value_size())?,
    );
    {
        let mut dout = take(config.query_size())?;
        let out = Some((dout.view_mut(), Output::Write));
        linear::backward(
            place(Linear::O),
            dx.view(),
            kept.out.view(),
            mid(Linear::O),
            out,
            gradients,
        )?;
        let saved = attention::Saved {
            q: kept.q.view(),
            k: kept.k.view(),
            v: kept.v.view(),
            out: kept.out.view(),
            lse: kept.lse.view(),
        };
        let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
        attention::backward(dout.view(), saved, &pass.segments, heads(model, index), a, b, c)?;
    }
    for rows in [&mut dq, &mut dk] {
        rope::backward(
            rows.view_mut(),
            pass.positions,
            model.rope.cos.view(),
            model.rope.sin.view(),
        )?;
    }
    unnorm_heads(index, layer, kept, &mut dq, &mut dk, gradients)?;
    let norm = layer.input_layernorm.view();
    rms_norm::forward(
        kept.x.view(),
        norm,
        0.0,
        config.rms_norm_eps,
        normed.view_mut(),
        rstd.view_mut(),
    )?;
    let parts = [
        (Linear::Q, &dq, Output::Write),
        (Linear::K, &dk, Output::Add),
        (Linear::V, &dv, Output::Add),
    ];
    for (linear, dy, output) in parts {
        let out = needs_input_gradient.then(|| (dnormed.view_mut(), output));
        linear::backward(place(linear), dy.view(), normed.view(), mid(linear), out, gradients)?;
    }
    if needs_input_gradient {
        let dnorm = gradients.norm(|weights| &mut weights.layers[index].input_layernorm);
        rms_norm::backward(dnormed.view(), kept.x.view(), norm, 0.0, kept.rstd.view(), dx, dnorm)?;
    }
    Ok(())
}

/// Back through the norms of query and key heads: `dq` and `dk` become the gradients before them.
fn unnorm_heads(
    index: usize,
    layer: &Layer,
    kept: &Activations,
    dq: &mut Tensor,
    dk: &mut Tensor,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let (Some(q_norm), Some(k_norm), Some(before)) =
        (&layer.q_norm, &layer.k_norm, &kept.normed_heads)
    else {
        return Ok(());
    };
    for (i, (rows, weight)) in [(dq, q_norm), (dk, k_norm)].into_iter().enumerate() {
        let mut dy = rows.device().scratch(rows.shape(), DType::F32, Category::Workspace)?;
        dy.copy_prefix(rows.view());
        rows.zero();
        let dnorm = gradients.optional_norm(|weights| {
            let layer = &mut weights.layers[index];
            if i == 0 { layer.q_norm.as_mut() } else { layer.k_norm.as_mut() }
        });
        let (x, rstd) = (before[i].0.view(), before[i].1.view());
        rms_norm::backward(dy.view(), x, weight.view(), 0.0, rstd, rows.view_mut(), dnorm)?;
    }
    Ok(())
}
