//! The head: from hidden rows to the log-probabilities of the tokens that are scored, and back.
//!
//! Only rows that score something pass the last norm and the head's product. A row may score several tokens: the
//! last row of a prompt scores the first of each of its completions.

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::linear_logps::{self, Items};
use engine::ops::{embedding, matmul, rms_norm};
use engine::tensor::{Tensor, View, ViewMut};

use crate::decoder::Model;
use crate::error::Result;
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

/// `items` are (row, target); gradient flows through rows below `grad_rows`.
pub fn forward(
    model: &Model,
    hidden: View<'_>,
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
    let mut logps = take(items.len(), 1)?;
    embedding::forward(ids.view(), hidden, x.view_mut())?;
    norm(model, &x, &mut normed, &mut rstd)?;
    let scored = Items { rows: &rows, targets: &targets };
    {
        let head = model.weights.visit_head()?;
        let (lse, logps) = (lse.view_mut(), logps.view_mut());
        let form = model.config.logits();
        linear_logps::forward(normed.view(), head.view(), scored, form, lse, logps)?;
    }
    let grad_ids = place(grad_rows as u32) as usize;
    let logps = logps.to_vec()?;
    Ok(Scored { ids, grad_ids, rows, targets, x, rstd, normed, lse, logps })
}

fn norm(model: &Model, x: &Tensor, normed: &mut Tensor, rstd: &mut Tensor) -> Result<()> {
    let (offset, eps) = (model.config.norm_offset, model.config.rms_norm_eps);
    rms_norm::forward(
        x.view(),
        model.weights.norm.view(),
        offset,
        eps,
        normed.view_mut(),
        rstd.view_mut(),
    )?;
    Ok(())
}

/// From the gradient of each item's log-probability (zero for items of rows without gradient) to that of the
/// hidden rows, `dhidden` (grad_rows, C), which is overwritten.
pub fn backward(
    model: &Model,
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
    let dhead = match gradients {
        Gradients::Adapter(_) => None,
        Gradients::Full(weights) if tied => Some(weights.embed_tokens.view_mut()),
        Gradients::Full(weights) => weights.lm_head.as_mut().map(Tensor::view_mut),
    };
    let (normed, lse) = (scored.normed.slice(0..n), scored.lse.slice(0..n));
    let items = Items { rows: &rows, targets: &targets };
    {
        let head = model.weights.visit_head()?;
        let dx = dnormed.view_mut();
        let form = model.config.logits();
        linear_logps::backward(kept.view(), normed, head.view(), items, form, lse, dx, dhead)?;
    }
    dx.zero();
    let dnorm = gradients.norm(|weights| &mut weights.norm);
    let (x, rstd) = (scored.x.slice(0..n), scored.rstd.slice(0..n));
    rms_norm::backward(
        dnormed.view(),
        x,
        model.weights.norm.view(),
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
pub fn logits(model: &Model, hidden: View<'_>) -> Result<Vec<f32>> {
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
        model.weights.norm.view(),
        offset,
        eps,
        normed.view_mut(),
        rstd.view_mut(),
    )?;
    let form = model.config.logits();
    let mut all = vec![0f32; n * v];
    for start in (0..v).step_by(LOGITS_TILE) {
        let tokens = start..(start + LOGITS_TILE).min(v);
        let width = tokens.len();
        let mut logits = take(n, width)?;
        let tile = Visited::of(model.weights.head().slice(tokens.clone()))?;
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
