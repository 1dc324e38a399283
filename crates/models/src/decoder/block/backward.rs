//! A block backward: its passes mirror those of forward, in reverse.

use engine::memory::arena::Category;
use engine::ops::attention;
use engine::ops::matmul::Output;
use engine::ops::{add, columns, gated_mlp, rms_norm, rope, scale};
use engine::tensor::{Tensor, View, ViewMut};

use super::super::linear::{self, Mid};
use super::{Activations, Visit};
use crate::error::Result;
use crate::lora::saved::Module;
use crate::trained::Gradients;
use crate::weights::{LINEARS, Linear, Norm};

/// `dx` (G, C) is the gradient of the block's output and becomes that of its input, unless `needs_input_gradient`
/// is false: then it is left undefined.
pub(in crate::decoder) fn backward(
    visit: Visit<'_>,
    kept: &Activations,
    mut dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
    needs_input_gradient: bool,
) -> Result<()> {
    // Every norm's output is computed again; the rstd that comes with it is the one that was kept.
    let width = visit.model.config.hidden_size;
    let mut normed = visit.buffer(dx.rows(), width)?;
    let mut dnormed = visit.buffer(dx.rows(), width)?;
    {
        let left = unleave(visit, Norm::AfterMlp, kept, dx.view(), gradients)?;
        let dy = left.as_ref().map_or(dx.view(), Tensor::view);
        enter(visit, Norm::BeforeMlp, kept, &mut normed)?;
        match &kept.mlp {
            Some([gate, up]) => {
                let product = product(visit, gate, up)?;
                let mids = Linear::ALL.map(|linear| kept.mids[linear as usize].as_ref());
                let whole = Mlp { first: 0, gate, up, product: &product, mids };
                mlp(visit, whole, dy, normed.view(), dnormed.view_mut(), gradients)?;
            }
            None => {
                for rows in visit.tiles(dy.rows()) {
                    let (dy, x) = (dy.slice(rows.clone()), normed.slice(rows.clone()));
                    mlp_again(visit, dy, x, rows.start, dnormed.slice_mut(rows), gradients)?;
                }
            }
        }
    }
    reenter(visit, Norm::BeforeMlp, kept, &dnormed, dx.reborrow(), gradients)?;

    let (mut dq, mut dk, mut dv) = {
        let config = &visit.model.config;
        let take = |cols: usize| visit.buffer(dx.rows(), cols);
        (take(config.query_size())?, take(config.key_value_size())?, take(config.key_value_size())?)
    };
    {
        let left = unleave(visit, Norm::AfterAttention, kept, dx.view(), gradients)?;
        let dy = left.as_ref().map_or(dx.view(), Tensor::view);
        unattend(visit, kept, dy, [&mut dq, &mut dk, &mut dv], gradients)?;
    }
    enter(visit, Norm::BeforeAttention, kept, &mut normed)?;
    let input = |output| needs_input_gradient.then_some(output);
    if visit.model.config.fused_linears {
        let mut all = visit.buffer(dx.rows(), dq.cols() + dk.cols() + dv.cols())?;
        let mut start = 0;
        for part in [&dq, &dk, &dv] {
            columns::put(part.view(), start, all.view_mut())?;
            start += part.cols();
        }
        let output = input(Output::Write);
        linear(visit, Linear::Qkv, kept, &all, normed.view(), &mut dnormed, output, gradients)?;
    } else {
        let ways = [(Linear::Q, &dq), (Linear::K, &dk), (Linear::V, &dv)].map(|(linear, dy)| {
            let mid = kept.mids[linear as usize].as_ref();
            linear::Way { place: visit.place(linear), dy: dy.view(), mid }
        });
        let dx = input(Output::Write).map(|output| (dnormed.view_mut(), output));
        linear::backward_of_all(&ways, normed.view(), dx, gradients)?;
    }
    if needs_input_gradient {
        reenter(visit, Norm::BeforeAttention, kept, &dnormed, dx, gradients)?;
    }
    Ok(())
}

/// Back through a linear layer; its input's gradient goes where `output` says, if it is asked for.
fn linear(
    visit: Visit<'_>,
    which: Linear,
    kept: &Activations,
    dy: &Tensor,
    x: View<'_>,
    dx: &mut Tensor,
    output: Option<Output>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let mid = kept.mids[which as usize].as_ref();
    let dx = output.map(|output| (dx.view_mut(), output));
    linear::backward(visit.place(which), dy.view(), x, mid, dx, gradients)
}

/// The stream before attention or MLP.
fn stream(norm: Norm, kept: &Activations) -> View<'_> {
    match norm {
        Norm::BeforeAttention => kept.x.view(),
        _ => kept.middle.view(),
    }
}

/// What goes into attention or MLP: the norm of the stream, or the stream.
fn enter(visit: Visit<'_>, norm: Norm, kept: &Activations, normed: &mut Tensor) -> Result<()> {
    let config = &visit.model.config;
    let x = stream(norm, kept);
    let Some(module) = visit.norm(norm) else {
        normed.copy_prefix(x);
        return Ok(());
    };
    let weight = visit.policy_weight(module);
    let mut rstd = visit.numbers(x.rows(), 1)?;
    let (offset, eps) = (config.norm_offset, config.rms_norm_eps);
    rms_norm::forward(x, weight, offset, eps, normed.view_mut(), rstd.view_mut())?;
    Ok(())
}

/// Back through [`enter`]: `dx` is added to.
fn reenter(
    visit: Visit<'_>,
    norm: Norm,
    kept: &Activations,
    dnormed: &Tensor,
    dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let Some((module, rstd)) = visit.norm(norm).zip(kept.rstd(norm)) else {
        return Ok(add::forward(dnormed.view(), dx)?);
    };
    let offset = visit.model.config.norm_offset;
    let dnorm = gradients.of(module, |weights| weights.norm_mut(visit.index, norm));
    let (dy, x) = (dnormed.view(), stream(norm, kept));
    let weight = visit.policy_weight(module);
    rms_norm::backward(dy, x, weight, offset, rstd.view(), dx, dnorm)?;
    Ok(())
}

/// Back through the norm and the multiplier behind attention or MLP: the gradient of what came out of them, where it is
/// not that of the stream.
fn unleave(
    visit: Visit<'_>,
    norm: Norm,
    kept: &Activations,
    dx: View<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<Option<Tensor>> {
    let config = &visit.model.config;
    let mut dy = None;
    if config.residual_multiplier != 1.0 {
        let mut scaled = visit.buffer(dx.rows(), dx.cols())?;
        scaled.copy_prefix(dx);
        scale::backward(scaled.view_mut(), config.residual_multiplier)?;
        dy = Some(scaled);
    }
    if let (Some(module), Some(raw), Some(rstd)) =
        (visit.norm(norm), kept.raw(norm), kept.rstd(norm))
    {
        let mut draw = visit.buffer(dx.rows(), dx.cols())?;
        draw.zero();
        let dnorm = gradients.of(module, |weights| weights.norm_mut(visit.index, norm));
        let from = dy.as_ref().map_or(dx, Tensor::view);
        let (weight, offset) = (visit.policy_weight(module), config.norm_offset);
        rms_norm::backward(from, raw.view(), weight, offset, rstd.view(), draw.view_mut(), dnorm)?;
        dy = Some(draw);
    }
    Ok(dy)
}

/// What backward reads of the MLP, for rows of the pass from `first` on.
struct Mlp<'a> {
    first: usize,
    gate: &'a Tensor,
    up: &'a Tensor,
    /// `act(gate) * up`.
    product: &'a Tensor,
    /// Of the policy's adapter, by [`Linear`].
    mids: [Option<&'a Mid>; LINEARS],
}

fn product(visit: Visit<'_>, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let mut product = visit.buffer(gate.rows(), gate.cols())?;
    let activation = visit.model.config.activation;
    gated_mlp::forward(gate.view(), up.view(), activation, product.view_mut())?;
    Ok(product)
}

/// Back through the MLP, from `dy` to `dx`, the gradient of its input `x`, which is written.
fn mlp(
    visit: Visit<'_>,
    kept: Mlp<'_>,
    dy: View<'_>,
    x: View<'_>,
    dx: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let (config, rows, cols) = (&visit.model.config, kept.gate.rows(), kept.gate.cols());
    let mut back = |linear: Linear, dy: View<'_>, x: View<'_>, out: (ViewMut<'_>, Output)| {
        let place = visit.place_from(linear, kept.first);
        linear::backward(place, dy, x, kept.mids[linear as usize], Some(out), gradients)
    };
    let (mut dgate, mut dup) = (visit.buffer(rows, cols)?, visit.buffer(rows, cols)?);
    {
        let mut dproduct = visit.buffer(rows, cols)?;
        back(Linear::Down, dy, kept.product.view(), (dproduct.view_mut(), Output::Write))?;
        let (gate, up, activation) = (kept.gate.view(), kept.up.view(), config.activation);
        let (dgate, dup) = (dgate.view_mut(), dup.view_mut());
        gated_mlp::backward(dproduct.view(), gate, up, activation, dgate, dup)?;
    }
    if config.fused_linears {
        let mut both = visit.buffer(rows, 2 * cols)?;
        columns::put(dgate.view(), 0, both.view_mut())?;
        columns::put(dup.view(), cols, both.view_mut())?;
        return back(Linear::GateUp, both.view(), x, (dx, Output::Write));
    }
    let ways = [(Linear::Gate, &dgate), (Linear::Up, &dup)].map(|(linear, dy)| {
        let mid = kept.mids[linear as usize];
        linear::Way { place: visit.place_from(linear, kept.first), dy: dy.view(), mid }
    });
    linear::backward_of_all(&ways, x, Some((dx, Output::Write)), gradients)
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
    let (config, rows) = (&visit.model.config, x.rows());
    let run = |linear: Linear| -> Result<(Tensor, Option<Mid>)> {
        let place = visit.place_from(linear, first);
        let mut mid = place.room(rows, Category::Workspace)?;
        let mut y = visit.buffer(rows, linear.shape(config).0)?;
        linear::forward(place, x, y.view_mut(), mid.as_mut())?;
        Ok((y, mid))
    };
    let mut mids = [const { None }; LINEARS];
    let (gate, up) = if config.fused_linears {
        let width = config.intermediate_size;
        let (mut gate, mut up) = (visit.buffer(rows, width)?, visit.buffer(rows, width)?);
        let (both, mid) = run(Linear::GateUp)?;
        columns::take(both.view(), 0, gate.view_mut())?;
        columns::take(both.view(), width, up.view_mut())?;
        mids[Linear::GateUp as usize] = mid;
        (gate, up)
    } else {
        let ((gate, gate_mid), (up, up_mid)) = (run(Linear::Gate)?, run(Linear::Up)?);
        (mids[Linear::Gate as usize], mids[Linear::Up as usize]) = (gate_mid, up_mid);
        (gate, up)
    };
    let product = product(visit, &gate, &up)?;
    let place = visit.place_from(Linear::Down, first);
    mids[Linear::Down as usize] = linear::mid(place, product.view())?;
    let mids = mids.each_ref().map(Option::as_ref);
    mlp(visit, Mlp { first, gate: &gate, up: &up, product: &product, mids }, dy, x, dx, gradients)
}

/// Back through attention, from `dy` to the gradients of what q_proj, k_proj and v_proj computed.
fn unattend(
    visit: Visit<'_>,
    kept: &Activations,
    dy: View<'_>,
    [dq, dk, dv]: [&mut Tensor; 3],
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let (config, n) = (&visit.model.config, dy.rows());
    {
        let mut dout = visit.buffer(n, config.query_size())?;
        let mid = kept.mids[Linear::O as usize].as_ref();
        let out = Some((dout.view_mut(), Output::Write));
        linear::backward(visit.place(Linear::O), dy, kept.out.view(), mid, out, gradients)?;
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
    if let Some([turns, cos, sin]) = visit.rotary(n) {
        for rows in [&mut *dq, &mut *dk] {
            rope::backward(rows.view_mut(), config.head_dim, turns, cos, sin)?;
        }
    }
    unnorm_heads(visit, kept, dq, dk, gradients)
}

/// Back through the norms of query and key heads: `dq` and `dk` become the gradients before them.
fn unnorm_heads(
    visit: Visit<'_>,
    kept: &Activations,
    dq: &mut Tensor,
    dk: &mut Tensor,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let Some(before) = &kept.normed_heads else { return Ok(()) };
    let offset = visit.model.config.norm_offset;
    for (i, rows) in [dq, dk].into_iter().enumerate() {
        let mut dy = rows.device().scratch(rows.shape(), rows.dtype(), Category::Workspace)?;
        dy.copy_prefix(rows.view());
        rows.zero();
        let module = (if i == 0 { Module::QNorm } else { Module::KNorm })(visit.index);
        let dnorm = gradients.of(module, |weights| {
            let layer = &mut weights.layers[visit.index];
            if i == 0 { layer.q_norm.as_mut() } else { layer.k_norm.as_mut() }
        });
        let (x, rstd) = (before[i].0.view(), before[i].1.view());
        let weight = visit.policy_weight(module);
        rms_norm::backward(dy.view(), x, weight, offset, rstd, rows.view_mut(), dnorm)?;
    }
    Ok(())
}
