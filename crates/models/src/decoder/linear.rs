//! A linear layer of a block: the frozen or trained weight for all rows, the adapter of each group added.
//!
//! Under DoRA with dropout the product with W is taken of the kept inputs as well, as PEFT 0.21 does: `y = x W^T +
//! (g - 1) d(x) W^T + g s (d(x) A^T) B^T` with the gain g of [`dora`].

use engine::memory::arena::Category;
use engine::ops::add;
use engine::ops::dora;
use engine::ops::dropout::{self, Mask};
use engine::ops::matmul::{self, Output};
use engine::tensor::{Tensor, View, ViewMut};

use super::{Model, Pass};
use crate::error::Result;
use crate::lora::Lora;
use crate::trained::Gradients;
use crate::weights::{Linear, Visited};

/// Which linear layer, and in which pass.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) model: &'a Model,
    pub(super) pass: &'a Pass<'a>,
    pub(super) index: usize,
    pub(super) linear: Linear,
}

impl<'a> Place<'a> {
    /// The matrices of a group's adapter here, if it has some.
    fn lora(&self, group: usize) -> Option<&'a Lora> {
        let adapter = self.pass.groups.get(group)?.adapter?;
        adapter.layers[self.index][self.linear as usize].as_ref()
    }

    fn weight(&self) -> Result<Visited<'a>> {
        let layer = &self.model.weights.layers[self.index];
        layer.linears[self.linear as usize].visit(self.model.device())
    }

    /// The mask of the adapter's input, while there is dropout.
    fn mask(&self, group: usize) -> Option<Mask> {
        let dropout = self.pass.dropout?;
        let p = self.pass.groups.get(group)?.adapter?.config.lora_dropout as f32;
        let stream = dropout.pass << 16 | (self.index * 7 + self.linear as usize) as u64;
        (p > 0.0).then_some(Mask { seed: dropout.seed, stream, p })
    }

    fn scratch(&self, rows: usize, cols: usize) -> Result<Tensor> {
        let device = self.model.device();
        Ok(device.scratch((rows, cols), device.activations(), Category::Workspace)?)
    }

    /// Room for what backward reads of the policy's adapter here; none where it has no matrices.
    pub(super) fn room(&self) -> Result<Option<Mid>> {
        let Some(lora) = self.lora(0) else { return Ok(None) };
        let device = self.model.device();
        let take = |cols: usize| -> Result<Tensor> {
            let shape = (self.pass.grad_rows, cols);
            Ok(device.scratch(shape, device.activations(), Category::Activations)?)
        };
        let unscaled = match &lora.dora {
            Some(_) => Some(take(lora.b.rows())?),
            None => None,
        };
        Ok(Some(Mid { product: take(lora.a.rows())?, unscaled }))
    }
}

/// What backward reads of the policy's adapter: rows with gradient.
pub(super) struct Mid {
    /// `x A^T`.
    product: Tensor,
    /// Under DoRA the outputs before they are scaled.
    unscaled: Option<Tensor>,
}

/// `y = x W^T + bias`, and for the rows of each group `+ s (x A^T) B^T`. What backward reads of the policy's adapter is
/// kept in `mid`.
pub(super) fn forward(
    place: Place<'_>,
    x: View<'_>,
    mut y: ViewMut<'_>,
    mut mid: Option<&mut Mid>,
) -> Result<()> {
    {
        let weight = place.weight()?;
        matmul::forward(x, weight.view(), 1.0, Output::Write, y.reborrow())?;
    }
    for (group, rows) in place.pass.groups.iter().map(|group| group.rows.clone()).enumerate() {
        let Some(lora) = place.lora(group) else { continue };
        let (x, y) = (x.slice(rows.clone()), y.slice_mut(rows));
        let keep = if group == 0 { mid.as_deref_mut() } else { None };
        match place.mask(group) {
            None => add_adapter(lora, x, y, keep)?,
            Some(mask) => {
                let mut kept = place.scratch(x.rows(), x.cols())?;
                dropout::forward(x, mask, kept.view_mut())?;
                match lora.dora {
                    None => add_adapter(lora, kept.view(), y, keep)?,
                    Some(_) => add_adapter_apart(place, lora, kept.view(), y, keep)?,
                }
            }
        }
    }
    if let Some(bias) = &place.model.weights.layers[place.index].biases[place.linear as usize] {
        add::bias(bias.view(), y)?;
    }
    Ok(())
}

/// `y += s (x A^T) B^T`, and then DoRA's scale.
fn add_adapter(lora: &Lora, x: View<'_>, mut y: ViewMut<'_>, mid: Option<&mut Mid>) -> Result<()> {
    let device = x.device();
    let shape = (x.rows(), lora.a.rows());
    let mut product = device.scratch(shape, device.activations(), Category::Workspace)?;
    let (a, b) = (Visited::of(lora.a.view())?, Visited::of(lora.b.view())?);
    matmul::forward(x, a.view(), 1.0, Output::Write, product.view_mut())?;
    matmul::forward(product.view(), b.view(), lora.scale, Output::Add, y.reborrow())?;
    if let Some(mid) = mid {
        mid.product.copy_prefix(product.view());
        if let Some(unscaled) = &mut mid.unscaled {
            unscaled.copy_prefix(y.view());
        }
    }
    if let Some(dora) = &lora.dora {
        dora::forward(y, dora.magnitude.view(), dora.norm().view())?;
    }
    Ok(())
}

/// `y += (g - 1) x W^T + g s (x A^T) B^T`, where `x` is not what `y` was computed of.
fn add_adapter_apart(
    place: Place<'_>,
    lora: &Lora,
    x: View<'_>,
    mut y: ViewMut<'_>,
    mid: Option<&mut Mid>,
) -> Result<()> {
    let mut all = place.scratch(y.rows(), y.cols())?;
    {
        let weight = place.weight()?;
        matmul::forward(x, weight.view(), 1.0, Output::Write, all.view_mut())?;
        matmul::forward(x, weight.view(), -1.0, Output::Add, y.reborrow())?;
    }
    add_adapter(lora, x, all.view_mut(), mid)?;
    add::forward(all.view(), y)?;
    Ok(())
}

/// From `dy`: the gradient of what is trained here is added to, and `dx` (where it is asked for) is written or
/// added to as `output` says. `x` and `mid` are forward's, rows with gradient.
pub(super) fn backward(
    place: Place<'_>,
    dy: View<'_>,
    x: View<'_>,
    mid: Option<&Mid>,
    dx: Option<(ViewMut<'_>, Output)>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let (index, linear) = (place.index, place.linear as usize);
    let mut dx = dx;
    if let Gradients::Full(weights) = gradients {
        let layer = &mut weights.layers[index];
        if let Some(dweight) = layer.linears[linear].dense_mut() {
            matmul::backward_weight(dy, x, 1.0, dweight.view_mut())?;
        }
        if let Some(dbias) = &mut layer.biases[linear] {
            add::bias_backward(dy, dbias.view_mut())?;
        }
    }
    let (Some(lora), Some(mid), Gradients::Adapter(adapter)) = (place.lora(0), mid, gradients)
    else {
        if let Some((dx, output)) = dx {
            matmul::backward_input(dy, place.weight()?.view(), 1.0, output, dx)?;
        }
        return Ok(());
    };
    let Some(dlora) = &mut adapter.layers[index][linear] else { return Ok(()) };
    let mask = place.mask(0);
    // Under DoRA the gradient before the scale takes the place of `dy`.
    let mut before_scale = None;
    if let (Some(dora), Some(unscaled), Some(ddora)) = (&lora.dora, &mid.unscaled, &mut dlora.dora)
    {
        let mut du = place.scratch(dy.rows(), dy.cols())?;
        dora::backward(
            dy,
            unscaled.view(),
            dora.magnitude.view(),
            dora.norm().view(),
            du.view_mut(),
            ddora.magnitude.view_mut(),
        )?;
        before_scale = Some(du);
    }
    let du = before_scale.as_ref().map_or(dy, Tensor::view);
    if let Some((dx, output)) = &mut dx {
        // With a mask W's product with the kept inputs is another one than that with all inputs.
        let through = if mask.is_some() { dy } else { du };
        matmul::backward_input(through, place.weight()?.view(), 1.0, *output, dx.reborrow())?;
    }
    let (a, b) = (Visited::of(lora.a.view())?, Visited::of(lora.b.view())?);
    let mut dproduct = place.scratch(mid.product.rows(), mid.product.cols())?;
    matmul::backward_weight(du, mid.product.view(), lora.scale, dlora.b.view_mut())?;
    matmul::backward_input(du, b.view(), lora.scale, Output::Write, dproduct.view_mut())?;
    match mask {
        None => {
            matmul::backward_weight(dproduct.view(), x, 1.0, dlora.a.view_mut())?;
            if let Some((dx, _)) = dx {
                matmul::backward_input(dproduct.view(), a.view(), 1.0, Output::Add, dx)?;
            }
        }
        Some(mask) => {
            let mut kept = place.scratch(x.rows(), x.cols())?;
            dropout::forward(x, mask, kept.view_mut())?;
            matmul::backward_weight(dproduct.view(), kept.view(), 1.0, dlora.a.view_mut())?;
            if let Some((dx, _)) = dx {
                let dkept = kept.view_mut();
                matmul::backward_input(dproduct.view(), a.view(), 1.0, Output::Write, dkept)?;
                if lora.dora.is_some() {
                    let weight = place.weight()?;
                    let dkept = kept.view_mut();
                    matmul::backward_input(du, weight.view(), 1.0, Output::Add, dkept)?;
                    let dkept = kept.view_mut();
                    matmul::backward_input(dy, weight.view(), -1.0, Output::Add, dkept)?;
                }
                dropout::backward(kept.view(), mask, dx)?;
            }
        }
    }
    Ok(())
}
