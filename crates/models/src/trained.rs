//! Where gradients of what is trained go.

use engine::tensor::{Tensor, ViewMut};

use crate::lora::Adapter;
use crate::lora::saved::Module;
use crate::weights::Weights;

/// Gradients, in the shape of what is trained. Backward adds to them.
pub enum Gradients<'a> {
    /// Of an adapter's matrices and the modules it trains whole; the base is frozen and gets none.
    Adapter(&'a mut Adapter),
    /// Of all weights.
    Full(&'a mut Weights),
}

impl Gradients<'_> {
    /// The gradient of a whole module's weight, if it is trained: `which` names it among all weights.
    pub fn of(
        &mut self,
        module: Module,
        which: impl Fn(&mut Weights) -> Option<&mut Tensor>,
    ) -> Option<ViewMut<'_>> {
        match self {
            Gradients::Adapter(adapter) => adapter.saved.get_mut(&module).map(Tensor::view_mut),
            Gradients::Full(weights) => which(weights).map(Tensor::view_mut),
        }
    }

    /// Whether a module is trained whole.
    pub fn trains(&self, module: Module) -> bool {
        match self {
            Gradients::Adapter(adapter) => adapter.saved.contains_key(&module),
            Gradients::Full(_) => true,
        }
    }
}
