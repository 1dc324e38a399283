//! One block: `x += m norm(o_proj(attention(norm(x))))`, then `x += m norm(down_proj(act(gate) * up))` of the stream's
//! norm. Which of the four norms there are, what else is normed, and the multiplier m say fields of the config.

mod backward;
mod forward;

pub(super) use backward::backward;
pub(super) use forward::{Keeping, Stream, again, forward};

use std::ops::Range;

use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::attention::{Heads, Segments};
use engine::tensor::{Tensor, View};

use super::linear::{Mid, Place};
use super::{Model, Pass, Turns};
use crate::error::Result;
use crate::lora::saved::Module;
use crate::weights::{LINEARS, Layer, Linear, Norm};

/// Enough rows that a product with a weight is as fast as with more, and that its conversion from 4 bits costs little. In
/// tests few, so that there are tiles.
const MLP_TILE: usize = if cfg!(test) { 5 } else { 4096 };

/// Which block, and in which pass.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) model: &'a Model,
    pub(super) pass: &'a Pass<'a>,
    /// The pass's segments as attention takes them.
    pub(super) segments: &'a Segments,
    /// How the rows of the pass turn.
    pub(super) turns: &'a Turns<'a>,
    pub(super) index: usize,
}

impl<'a> Visit<'a> {
    fn place(&self, linear: Linear) -> Place<'a> {
        self.place_from(linear, 0)
    }

    /// For rows of the pass from `first` on.
    fn place_from(&self, linear: Linear, first: usize) -> Place<'a> {
        Place { model: self.model, pass: self.pass, index: self.index, linear, first }
    }

    /// The rows that pass the MLP at a time where its memory counts. Dropout's masks are those of whole passes.
    fn tiles(&self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        let tile = if self.pass.drops() { rows.max(1) } else { MLP_TILE };
        (0..rows).step_by(tile).map(move |first| first..(first + tile).min(rows))
    }

    /// A norm's weight for the rows of each group: its own where its adapter trains the module, else the base's.
    fn weights(&self, module: Module) -> Vec<(Range<usize>, View<'a>)> {
        self.pass.weights(self.model, module)
    }

    /// The module of one of the block's norms, where it has it.
    fn norm(&self, norm: Norm) -> Option<Module> {
        Module::block_norm(self.index, norm, self.model.config.norms)
    }

    /// A norm's weight for rows with gradient.
    fn policy_weight(&self, module: Module) -> View<'a> {
        let policy = self.pass.groups.first().and_then(|group| group.adapter);
        self.model.weight(policy, module)
    }

    /// A buffer of activations for `rows` rows.
    fn buffer(&self, rows: usize, cols: usize) -> Result<Tensor> {
        let device = self.model.device();
        Ok(device.scratch((rows, cols), device.activations(), Category::Workspace)?)
    }

    /// A number in f32 for each of `rows` rows and `cols` heads or norms.
    fn numbers(&self, rows: usize, cols: usize) -> Result<Tensor> {
        Ok(self.model.device().scratch((rows, cols), DType::F32, Category::Workspace)?)
    }

    fn layer(&self) -> &'a Layer {
        &self.model.weights.layers[self.index]
    }

    /// The rows of the tables that the first `n` rows turn by, and the tables: cos and sin. None where the block does
    /// not turn queries and keys.
    fn rotary(&self, n: usize) -> Option<[View<'a>; 3]> {
        let rope = self.model.config.layer_ropes[self.index]?;
        let tables = &self.model.ropes[rope];
        Some([self.turns.of(rope, n), tables.cos.view(), tables.sin.view()])
    }

    fn heads(&self) -> Heads {
        let config = &self.model.config;
        Heads {
            num_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: config.attention_scale,
            window: config.windows[self.index],
            soft_cap: config.attention_soft_cap,
            kernel: self.model.attention,
        }
    }
}

/// What backward reads of a block: rows with gradient only. The normed inputs and the gated product are cheap
/// and are computed again.
pub(super) struct Activations {
    /// The block's input, (G, C).
    x: Tensor,
    /// What goes into the norms behind attention and MLP, (G, C), where there are such norms.
    raw: [Option<Tensor>; 2],
    /// By [`Norm`]: of those that the block has.
    rstd: [Option<Tensor>; 4],
    /// Queries and keys before their norms with the norms' rstd, where there are such norms.
    normed_heads: Option<[(Tensor, Tensor); 2]>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    /// The stream between attention and MLP, (G, C).
    middle: Tensor,
    /// None where the block runs again in backward: there the MLP is computed tile by tile, right before its gradient.
    mlp: Option<[Tensor; 2]>,
    /// Of the policy's adapter, by [`Linear`].
    mids: [Option<Mid>; LINEARS],
}

/// How much of a block [`Activations`] hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::decoder) enum Extent {
    /// All of it.
    Block,
    /// Attention and the stream behind it.
    Attention,
}

impl Activations {
    /// What was kept of a norm, where the block has it.
    fn rstd(&self, norm: Norm) -> Option<&Tensor> {
        self.rstd[norm as usize].as_ref()
    }

    fn put_rstd(&mut self, norm: Norm, from: &Tensor) {
        if let Some(rstd) = &mut self.rstd[norm as usize] {
            rstd.copy_prefix(from.view());
        }
    }

    /// What went into a norm behind attention or MLP.
    fn raw(&self, norm: Norm) -> Option<&Tensor> {
        self.raw[usize::from(norm == Norm::AfterMlp)].as_ref()
    }

    fn raw_mut(&mut self, norm: Norm) -> Option<&mut Tensor> {
        self.raw[usize::from(norm == Norm::AfterMlp)].as_mut()
    }

    pub(super) fn new(
        model: &Model,
        index: usize,
        pass: &Pass<'_>,
        extent: Extent,
    ) -> Result<Activations> {
        let (config, n) = (&model.config, pass.grad_rows);
        let device = model.device();
        let take = |cols: usize| -> Result<Tensor> {
            Ok(device.scratch((n, cols), device.activations(), Category::Activations)?)
        };
        let numbers = |cols: usize| -> Result<Tensor> {
            Ok(device.scratch((n, cols), DType::F32, Category::Activations)?)
        };
        let (c, qc, kc) = (config.hidden_size, config.query_size(), config.key_value_size());
        let normed_heads = match config.qk_norm_sizes() {
            Some([q, k]) => Some([(take(qc)?, numbers(qc / q)?), (take(kc)?, numbers(kc / k)?)]),
            None => None,
        };
        let has = |norm: Norm| norm.path(config.norms).is_some();
        let mut rstd = [const { None }; 4];
        for (norm, rstd) in Norm::ALL.into_iter().zip(&mut rstd) {
            *rstd = has(norm).then(|| numbers(1)).transpose()?;
        }
        let raw = |norm| has(norm).then(|| take(c)).transpose();
        let mut mids = [const { None }; LINEARS];
        for (linear, mid) in Linear::ALL.into_iter().zip(&mut mids) {
            if extent == Extent::Block || linear.is_attention() {
                let place = Place { model, pass, index, linear, first: 0 };
                *mid = place.room(n, Category::Activations)?;
            }
        }
        Ok(Activations {
            x: take(c)?,
            raw: [raw(Norm::AfterAttention)?, raw(Norm::AfterMlp)?],
            rstd,
            normed_heads,
            q: take(qc)?,
            k: take(kc)?,
            v: take(kc)?,
            out: take(qc)?,
            lse: numbers(config.num_attention_heads)?,
            middle: take(c)?,
            mlp: match extent {
                Extent::Block => {
                    Some([take(config.intermediate_size)?, take(config.intermediate_size)?])
                }
                Extent::Attention => None,
            },
            mids,
        })
    }
}
