//! A linear layer of a block: the frozen or trained weight for all rows, the adapter of each group added.

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

/// Which linear layer, and in which pass.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) model: &'a Model,
    pub(super) pass: &'a Pass<'a>,
    pub(super) index: usize,
    pub(super) linear: Linear,
}

impl<'a> Place<'a> {
    /// The matrices and scale of a group's adapter here, if it has some.
    fn lora(&self, group: usize) -> Option<(&'a Lora, f32)> {
        let adapter = self.pass.groups.get(group)?.adapter?;
        let lora = adapter.layers[self.index][self.linear as usize].as_ref()?;
        Some((lora, adapter.config.scale()))
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
    for (group, rows) in place.pass.groups.iter().map(|group| group.rows.clone()).enumerate() {
        let Some((lora, scale)) = place.lora(group) else { continue };
        let x = x.slice(rows.clone());
        let mut product = place.scratch(rows.len(), lora.a.rows())?;
        let (a, b) = (Visited::of(lora.a.view())?, Visited::of(lora.b.view())?);
        match place.mask(group) {
            None => matmul::forward(x, a.view(), 1.0, Output::Write, product.view_mut())?,
            Some(mask) => {
                let mut kept = place.scratch(x.rows(), x.cols())?;
                dropout::forward(x, mask, kept.view_mut())?;
                matmul::forward(kept.view(), a.view(), 1.0, Output::Write, product.view_mut())?;
            }
        }
        matmul::forward(product.view(), b.view(), scale, Output::Add, y.slice_mut(rows))?;
        if let (0, Some(mid)) = (group, &mut mid) {
            mid.copy_prefix(product.view());
        }
    }
    Ok(())
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
