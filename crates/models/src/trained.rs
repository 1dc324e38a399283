//! Where gradients of what is trained go.

use engine::tensor::{Tensor, ViewMut};

use crate::lora::Adapter;
use crate::weights::Weights;

/// Gradients, in the shape of what is trained. Backward adds to them.
pub enum Gradients<'a> {
    /// Of an adapter's matrices; the base is frozen and gets none.
    Adapter(&'a mut Adapter),
    /// Of all weights.
    Full(&'a mut Weights),
}

impl Gradients<'_> {
    /// The gradient of a norm's weight, where all weights are trained.
    pub fn norm(&mut self, which: impl Fn(&mut Weights) -> &mut Tensor) -> Option<ViewMut<'_>> {
        self.optional_norm(|weights| Some(which(weights)))
    }

    /// The same for a norm that not every family has.
    pub fn optional_norm(
        &mut self,
        which: impl Fn(&mut Weights) -> Option<&mut Tensor>,
    ) -> Option<ViewMut<'_>> {
        match self {
            Gradients::Adapter(_) => None,
            Gradients::Full(weights) => which(weights).map(Tensor::view_mut),
        }
    }
}
