//! The head: from hidden rows to the log-probabilities of the tokens that are scored, and back.
//!
//! Only rows that score something pass the last norm and the head's product. A row may score several tokens: the
//! last row of a prompt scores the first of each of its completions.

use std::ops::Range;

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::linear_logps::{self, Items};
use engine::ops::{embedding, matmul, rms_norm};
use engine::tensor::{Tensor, View, ViewMut};

use crate::decoder::{self, Model, RowGroup};
use crate::error::Result;
use crate::lora::Adapter;
use crate::lora::saved::Module;
use crate::trained::Gradients;
use crate::weights::Visited;

/// What forward leaves for backward.
pub struct Scored {
    /// The rows that score something, ascending, each once.
    ids: Tensor,
    /// How many of them gradient flows through: the first.
    grad_ids: usize,
    /// Index into `ids` of each item.
    rows: Vec<u32>,
    /// The token of each item.
    targets: Vec<u32>,
    /// Those hidden rows, (M, C).
    x: Tensor,
    rstd: Tensor,
    normed: Tensor,
    lse: Tensor,
    /// The log-probability of each item, on the host; zeros on `plan`.
    pub logps: Vec<f32>,
}

/// `items` are (row, target); gradient flows through rows below `grad_rows`. `groups` are the pass's: an adapter may
/// have a norm or a head of its own.
pub fn forward(
    model: &Model,
    hidden: View<'_>,
    groups: &[RowGroup<'_>],
    items: &[(u32, u32)],
    grad_rows: usize,
) -> Result<Scored> {
    let device = model.device();
    let mut unique: Vec<u32> = items.iter().map(|item| item.0).collect();
    unique.sort_unstable();
    unique.dedup();
    let place = |row: u32| unique.partition_point(|id| *id < row) as u32;
    let rows: Vec<u32> = items.iter().map(|item| place(item.0)).collect();
    let targets: Vec<u32> = items.iter().map(|item| item.1).collect();
    let take = |rows: usize, cols: usize| -> Result<Tensor> {
        let dtype = if cols == 1 { DType::F32 } else { device.activations() };
        Ok(device.scratch((rows, cols), dtype, Category::Activations)?)
    };
    let (m, c) = (unique.len(), model.config.hidden_size);
    let ids = device.upload(&unique)?;
    let (mut x, mut rstd, mut normed, mut lse) =
        (take(m, c)?, take(m, 1)?, take(m, c)?, take(m, 1)?);
    embedding::forward(ids.view(), hidden, x.view_mut())?;
    let (offset, eps) = (model.config.norm_offset, model.config.rms_norm_eps);
    // The rows are in order, so those of a group are neighbours here too.
    let scored = |of: Range<usize>| place(of.start as u32) as usize..place(of.end as u32) as usize;
    for (rows, weight) in decoder::weights(model, groups, hidden.rows(), Module::Norm) {
        let rows = scored(rows);
        let (y, rstd) = (normed.slice_mut(rows.clone()), rstd.slice_mut(rows.clone()));
        rms_norm::forward(x.slice(rows), weight, offset, eps, y, rstd)?;
    }
    let mut logps = vec![0f32; items.len()];
    for (part, weight) in decoder::weights(model, groups, hidden.rows(), Module::LmHead) {
        let part = scored(part);
        let here: Vec<usize> =
            (0..items.len()).filter(|item| part.contains(&(rows[*item] as usize))).collect();
        let of: Vec<u32> = here.iter().map(|item| rows[*item] - part.start as u32).collect();
        let tokens: Vec<u32> = here.iter().map(|item| targets[*item]).collect();
        let items = Items { rows: &of, targets: &tokens };
        let mut values = take(here.len(), 1)?;
        {
            let head = Visited::head(weight)?;
            let (lse, logps) = (lse.slice_mut(part.clone()), values.view_mut());
            let form = model.config.logits();
            linear_logps::forward(normed.slice(part), head.view(), items, form, lse, logps)?;
        }
        for (item, value) in here.into_iter().zip(values.to_vec::<f32>()?) {
            logps[item] = value;
        }
    }
    let grad_ids = place(grad_rows as u32) as usize;
    Ok(Scored { ids, grad_ids, rows, targets, x, rstd, normed, lse, logps })
}

/// From the gradient of each item's log-probability (zero for items of rows without gradient) to that of the
/// hidden rows, `dhidden` (grad_rows, C), which is overwritten. `policy` is the adapter of the rows with gradient.
pub fn backward(
    model: &Model,
    policy: Option<&Adapter>,
    scored: &Scored,
    dlogps: &[f32],
    mut dhidden: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let device = model.device();
    dhidden.zero();
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    let mut kept = Vec::new();
    for (item, row) in scored.rows.iter().enumerate() {
        if (*row as usize) < scored.grad_ids {
            rows.push(*row);
            targets.push(scored.targets[item]);
            kept.push(dlogps[item]);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    let n = scored.grad_ids;
    let take = |rows: usize, cols: usize| -> Result<Tensor> {
        Ok(device.scratch((rows, cols), device.activations(), Category::Workspace)?)
    };
    let kept = device.upload(&kept)?;
    let (mut dnormed, mut dx) =
        (take(n, model.config.hidden_size)?, take(n, model.config.hidden_size)?);
    let tied = model.weights.lm_head.is_none();
    let dhead = gradients.of(Module::LmHead, |weights| {
        if tied { Some(&mut weights.embed_tokens) } else { weights.lm_head.as_mut() }
    });
    let (normed, lse) = (scored.normed.slice(0..n), scored.lse.slice(0..n));
    let items = Items { rows: &rows, targets: &targets };
    {
        let head = Visited::head(model.weight(policy, Module::LmHead))?;
        let dx = dnormed.view_mut();
        let form = model.config.logits();
        linear_logps::backward(kept.view(), normed, head.view(), items, form, lse, dx, dhead)?;
    }
    dx.zero();
    let dnorm = gradients.of(Module::Norm, |weights| Some(&mut weights.norm));
    let (x, rstd) = (scored.x.slice(0..n), scored.rstd.slice(0..n));
    rms_norm::backward(
        dnormed.view(),
        x,
        model.weight(policy, Module::Norm),
        model.config.norm_offset,
        rstd,
        dx.view_mut(),
        dnorm,
    )?;
    embedding::backward(scored.ids.slice(0..n), dx.view(), dhidden)?;
    Ok(())
}

/// Rows of the vocabulary whose logits are computed at a time in [`logits`].
const LOGITS_TILE: usize = 8192;

/// The logits of whole rows, (rows, V) on the host; zeros on `plan`. For generation, a few rows at a time.
pub fn logits(model: &Model, adapter: Option<&Adapter>, hidden: View<'_>) -> Result<Vec<f32>> {
    let device: &Device = model.device();
    let (n, v) = (hidden.rows(), model.config.vocab_size);
    let take = |rows: usize, cols: usize| -> Result<Tensor> {
        Ok(device.scratch((rows, cols), DType::F32, Category::Workspace)?)
    };
    let mut normed =
        device.scratch((n, hidden.cols()), device.activations(), Category::Workspace)?;
    let mut rstd = take(n, 1)?;
    let (offset, eps) = (model.config.norm_offset, model.config.rms_norm_eps);
    rms_norm::forward(
        hidden,
        model.weight(adapter, Module::Norm),
        offset,
        eps,
        normed.view_mut(),
        rstd.view_mut(),
    )?;
    let head = model.weight(adapter, Module::LmHead);
    let form = model.config.logits();
    let mut all = vec![0f32; n * v];
    for start in (0..v).step_by(LOGITS_TILE) {
        let tokens = start..(start + LOGITS_TILE).min(v);
        let width = tokens.len();
        let mut logits = take(n, width)?;
        let tile = Visited::of(head.slice(tokens.clone()))?;
        let y = logits.view_mut();
        matmul::forward(normed.view(), tile.view(), form.scale, matmul::Output::Write, y)?;
        for (row, from) in logits.to_vec::<f32>()?.chunks(width).enumerate() {
            all[row * v + start..row * v + start + width].copy_from_slice(from);
        }
    }
    if let Some(cap) = form.soft_cap {
        all.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
    }
    Ok(all)
}
