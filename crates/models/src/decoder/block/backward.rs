//! A block backward: its passes mirror those of forward, in reverse.

use engine::memory::arena::Category;
use engine::ops::attention;
use engine::ops::matmul::Output;
use engine::ops::{gated_mlp, rms_norm, rope};
use engine::tensor::{Tensor, ViewMut};

use super::super::linear;
use super::{Activations, Visit};
use crate::error::Result;
use crate::lora::saved::Module;
use crate::trained::Gradients;
use crate::weights::Linear;

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
    let (config, n) = (&model.config, dx.rows());
    let take = |cols: usize| visit.buffer(n, cols);
    let place = |linear| visit.place(linear);
    let mid = |linear: Linear| kept.mids[linear as usize].as_ref();
    // Every norm's output is computed again; the rstd that comes with it is the one that was kept.
    let mut rstd = visit.numbers(n, 1)?;
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
        let module = Module::PostAttentionLayernorm(index);
        let norm = visit.policy_weight(module);
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
        let dnorm = gradients
            .of(module, |weights| Some(&mut weights.layers[index].post_attention_layernorm));
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
    unnorm_heads(visit, kept, &mut dq, &mut dk, gradients)?;
    let module = Module::InputLayernorm(index);
    let norm = visit.policy_weight(module);
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
        let dnorm =
            gradients.of(module, |weights| Some(&mut weights.layers[index].input_layernorm));
        rms_norm::backward(dnormed.view(), kept.x.view(), norm, 0.0, kept.rstd.view(), dx, dnorm)?;
    }
    Ok(())
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
        rms_norm::backward(dy.view(), x, weight, 0.0, rstd, rows.view_mut(), dnorm)?;
    }
    Ok(())
}
