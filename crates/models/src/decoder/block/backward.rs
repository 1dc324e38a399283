//! A block backward: its passes mirror those of forward, in reverse.

use engine::memory::arena::Category;
use engine::ops::attention;
use engine::ops::matmul::Output;
use engine::ops::{gated_mlp, rms_norm, rope};
use engine::tensor::{Tensor, View, ViewMut};

use super::super::linear;
use super::{Activations, Visit};
use crate::error::Result;
use crate::trained::Gradients;
use crate::weights::{Layer, Linear};

/// `dx` (G, C) is the gradient of the block's output and becomes that of its input, unless `needs_input_gradient`
/// is false: then it is left undefined.
pub(in crate::decoder) fn backward(
    visit: Visit<'_>,
    kept: &Activations,
    mut dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
    needs_input_gradient: bool,
) -> Result<()> {
    let Visit { model, pass, index, .. } = visit;
    let (config, layer, n) = (&model.config, &model.weights.layers[index], dx.rows());
    let take = |cols: usize| visit.buffer(n, cols);
    let place = |linear| visit.place(linear);
    let mid = |linear: Linear| kept.mids[linear as usize].as_ref();
    // Every norm's output is computed again; the rstd that comes with it is the one that was kept.
    let mut rstd = visit.numbers(n, 1)?;
    let (mut normed, mut dnormed) = (take(config.hidden_size)?, take(config.hidden_size)?);
    {
        let norm = layer.post_attention_layernorm.view();
        let (y, r) = (normed.view_mut(), rstd.view_mut());
        rms_norm::forward(kept.middle.view(), norm, 0.0, config.rms_norm_eps, y, r)?;
        match &kept.mlp {
            Some([gate, up]) => {
                let product = product(visit, gate, up)?;
                let mids = [Linear::Gate, Linear::Up, Linear::Down].map(mid);
                let whole = Mlp { first: 0, gate, up, product: &product, mids };
                mlp(visit, whole, dx.view(), normed.view(), dnormed.view_mut(), gradients)?;
            }
            None => {
                for rows in visit.tiles(n) {
                    let (dy, x) = (dx.view().slice(rows.clone()), normed.slice(rows.clone()));
                    mlp_again(visit, dy, x, rows.start, dnormed.slice_mut(rows), gradients)?;
                }
            }
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
        attention::backward(dout.view(), saved, visit.segments, visit.heads(), a, b, c)?;
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
        let mut dy = rows.device().scratch(rows.shape(), rows.dtype(), Category::Workspace)?;
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

/// What backward reads of the MLP, for rows of the pass from `first` on.
struct Mlp<'a> {
    first: usize,
    gate: &'a Tensor,
    up: &'a Tensor,
    /// `act(gate) * up`.
    product: &'a Tensor,
    /// The adapter's products of gate, up and down.
    mids: [Option<&'a Tensor>; 3],
}

fn product(visit: Visit<'_>, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut product = visit.buffer(gate.rows(), gate.cols())?;
    let activation = visit.model.config.activation;
    gated_mlp::forward(gate.view(), up.view(), activation, product.view_mut())?;
    Ok(product)
}

/// Through the MLP: `dy` and its input `x` give `dx`, which is written.
fn mlp(
    visit: Visit<'_>,
    kept: Mlp<'_>,
    dy: View<'_>,
    x: View<'_>,
    mut dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let (rows, cols) = (kept.gate.rows(), kept.gate.cols());
    let place = |linear| visit.place_from(linear, kept.first);
    let [gate_mid, up_mid, down_mid] = kept.mids;
    let (mut dgate, mut dup) = (visit.buffer(rows, cols)?, visit.buffer(rows, cols)?);
    {
        let mut dproduct = visit.buffer(rows, cols)?;
        let out = Some((dproduct.view_mut(), Output::Write));
        let product = kept.product.view();
        linear::backward(place(Linear::Down), dy, product, down_mid, out, gradients)?;
        let (gate, up, activation) =
            (kept.gate.view(), kept.up.view(), visit.model.config.activation);
        let (dgate, dup) = (dgate.view_mut(), dup.view_mut());
        gated_mlp::backward(dproduct.view(), gate, up, activation, dgate, dup)?;
    }
    for (linear, dy, mid, output) in
        [(Linear::Gate, &dgate, gate_mid, Output::Write), (Linear::Up, &dup, up_mid, Output::Add)]
    {
        let out = Some((dx.reborrow(), output));
        linear::backward(place(linear), dy.view(), x, mid, out, gradients)?;
    }
    Ok(())
}

/// As [`mlp`], where forward left nothing: what backward reads is computed again.
fn mlp_again(
    visit: Visit<'_>,
    dy: View<'_>,
    x: View<'_>,
    first: usize,
    dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let width = visit.model.config.intermediate_size;
    let run = |linear: Linear| -> Result<(Tensor, Option<Tensor>)> {
        let place = visit.place_from(linear, first);
        let mut mid = place.rank().map(|rank| visit.buffer(x.rows(), rank)).transpose()?;
        let mut y = visit.buffer(x.rows(), width)?;
        linear::forward(place, x, y.view_mut(), mid.as_mut())?;
        Ok((y, mid))
    };
    let (gate, gate_mid) = run(Linear::Gate)?;
    let (up, up_mid) = run(Linear::Up)?;
    let product = product(visit, &gate, &up)?;
    let down_mid = linear::mid(visit.place_from(Linear::Down, first), product.view())?;
    let mids = [gate_mid.as_ref(), up_mid.as_ref(), down_mid.as_ref()];
    let kept = Mlp { first, gate: &gate, up: &up, product: &product, mids };
    mlp(visit, kept, dy, x, dx, gradients)
}
