//! A linear layer of a block: the frozen or trained weight for all rows, the adapter of each group added.

use std::ops::Range;

use engine::memory::arena::Category;
use engine::ops::add;
use engine::ops::dropout::{self, Mask};
use engine::ops::matmul::{self, Output};
use engine::tensor::{Tensor, View, ViewMut};

use super::{Model, Pass};
use crate::error::Result;
use crate::lora::Lora;
use crate::trained::Gradients;
use crate::weights::{Linear, Visited, Weight};

/// Which linear layer, in which pass, for which of its rows.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) model: &'a Model,
    pub(super) pass: &'a Pass<'a>,
    pub(super) index: usize,
    pub(super) linear: Linear,
    /// The first row of the pass among those at hand.
    pub(super) first: usize,
}

impl<'a> Place<'a> {
    /// The matrices and scale of a group's adapter here, if it has some.
    fn lora(&self, group: usize) -> Option<(&'a Lora, f32)> {
        let adapter = self.pass.groups.get(group)?.adapter?;
        let lora = adapter.layers[self.index][self.linear as usize].as_ref()?;
        Some((lora, adapter.config.scale()))
    }

    /// Which of `count` rows at hand are a group's.
    fn rows(&self, group: usize, count: usize) -> Range<usize> {
        let rows = &self.pass.groups[group].rows;
        let at_hand = |row: usize| row.clamp(self.first, self.first + count) - self.first;
        at_hand(rows.start)..at_hand(rows.end)
    }

    /// The mask of the adapter's input, while there is dropout.
    fn mask(&self, group: usize) -> Option<Mask> {
        let dropout = self.pass.dropout?;
        let p = self.pass.groups.get(group)?.adapter?.config.lora_dropout as f32;
        let stream = dropout.pass << 16 | self.linear.stream(self.index);
        (p > 0.0).then_some(Mask { seed: dropout.seed, stream, p })
    }

    fn scratch(&self, rows: usize, cols: usize) -> Result<Tensor> {
        let device = self.model.device();
        Ok(device.scratch((rows, cols), device.activations(), Category::Workspace)?)
    }

    /// The rank of the policy's adapter here.
    pub(super) fn rank(&self) -> Option<usize> {
        self.lora(0).map(|(lora, _)| lora.a.rows())
    }
}

/// `y = x W^T + bias`, and for the rows of each group `+ s (x A^T) B^T`. The policy's `x A^T` is kept in `mid`.
pub(super) fn forward(
    place: Place<'_>,
    x: View<'_>,
    mut y: ViewMut<'_>,
    mut mid: Option<&mut Tensor>,
) -> Result<()> {
    let layer = &place.model.weights.layers[place.index];
    {
        let weight = layer.weight(place.linear).visit(place.model.device())?;
        matmul::forward(x, weight.view(), 1.0, Output::Write, y.reborrow())?;
    }
    if let Some(bias) = &layer.biases[place.linear as usize] {
        add::bias(bias.view(), y.reborrow())?;
    }
    for group in 0..place.pass.groups.len() {
        let Some((lora, scale)) = place.lora(group) else { continue };
        let rows = place.rows(group, x.rows());
        if rows.is_empty() {
            continue;
        }
        let product = low_rank(place, group, lora, x.slice(rows.clone()))?;
        let b = Visited::of(lora.b.view())?;
        matmul::forward(product.view(), b.view(), scale, Output::Add, y.slice_mut(rows))?;
        if let (0, Some(mid)) = (group, &mut mid) {
            mid.copy_prefix(product.view());
        }
    }
    Ok(())
}

/// `x A^T` of a group's adapter.
fn low_rank(place: Place<'_>, group: usize, lora: &Lora, x: View<'_>) -> Result<Tensor> {
    let mut product = place.scratch(x.rows(), lora.a.rows())?;
    let a = Visited::of(lora.a.view())?;
    match place.mask(group) {
        None => matmul::forward(x, a.view(), 1.0, Output::Write, product.view_mut())?,
        Some(mask) => {
            let mut kept = place.scratch(x.rows(), x.cols())?;
            dropout::forward(x, mask, kept.view_mut())?;
            matmul::forward(kept.view(), a.view(), 1.0, Output::Write, product.view_mut())?;
        }
    }
    Ok(product)
}

/// The policy's `x A^T`, where it is needed without the rest.
pub(super) fn mid(place: Place<'_>, x: View<'_>) -> Result<Option<Tensor>> {
    place.lora(0).map(|(lora, _)| low_rank(place, 0, lora, x)).transpose()
}

/// From `dy`: the gradient of what is trained here is added to, and `dx` (where it is asked for) is written or
/// added to as `output` says. `x` and `mid` are forward's, rows with gradient.
pub(super) fn backward(
    place: Place<'_>,
    dy: View<'_>,
    x: View<'_>,
    mid: Option<&Tensor>,
    dx: Option<(ViewMut<'_>, Output)>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let (index, linear) = (place.index, place.linear as usize);
    if let Gradients::Full(weights) = gradients {
        let layer = &mut weights.layers[index];
        if let Some(dweight) = layer.linears[linear].as_mut().and_then(Weight::dense_mut) {
            matmul::backward_weight(dy, x, 1.0, dweight.view_mut())?;
        }
        if let Some(dbias) = &mut layer.biases[linear] {
            add::bias_backward(dy, dbias.view_mut())?;
        }
    }
    let mut dx = dx;
    if let Some((dx, output)) = &mut dx {
        let weight =
            place.model.weights.layers[index].weight(place.linear).visit(place.model.device())?;
        matmul::backward_input(dy, weight.view(), 1.0, *output, dx.reborrow())?;
    }
    let (Some((lora, scale)), Some(mid), Gradients::Adapter(adapter)) =
        (place.lora(0), mid, gradients)
    else {
        return Ok(());
    };
    let Some(dlora) = &mut adapter.layers[index][linear] else { return Ok(()) };
    let (a, b) = (Visited::of(lora.a.view())?, Visited::of(lora.b.view())?);
    let mut dmid = place.scratch(mid.rows(), mid.cols())?;
    matmul::backward_weight(dy, mid.view(), scale, dlora.b.view_mut())?;
    matmul::backward_input(dy, b.view(), scale, Output::Write, dmid.view_mut())?;
    match place.mask(0) {
        None => {
            matmul::backward_weight(dmid.view(), x, 1.0, dlora.a.view_mut())?;
            if let Some((dx, _)) = dx {
                matmul::backward_input(dmid.view(), a.view(), 1.0, Output::Add, dx)?;
            }
        }
        Some(mask) => {
            let mut kept = place.scratch(x.rows(), x.cols())?;
            dropout::forward(x, mask, kept.view_mut())?;
            matmul::backward_weight(dmid.view(), kept.view(), 1.0, dlora.a.view_mut())?;
            if let Some((dx, _)) = dx {
                let dkept = kept.view_mut();
                matmul::backward_input(dmid.view(), a.view(), 1.0, Output::Write, dkept)?;
                dropout::backward(kept.view(), mask, dx)?;
            }
        }
    }
    Ok(())
}
