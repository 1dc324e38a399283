//! The decoder: packed token trees through all blocks, forward and backward.
//!
//! The rows of a pass are groups that share every product with a weight and differ in the adapter that is added:
//! the policy's rows come first, the reference's ride along. Gradient flows through a prefix of the rows, so
//! what backward needs is a prefix too. Backward walks the blocks in reverse and adds to the gradients of what
//! is trained.

mod block;
mod linear;
#[cfg(test)]
mod tests;
mod turns;

use std::ops::Range;

use engine::device::Device;
use engine::memory::arena::Category;
use engine::memory::offload::Offload;
use engine::ops::attention::{Kernel, Segment, Segments};
use engine::ops::{embedding, scale};
use engine::tensor::{Tensor, View, ViewMut};

use crate::config::{ModelConfig, RopeTables};
use crate::error::Result;
use crate::generate::LayerCache;
use crate::lora::Adapter;
use crate::lora::saved::Module;
use crate::trained::Gradients;
use crate::weights::{Norm, Weights};

use block::{Activations, Extent, Keeping, Stream, Visit};
use turns::Turns;

/// A model on a device.
pub struct Model {
    /// Its numbers.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: Weights,
    /// cos and sin of every position the run meets, for each rotary embedding of the config.
    pub ropes: Vec<RopeTables>,
    /// How many positions that is.
    pub positions: usize,
    /// How attention is computed on a GPU.
    pub attention: Kernel,
}

impl Model {
    /// Puts rotary tables for `positions` positions beside the weights.
    pub fn new(
        device: &Device,
        config: ModelConfig,
        weights: Weights,
        positions: usize,
    ) -> Result<Model> {
        let tables = config.ropes.iter().map(|rope| RopeTables::new(device, rope, positions));
        let ropes = tables.collect::<Result<_>>()?;
        let attention = Kernel::fastest(config.head_dim);
        Ok(Model { config, weights, ropes, positions, attention })
    }

    /// The weight of a module for rows of `adapter`: its own where it trains the module, else the base's.
    pub(crate) fn weight<'a>(&'a self, adapter: Option<&'a Adapter>, module: Module) -> View<'a> {
        let own = adapter.and_then(|adapter| adapter.saved.get(&module));
        match own.or_else(|| module.of(&self.weights)) {
            Some(tensor) => tensor.view(),
            None => unreachable!("{module:?} is asked of a model that has it"),
        }
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.weights.norm.device()
    }
}

/// Rows that are treated alike.
#[derive(Clone)]
pub struct RowGroup<'a> {
    /// Which rows.
    pub rows: Range<usize>,
    /// What is added to the base's linear layers; nothing for the base itself.
    pub adapter: Option<&'a Adapter>,
}

/// Dropout on the adapter's inputs, in SFT.
#[derive(Clone, Copy)]
pub struct Dropout {
    /// The run's seed.
    pub seed: u64,
    /// Another one for every micro-batch of the run.
    pub pass: u64,
}

/// What runs through the model at once.
pub struct Pass<'a> {
    /// (N) token ids.
    pub tokens: View<'a>,
    /// The same on the host.
    pub ids: &'a [u32],
    /// (N) positions.
    pub positions: View<'a>,
    /// Which rows see which.
    pub segments: Vec<Segment>,
    /// The rows' adapters, in order; together they are all rows.
    pub groups: Vec<RowGroup<'a>>,
    /// Gradient flows through rows `0..grad_rows`, all of the first group.
    pub grad_rows: usize,
    /// Set while SFT trains an adapter that has dropout.
    pub dropout: Option<Dropout>,
}

impl<'a> Pass<'a> {
    /// Whether anything is dropped.
    fn drops(&self) -> bool {
        let mut adapters = self.groups.iter().filter_map(|group| group.adapter);
        self.dropout.is_some() && adapters.any(|adapter| adapter.config.lora_dropout > 0.0)
    }

    /// The rows that gradient flows through, alone.
    fn gradient_part(&self) -> Pass<'a> {
        let rows = 0..self.grad_rows;
        let adapter = self.groups.first().and_then(|group| group.adapter);
        Pass {
            tokens: self.tokens.slice(rows.clone()),
            ids: &self.ids[rows.clone()],
            positions: self.positions.slice(rows.clone()),
            segments: self
                .segments
                .iter()
                .filter(|segment| segment.query_start < self.grad_rows)
                .copied()
                .collect(),
            groups: vec![RowGroup { rows, adapter }],
            grad_rows: self.grad_rows,
            dropout: self.dropout,
        }
    }
}

impl<'a> Pass<'a> {
    fn weights(&self, model: &'a Model, module: Module) -> Vec<(Range<usize>, View<'a>)> {
        weights(model, &self.groups, self.tokens.rows(), module)
    }
}

/// The weight of a module for each of the groups, which together are `rows` rows; all rows at once where none has its
/// own.
pub(crate) fn weights<'a>(
    model: &'a Model,
    groups: &[RowGroup<'a>],
    rows: usize,
    module: Module,
) -> Vec<(Range<usize>, View<'a>)> {
    let owns = |group: &RowGroup<'_>| {
        group.adapter.is_some_and(|adapter| adapter.saved.contains_key(&module))
    };
    if !groups.iter().any(owns) {
        return vec![(0..rows, model.weight(None, module))];
    }
    let weight = |group: &RowGroup<'a>| (group.rows.clone(), model.weight(group.adapter, module));
    groups.iter().map(weight).collect()
}

/// What a block keeps for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything backward reads.
    All,
    /// Its input; backward computes the rest again.
    Input,
    /// Its input, in the memory beside the device; backward fetches it and computes the rest again.
    Host,
}

/// What a block kept.
enum Kept {
    All(Box<Activations>),
    Input(Tensor),
    Host,
}

/// What forward leaves for backward.
pub struct Forward {
    /// The residual stream behind the last block, (N, C).
    pub hidden: Tensor,
    kept: Kepts,
}

/// The rows' embeddings.
fn embed(model: &Model, pass: &Pass<'_>) -> Result<Stream> {
    let device = model.device();
    let shape = (pass.tokens.rows(), model.config.hidden_size);
    let mut x = device.scratch(shape, device.activations(), Category::Activations)?;
    for (rows, table) in pass.weights(model, Module::EmbedTokens) {
        let x = x.slice_mut(rows.clone());
        if table.device().is(device) {
            embedding::forward(pass.tokens.slice(rows), table, x)?;
        } else {
            let (tokens, ids) = (pass.tokens.slice(rows.clone()), &pass.ids[rows]);
            embedding::forward_from_host(tokens, ids, table, x)?;
        }
    }
    if model.config.embedding_multiplier != 1.0 {
        scale::forward(x.view_mut(), model.config.embedding_multiplier)?;
    }
    Stream::new(x)
}

/// Runs all rows through all blocks. `keep` says what each block keeps; it is not read without gradient rows.
pub fn forward(model: &Model, pass: &Pass<'_>, keep: &[Keep]) -> Result<Forward> {
    let mut kept = match pass.grad_rows > 0 && keep.contains(&Keep::Host) {
        true => Kepts::beside(model, pass.grad_rows)?,
        false => Kepts { blocks: Vec::new(), waiting: None },
    };
    let hidden = forward_keeping(model, pass, keep, &mut kept)?;
    Ok(Forward { hidden, kept })
}

/// As [`forward`], where what is kept joins what passes before have left; gives the hidden rows.
pub fn forward_keeping(
    model: &Model,
    pass: &Pass<'_>,
    keep: &[Keep],
    kept: &mut Kepts,
) -> Result<Tensor> {
    let (device, rows) = (model.device(), pass.grad_rows);
    let mut stream = embed(model, pass)?;
    let segments = Segments::new(device, pass.segments.clone())?;
    let shape = (rows, model.config.hidden_size);
    let turns = Turns::new(model, pass)?;
    let Kepts { blocks: kept, waiting } = kept;
    for index in 0..model.config.num_hidden_layers {
        let visit = Visit { model, pass, segments: &segments, turns: &turns, index };
        if pass.grad_rows == 0 {
            block::forward(visit, &mut stream, Keeping::Nothing, None)?;
            continue;
        }
        match (keep[index], &mut *waiting) {
            (Keep::All, _) => {
                let mut all = Box::new(Activations::new(model, index, pass, Extent::Block)?);
                block::forward(visit, &mut stream, Keeping::All(&mut all), None)?;
                kept.push(Kept::All(all));
            }
            (Keep::Host, Some(waiting)) => {
                let input = Keeping::Input(waiting.slot(rows)?);
                block::forward(visit, &mut stream, input, None)?;
                waiting.push(rows)?;
                kept.push(Kept::Host);
            }
            (Keep::Input | Keep::Host, _) => {
                let mut input =
                    device.scratch(shape, device.activations(), Category::Activations)?;
                block::forward(visit, &mut stream, Keeping::Input(input.view_mut()), None)?;
                kept.push(Kept::Input(input));
            }
        }
    }
    stream.finish()
}

/// The hidden rows with gradient of the last pass that left its inputs beside the device: its last block once more.
pub fn hidden_again(model: &Model, pass: &Pass<'_>, kept: &mut Kepts) -> Result<Tensor> {
    let (device, part) = (model.device(), pass.gradient_part());
    let (Some(Kept::Host), Some(waiting)) = (kept.blocks.pop(), &mut kept.waiting) else {
        unreachable!("all inputs of that pass wait beside the device")
    };
    let shape = (pass.grad_rows, model.config.hidden_size);
    let take = || device.scratch(shape, device.activations(), Category::Activations);
    let mut input = take()?;
    waiting.pop(input.view_mut())?;
    let mut x = take()?;
    x.copy_prefix(input.view());
    kept.blocks.push(Kept::Input(input));
    let segments = Segments::new(device, part.segments.clone())?;
    let turns = Turns::new(model, pass)?;
    let index = model.config.num_hidden_layers - 1;
    let visit = Visit { model, pass: &part, segments: &segments, turns: &turns, index };
    let mut stream = Stream::new(x)?;
    block::forward(visit, &mut stream, Keeping::Nothing, None)?;
    stream.finish()
}

/// Runs rows through all blocks with keys and values in `caches`, one a block: `segments` place queries in the
/// rows of the pass and keys in the rows of the caches.
pub fn forward_cached(model: &Model, pass: &Pass<'_>, caches: &mut [LayerCache]) -> Result<Tensor> {
    let mut stream = embed(model, pass)?;
    let segments = Segments::new(model.device(), pass.segments.clone())?;
    let turns = Turns::new(model, pass)?;
    for (index, cache) in caches.iter_mut().enumerate() {
        let visit = Visit { model, pass, segments: &segments, turns: &turns, index };
        block::forward(visit, &mut stream, Keeping::Nothing, Some(cache))?;
    }
    stream.finish()
}

/// Carries `dhidden` (grad_rows, C), the gradient of the hidden rows, down to the embeddings, and adds to
/// `gradients` on the way. `dhidden` is overwritten. `kept` is what the pass left last, which is taken off.
pub fn backward(
    model: &Model,
    pass: &Pass<'_>,
    kept: &mut Kepts,
    mut dhidden: ViewMut<'_>,
    gradients: &mut Gradients<'_>,
) -> Result<()> {
    let part = pass.gradient_part();
    let segments = Segments::new(model.device(), part.segments.clone())?;
    // Of the whole pass: rows without gradient say as well how long a sequence is.
    let turns = Turns::new(model, pass)?;
    let trains_below = gradients.trains(Module::EmbedTokens);
    let first_norm = Module::block_norm(0, Norm::BeforeAttention, model.config.norms);
    let trains_first_norm = first_norm.is_some_and(|module| gradients.trains(module));
    let (device, shape) = (model.device(), dhidden.view().shape());
    let Kepts { blocks: kept, waiting } = kept;
    for index in (0..model.config.num_hidden_layers).rev() {
        let visit = Visit { model, pass: &part, segments: &segments, turns: &turns, index };
        let Some(layer) = kept.pop() else { unreachable!("forward kept something of every block") };
        let again = |input: Tensor| -> Result<Box<Activations>> {
            let mut all = Box::new(Activations::new(model, index, &part, Extent::Attention)?);
            block::again(visit, input, &mut all)?;
            Ok(all)
        };
        let all = match layer {
            Kept::All(all) => all,
            Kept::Input(input) => again(input)?,
            Kept::Host => {
                let mut input = device.scratch(shape, device.activations(), Category::Workspace)?;
                if let Some(waiting) = waiting.as_mut() {
                    waiting.pop(input.view_mut())?;
                }
                again(input)?
            }
        };
        let needs_input_gradient = index > 0 || trains_below || trains_first_norm;
        block::backward(visit, &all, dhidden.reborrow(), gradients, needs_input_gradient)?;
    }
    if trains_below && model.config.embedding_multiplier != 1.0 {
        scale::backward(dhidden.reborrow(), model.config.embedding_multiplier)?;
    }
    if let Some(dtable) =
        gradients.of(Module::EmbedTokens, |weights| Some(&mut weights.embed_tokens))
    {
        embedding::backward(part.tokens, dhidden.view(), dtable)?;
    }
    Ok(())
}

/// What the blocks kept, in order.
pub struct Kepts {
    blocks: Vec<Kept>,
    /// The inputs that wait beside the device.
    waiting: Option<Offload>,
}

impl Kepts {
    /// For inputs of at most `rows` rows that wait beside the device.
    pub fn beside(model: &Model, rows: usize) -> Result<Kepts> {
        let (device, shape) = (model.device(), (rows, model.config.hidden_size));
        let waiting = Some(Offload::new(device, shape, device.activations())?);
        Ok(Kepts { blocks: Vec::new(), waiting })
    }
}

impl Forward {
    /// The hidden rows, and what the blocks kept for backward.
    pub fn into_parts(self) -> (Tensor, Kepts) {
        (self.hidden, self.kept)
    }
}
