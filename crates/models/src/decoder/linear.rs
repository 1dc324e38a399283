//! A linear layer of a block: the frozen or trained weight for all rows, the adapter of each group added.
//!
//! Under DoRA with dropout the product with W is taken of the kept inputs as well, as PEFT 0.21 does: `y = x W^T +
//! (g - 1) d(x) W^T + g s (d(x) A^T) B^T` with the gain g of [`dora`].

use std::ops::Range;

use engine::memory::arena::Category;
use engine::ops::add;
use engine::ops::columns;
use engine::ops::dora;
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
    /// The matrices of a group's adapter here, if it has some.
    fn lora(&self, group: usize) -> Option<&'a Lora> {
        let adapter = self.pass.groups.get(group)?.adapter?;
        adapter.layers[self.index][self.linear as usize].as_ref()
    }

    fn weight(&self) -> Result<Visited<'a>> {
        let layer = &self.model.weights.layers[self.index];
        layer.weight(self.linear).visit(self.model.device())
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

    /// Room for what backward reads of the policy's adapter here, for so many rows; none where it has no matrices.
    pub(super) fn room(&self, rows: usize, category: Category) -> Result<Option<Mid>> {
        let Some(lora) = self.lora(0) else { return Ok(None) };
        let device = self.model.device();
        let take = |cols: usize| -> Result<Tensor> {
            Ok(device.scratch((rows, cols), device.activations(), category)?)
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
    for group in 0..place.pass.groups.len() {
        let Some(lora) = place.lora(group) else { continue };
        let rows = place.rows(group, x.rows());
        if rows.is_empty() {
            continue;
        }
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
    low_rank(lora, x, product.view_mut())?;
    let b = Visited::of(lora.b.view())?;
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

/// `x A^T`.
fn low_rank(lora: &Lora, x: View<'_>, product: ViewMut<'_>) -> Result<()> {
    let a = Visited::of(lora.a.view())?;
    Ok(matmul::forward(x, a.view(), 1.0, Output::Write, product)?)
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

/// What backward reads of the policy's adapter, where it is needed without the outputs. DoRA's is made of the outputs,
/// so there they are computed and dropped.
pub(super) fn mid(place: Place<'_>, x: View<'_>) -> Result<Option<Mid>> {
    let Some(lora) = place.lora(0) else { return Ok(None) };
    let mut mid = place.room(x.rows(), Category::Workspace)?;
    if lora.dora.is_some() {
        let mut y = place.scratch(x.rows(), lora.b.rows())?;
        forward(place, x, y.view_mut(), mid.as_mut())?;
    } else if let Some(mid) = &mut mid {
        match place.mask(0) {
            None => low_rank(lora, x, mid.product.view_mut())?,
            Some(mask) => {
                let mut kept = place.scratch(x.rows(), x.cols())?;
                dropout::forward(x, mask, kept.view_mut())?;
                low_rank(lora, kept.view(), mid.product.view_mut())?;
            }
        }
    }
    Ok(mid)
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
        if let Some(dweight) = layer.linears[linear].as_mut().and_then(Weight::dense_mut) {
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
    match mask {
        None => {
            {
                let dproduct = back_to_product(place, lora, dlora, du, mid)?;
                matmul::backward_weight(dproduct.view(), x, 1.0, dlora.a.view_mut())?;
                if let Some((dx, output)) = &mut dx {
                    let a = Visited::of(lora.a.view())?;
                    matmul::backward_input(dproduct.view(), a.view(), 1.0, *output, dx.reborrow())?;
                }
            }
            // Behind the adapter's share, since a large product adds to what is there at no cost.
            if let Some((dx, _)) = dx {
                matmul::backward_input(du, place.weight()?.view(), 1.0, Output::Add, dx)?;
            }
        }
        Some(mask) => {
            if let Some((dx, output)) = &mut dx {
                // W's product with the kept inputs is another one than that with all inputs.
                let weight = place.weight()?;
                matmul::backward_input(dy, weight.view(), 1.0, *output, dx.reborrow())?;
            }
            let dproduct = back_to_product(place, lora, dlora, du, mid)?;
            let mut kept = place.scratch(x.rows(), x.cols())?;
            dropout::forward(x, mask, kept.view_mut())?;
            matmul::backward_weight(dproduct.view(), kept.view(), 1.0, dlora.a.view_mut())?;
            if let Some((dx, _)) = dx {
                let a = Visited::of(lora.a.view())?;
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

/// The gradient of `x A^T` from that of the outputs; B's is added to.
fn back_to_product(
    place: Place<'_>,
    lora: &Lora,
    dlora: &mut Lora,
    dy: View<'_>,
    mid: &Mid,
) -> Result<Tensor> {
    let mut dproduct = place.scratch(mid.product.rows(), mid.product.cols())?;
    let b = Visited::of(lora.b.view())?;
    matmul::backward_weight(dy, mid.product.view(), lora.scale, dlora.b.view_mut())?;
    matmul::backward_input(dy, b.view(), lora.scale, Output::Write, dproduct.view_mut())?;
    Ok(dproduct)
}

/// A layer among those that share an input: the gradient of its outputs, and what forward kept.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) place: Place<'a>,
    pub(super) dy: View<'a>,
    pub(super) mid: Option<&'a Mid>,
}

impl<'a> Way<'a> {
    /// The adapter's matrices and what was kept, where they stand alone: neither scaled by DoRA nor behind dropout.
    fn plain(&self) -> Option<(&'a Lora, &'a Mid)> {
        let lora = self.place.lora(0)?;
        (lora.dora.is_none() && self.place.mask(0).is_none()).then_some((lora, self.mid?))
    }
}

/// As [`backward`], for layers that share the input `x`. The shares of their adapters in `dx` are one product: a pass over
/// `dx` instead of one for each.
pub(super) fn backward_of_all(
    ways: &[Way<'_>],
    x: View<'_>,
    dx: Option<(ViewMut<'_>, Output)>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let plain: Vec<(&Lora, &Mid)> = ways.iter().filter_map(Way::plain).collect();
    let all_plain = plain.len() == ways.len();
    let (true, Gradients::Adapter(adapter)) = (all_plain, &mut *gradients) else {
        let mut dx = dx;
        for way in ways {
            let to = dx.as_mut().map(|(dx, output)| (dx.reborrow(), *output));
            backward(way.place, way.dy, x, way.mid, to, gradients)?;
            dx = dx.map(|(dx, _)| (dx, Output::Add));
        }
        return Ok(());
    };
    let place = ways[0].place;
    let rank = plain.iter().map(|(lora, _)| lora.a.rows()).sum();
    let (mut products, mut matrices) =
        (place.scratch(x.rows(), rank)?, place.scratch(rank, x.cols())?);
    let mut start = 0;
    for (way, (lora, mid)) in ways.iter().zip(plain) {
        let (index, linear) = (way.place.index, way.place.linear as usize);
        let Some(dlora) = &mut adapter.layers[index][linear] else { continue };
        let dproduct = back_to_product(way.place, lora, dlora, way.dy, mid)?;
        matmul::backward_weight(dproduct.view(), x, 1.0, dlora.a.view_mut())?;
        columns::put(dproduct.view(), start, products.view_mut())?;
        let of_this = start..start + lora.a.rows();
        start = of_this.end;
        matrices.slice_mut(of_this).copy_from(Visited::of(lora.a.view())?.view());
    }
    let Some((mut dx, output)) = dx else { return Ok(()) };
    matmul::backward_input(products.view(), matrices.view(), 1.0, output, dx.reborrow())?;
    drop((products, matrices));
    for way in ways {
        let (weight, dx) = (way.place.weight()?, dx.reborrow());
        matmul::backward_input(way.dy, weight.view(), 1.0, Output::Add, dx)?;
    }
    Ok(())
}
