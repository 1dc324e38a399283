//! One block: `x += o_proj(attention(norm(x)))`, then `x += down_proj(act(gate) * up)` of the second norm.

mod backward;
mod forward;

pub(super) use backward::backward;
pub(super) use forward::{Keeping, Stream, again, forward};

use std::ops::Range;

use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::attention::{Heads, Segments};
use engine::tensor::Tensor;

use super::linear::Place;
use super::{Model, Pass};
use crate::error::Result;
use crate::weights::Linear;

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

    /// A buffer of activations for `rows` rows.
    fn buffer(&self, rows: usize, cols: usize) -> Result<Tensor> {
        let device = self.model.device();
        Ok(device.scratch((rows, cols), device.activations(), Category::Workspace)?)
    }

    /// A number in f32 for each of `rows` rows and `cols` heads or norms.
    fn numbers(&self, rows: usize, cols: usize) -> Result<Tensor> {
        Ok(self.model.device().scratch((rows, cols), DType::F32, Category::Workspace)?)
    }

    fn heads(&self) -> Heads {
        let config = &self.model.config;
        Heads {
            num_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
            window: config.windows[self.index],
            soft_cap: None,
            kernel: self.model.attention,
        }
    }
}

/// What backward reads of a block: rows with gradient only. The normed inputs and the gated product are cheap
/// and are computed again.
pub(super) struct Activations {
    /// The block's input, (G, C).
    x: Tensor,
    /// Of the first norm.
    rstd: Tensor,
    /// Queries and keys before their norms with the norms' rstd, where there are such norms.
    normed_heads: Option<[(Tensor, Tensor); 2]>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    /// The stream between attention and MLP, (G, C).
    middle: Tensor,
    /// Of the second norm.
    middle_rstd: Tensor,
    /// None where the block runs again in backward: there the MLP is computed tile by tile, right before its gradient.
    mlp: Option<[Tensor; 2]>,
    /// `x A^T` of the policy's adapter, by [`Linear`].
    mids: [Option<Tensor>; 7],
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
        let normed_heads = if config.qk_norm {
            Some([
                (take(qc)?, numbers(config.num_attention_heads)?),
                (take(kc)?, numbers(config.num_key_value_heads)?),
            ])
        } else {
            None
        };
        let mut mids = [const { None }; 7];
        for (linear, mid) in Linear::ALL.into_iter().zip(&mut mids) {
            let kept = extent == Extent::Block || linear.is_attention();
            let place = Place { model, pass, index, linear, first: 0 };
            if let Some(rank) = place.rank().filter(|_| kept) {
                *mid = Some(take(rank)?);
            }
        }
        Ok(Activations {
            x: take(c)?,
            rstd: numbers(1)?,
            normed_heads,
            q: take(qc)?,
            k: take(kc)?,
            v: take(kc)?,
            out: take(qc)?,
            lse: numbers(config.num_attention_heads)?,
            middle: take(c)?,
            middle_rstd: numbers(1)?,
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
