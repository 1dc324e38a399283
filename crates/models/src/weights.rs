//! A model's weights on a device.
//!
//! A weight is *visited*: [`Weight::visit`] hands out its values as the device's products take them for as long as a
//! layer needs them, from where they are or converted into the step's stack. Gradients of all weights are a [`Weights`] of their own.

mod bitsandbytes;
mod foreign;
mod load;
#[cfg(test)]
mod tests;

use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::nf4::Quantized;
use engine::ops::{cast, int8, nf4};
use engine::tensor::{Tensor, View};

use crate::config::{ModelConfig, Norms};
use crate::error::Result;

pub(crate) use bitsandbytes::read as read_quantized;
pub use bitsandbytes::{is_codes, stored_form};
pub use load::{Quantization, Storage, load, load_beside};

/// The linear layers of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linear {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The attention's output.
    O,
    /// The MLP's gate.
    Gate,
    /// The MLP's other input.
    Up,
    /// The MLP's output.
    Down,
    /// Queries, keys and values at once.
    Qkv,
    /// The MLP's gate and its other input at once.
    GateUp,
}

impl Linear {
    /// All there are, each at its own number; no block has all of them.
    pub const ALL: [Linear; LINEARS] = [
        Linear::Q,
        Linear::K,
        Linear::V,
        Linear::O,
        Linear::Gate,
        Linear::Up,
        Linear::Down,
        Linear::Qkv,
        Linear::GateUp,
    ];

    /// Those of a block whose projections are each on their own, in the order they are used.
    pub const SEPARATE: [Linear; 7] =
        [Linear::Q, Linear::K, Linear::V, Linear::O, Linear::Gate, Linear::Up, Linear::Down];

    /// Those of a block whose projections are fused, in the order they are used.
    pub const FUSED: [Linear; 4] = [Linear::Qkv, Linear::O, Linear::GateUp, Linear::Down];

    /// The module's name.
    pub fn name(self) -> &'static str {
        self.path().split_once('.').map_or(self.path(), |(_, name)| name)
    }

    /// Another number for each linear layer of a model, which random draws are a function of. Seven for each block: the
    /// fused ones have those of the next block's queries and keys, which a model with fused ones does not have.
    pub fn stream(self, layer: usize) -> u64 {
        (layer * 7 + self as usize) as u64
    }

    /// The module's path within a block, as Hugging Face names it.
    pub const fn path(self) -> &'static str {
        match self {
            Linear::Q => "self_attn.q_proj",
            Linear::K => "self_attn.k_proj",
            Linear::V => "self_attn.v_proj",
            Linear::O => "self_attn.o_proj",
            Linear::Gate => "mlp.gate_proj",
            Linear::Up => "mlp.up_proj",
            Linear::Down => "mlp.down_proj",
            Linear::Qkv => "self_attn.qkv_proj",
            Linear::GateUp => "mlp.gate_up_proj",
        }
    }

    /// Whether it belongs to attention, not to the MLP.
    pub const fn is_attention(self) -> bool {
        matches!(self, Linear::Q | Linear::K | Linear::V | Linear::O | Linear::Qkv)
    }

    /// Output and input width.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (c, i) = (config.hidden_size, config.intermediate_size);
        match self {
            Linear::Q => (config.query_size(), c),
            Linear::K | Linear::V => (config.key_value_size(), c),
            Linear::O => (c, config.query_size()),
            Linear::Gate | Linear::Up => (i, c),
            Linear::Down => (c, i),
            Linear::Qkv => (config.query_size() + 2 * config.key_value_size(), c),
            Linear::GateUp => (2 * i, c),
        }
    }

    /// Whether it adds a bias.
    pub fn has_bias(self, config: &ModelConfig) -> bool {
        match self {
            Linear::Q | Linear::K | Linear::V | Linear::Qkv => config.qkv_bias,
            Linear::O => config.o_bias,
            Linear::Gate | Linear::Up | Linear::Down | Linear::GateUp => config.mlp_bias,
        }
    }
}

/// How many kinds of linear layers there are.
pub const LINEARS: usize = 9;

/// The norms of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// Of what goes into attention.
    BeforeAttention,
    /// Of what comes out of attention.
    AfterAttention,
    /// Of what goes into the MLP.
    BeforeMlp,
    /// Of what comes out of the MLP.
    AfterMlp,
}

impl Norm {
    /// In the order they are used.
    pub const ALL: [Norm; 4] =
        [Norm::BeforeAttention, Norm::AfterAttention, Norm::BeforeMlp, Norm::AfterMlp];

    /// The module's name within a block, as Hugging Face has it, where a block has such a norm.
    pub const fn path(self, norms: Norms) -> Option<&'static str> {
        match (self, norms) {
            (Norm::BeforeAttention, Norms::Before | Norms::Around) => Some("input_layernorm"),
            (Norm::AfterAttention, Norms::After | Norms::Around)
            | (Norm::BeforeMlp, Norms::Before) => Some("post_attention_layernorm"),
            (Norm::BeforeMlp, Norms::Around) => Some("pre_feedforward_layernorm"),
            (Norm::AfterMlp, Norms::After | Norms::Around) => Some("post_feedforward_layernorm"),
            _ => None,
        }
    }
}

/// A matrix as it is held.
pub enum Weight {
    /// f32 or bf16.
    Dense(Tensor),
    /// 4 bits, nf4 or fp4.
    FourBit(Box<Quantized>),
    /// 8 bits with a scale a row.
    Int8(Box<int8::Quantized>),
}

/// A weight's values for a while.
pub enum Visited<'a> {
    /// Where they are.
    InPlace(View<'a>),
    /// Converted.
    Copied(Tensor),
}

impl<'a> Visited<'a> {
    /// Values that are held as f32 or bf16.
    pub fn of(values: View<'a>) -> Result<Visited<'a>> {
        let device = values.device();
        if values.dtype() == device.activations() {
            return Ok(Visited::InPlace(values));
        }
        let mut copy = device.scratch(values.shape(), device.activations(), Category::Workspace)?;
        cast::forward(values, copy.view_mut())?;
        Ok(Visited::Copied(copy))
    }

    /// A head's matrix as `linear_logps` takes it: the CPU widens a bf16 one tile by tile, a GPU wants bf16.
    pub fn head(values: View<'a>) -> Result<Visited<'a>> {
        match values.device().arithmetic() {
            Kind::Cuda => Visited::of(values),
            _ => Ok(Visited::InPlace(values)),
        }
    }

    /// The values, (out, in), in the element type of activations.
    pub fn view(&self) -> View<'_> {
        match self {
            Visited::InPlace(view) => *view,
            Visited::Copied(tensor) => tensor.view(),
        }
    }
}

impl Weight {
    /// The values; a copy on the step's stack where they are held in another form.
    pub fn visit(&self, device: &Device) -> Result<Visited<'_>> {
        Ok(match self {
            Weight::Dense(tensor) => Visited::of(tensor.view())?,
            Weight::FourBit(quantized) => {
                let dtype = device.activations();
                let mut values = device.scratch(quantized.shape, dtype, Category::Workspace)?;
                nf4::dequantize(quantized, values.view_mut())?;
                Visited::Copied(values)
            }
            Weight::Int8(quantized) => {
                let dtype = device.activations();
                let mut values = device.scratch(quantized.shape(), dtype, Category::Workspace)?;
                int8::dequantize(quantized, values.view_mut())?;
                Visited::Copied(values)
            }
        })
    }

    /// The tensor of a weight that is held as f32; every weight is while all weights are trained.
    pub fn dense_mut(&mut self) -> Option<&mut Tensor> {
        match self {
            Weight::Dense(tensor) => Some(tensor),
            Weight::FourBit(_) | Weight::Int8(_) => None,
        }
    }
}

/// The weights of a block.
pub struct Layer {
    /// By [`Norm`], (C): those that a block has.
    pub norms: [Option<Tensor>; 4],
    /// By [`Linear`]: those that a block has.
    pub linears: [Option<Weight>; LINEARS],
    /// By [`Linear`], (out).
    pub biases: [Option<Tensor>; LINEARS],
    /// The norm of queries, (D) for each head or (H D) for all.
    pub q_norm: Option<Tensor>,
    /// The norm of keys, (D) for each head or (HKV D) for all.
    pub k_norm: Option<Tensor>,
}

impl Layer {
    /// The norm, where the block has it.
    pub fn norm(&self, norm: Norm) -> Option<&Tensor> {
        self.norms[norm as usize].as_ref()
    }

    /// The weight of a linear layer that the block has.
    pub fn weight(&self, linear: Linear) -> &Weight {
        match &self.linears[linear as usize] {
            Some(weight) => weight,
            None => unreachable!("a block is asked for the linear layers of its config alone"),
        }
    }
}

/// The weights of a model.
pub struct Weights {
    /// (V, C) f32 or bf16; where it is neither trained nor tied to the head, perhaps in the memory beside the device.
    pub embed_tokens: Tensor,
    /// Which norms the blocks have.
    pub norms: Norms,
    /// The blocks.
    pub layers: Vec<Layer>,
    /// The last norm, (C).
    pub norm: Tensor,
    /// (V, C) f32 or bf16; none where the embeddings serve.
    pub lm_head: Option<Tensor>,
}

impl Weights {
    /// A norm of a block, where the blocks have it.
    pub fn norm_mut(&mut self, layer: usize, norm: Norm) -> Option<&mut Tensor> {
        self.layers[layer].norms[norm as usize].as_mut()
    }

    /// The head's matrix, (V, C).
    pub fn head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed_tokens)
    }

    /// Room for gradients of all weights: f32 zeros of the shapes that `config` says.
    pub fn zeros(device: &Device, config: &ModelConfig) -> Result<Weights> {
        let take = |shape: (usize, usize)| -> Result<Tensor> {
            let mut tensor = device.persistent(shape, DType::F32, Category::Adapter)?;
            tensor.zero();
            Ok(tensor)
        };
        allocate(config, take, |linear, config| Ok(Weight::Dense(take(linear.shape(config))?)))
    }

    /// All tensors with their names in a checkpoint, in a fixed order. Empty where a weight is quantized: then
    /// they are not trained.
    pub fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let mut all = vec![("model.embed_tokens.weight".to_owned(), &mut self.embed_tokens)];
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let named = |path: &str, kind: &str| format!("model.layers.{i}.{path}.{kind}");
            let norms = self.norms;
            let mut block_norms =
                Norm::ALL.into_iter().zip(&mut layer.norms).filter_map(|(norm, tensor)| {
                    Some((named(norm.path(norms)?, "weight"), tensor.as_mut()?))
                });
            all.extend(block_norms.next());
            for ((linear, weight), bias) in
                Linear::ALL.iter().zip(&mut layer.linears).zip(&mut layer.biases)
            {
                if let Some(tensor) = weight.as_mut().and_then(Weight::dense_mut) {
                    all.push((named(linear.path(), "weight"), tensor));
                }
                if let Some(bias) = bias {
                    all.push((named(linear.path(), "bias"), bias));
                }
            }
            for (path, norm) in
                [("self_attn.q_norm", &mut layer.q_norm), ("self_attn.k_norm", &mut layer.k_norm)]
            {
                if let Some(norm) = norm {
                    all.push((named(path, "weight"), norm));
                }
            }
            all.extend(block_norms);
        }
        all.push(("model.norm.weight".to_owned(), &mut self.norm));
        if let Some(head) = &mut self.lm_head {
            all.push(("lm_head.weight".to_owned(), head));
        }
        all
    }
}

/// Builds a [`Weights`]: `take` gives a vector or table of a shape, `matrix` a linear layer's weight.
fn allocate(
    config: &ModelConfig,
    take: impl Fn((usize, usize)) -> Result<Tensor>,
    matrix: impl Fn(Linear, &ModelConfig) -> Result<Weight>,
) -> Result<Weights> {
    let (v, c) = (config.vocab_size, config.hidden_size);
    let head_norm = |i: usize| config.qk_norm_sizes().map(|sizes| take((sizes[i], 1))).transpose();
    let layer = |_| -> Result<Layer> {
        let mut linears = [const { None }; LINEARS];
        let mut biases = [const { None }; LINEARS];
        for linear in config.linears() {
            linears[*linear as usize] = Some(matrix(*linear, config)?);
            if linear.has_bias(config) {
                biases[*linear as usize] = Some(take((linear.shape(config).0, 1))?);
            }
        }
        let mut norms = [const { None }; 4];
        for (norm, tensor) in Norm::ALL.into_iter().zip(&mut norms) {
            *tensor = norm.path(config.norms).map(|_| take((c, 1))).transpose()?;
        }
        Ok(Layer { norms, linears, biases, q_norm: head_norm(0)?, k_norm: head_norm(1)? })
    };
    Ok(Weights {
        embed_tokens: take((v, c))?,
        norms: config.norms,
        layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
        norm: take((c, 1))?,
        lm_head: if config.tie_word_embeddings { None } else { Some(take((v, c))?) },
    })
}
