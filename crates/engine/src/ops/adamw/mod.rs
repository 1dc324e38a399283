//! AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), in two arithmetics:
//!
//! * [`Rule::Torch`], torch.optim.AdamW: `p *= 1 - lr wd`, then `p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)`;
//!   moments in f32
//! * [`Rule::BitsAndBytes`], the CUDA kernels of bitsandbytes 0.50.2's AdamW8bit:
//!   `p -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + sqrt(1 - b2^t) eps)`, then `p *= 1 - lr wd`; moments in blocks
//!   of 256 as 8-bit codes of the dynamic maps with an absmax each (arXiv 2110.02861), in f32 for tensors of fewer
//!   than 4096 elements; an element whose gradient is not finite is left alone and its moments are reset
//!
//! `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`; `t` counts from 1.

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{Tensor, View, ViewMut};

const OP: &str = "adamw";

/// Elements that share an absmax in 8-bit states.
pub const BLOCK_SIZE: usize = 256;
/// Tensors with fewer elements keep f32 states under [`Rule::BitsAndBytes`].
pub const MIN_8BIT_ELEMENTS: usize = 4096;

/// Whose arithmetic is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// torch.optim.AdamW, f32 states.
    Torch,
    /// bitsandbytes' AdamW8bit on CUDA.
    BitsAndBytes,
}

/// The numbers of one update.
#[derive(Clone, Copy, Debug)]
pub struct Hyper {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Which update this is, from 1.
    pub step: u64,
    /// The gradient is multiplied with this first: the factor that clips its norm.
    pub gradient_scale: f32,
}

/// The scalars of one update, rounded to f32 once.
struct Factors {
    beta1: f32,
    beta2: f32,
    one_less_beta1: f32,
    one_less_beta2: f32,
    step_size: f32,
    decay: f32,
    /// The denominator is `sqrt(v) * root + eps`.
    root: f32,
    eps: f32,
    decay_first: bool,
    /// Of the gradient.
    scale: f32,
}

impl Factors {
    fn new(rule: Rule, hyper: Hyper) -> Factors {
        let step = hyper.step as f64;
        let (correction1, correction2) =
            (1.0 - hyper.beta1.powf(step), (1.0 - hyper.beta2.powf(step)).sqrt());
        let (step_size, root, eps) = match rule {
            Rule::Torch => (hyper.learning_rate / correction1, 1.0 / correction2, hyper.eps),
            Rule::BitsAndBytes => {
                (hyper.learning_rate * correction2 / correction1, 1.0, hyper.eps * correction2)
            }
        };
        Factors {
            beta1: hyper.beta1 as f32,
            beta2: hyper.beta2 as f32,
            one_less_beta1: (1.0 - hyper.beta1) as f32,
            one_less_beta2: (1.0 - hyper.beta2) as f32,
            step_size: step_size as f32,
            decay: (1.0 - hyper.learning_rate * hyper.weight_decay) as f32,
            root: root as f32,
            eps: eps as f32,
            decay_first: rule == Rule::Torch,
            scale: hyper.gradient_scale,
        }
    }
}

/// The moments of one parameter.
pub enum State {
    /// In f32.
    Full {
        /// First moment.
        m: Tensor,
        /// Second moment.
        v: Tensor,
    },
    /// In 8-bit codes.
    Blockwise {
        /// Codes of the first moment, signed map.
        m: Tensor,
        /// Codes of the second moment, unsigned map.
        v: Tensor,
        /// Largest |m| of each block.
        m_absmax: Tensor,
        /// Largest v of each block.
        v_absmax: Tensor,
    },
}

impl State {
    /// Zero moments for a parameter of `n` elements.
    pub fn new(device: &Device, rule: Rule, n: usize) -> Result<State> {
        let take = |n: usize, dtype| -> Result<Tensor> {
            let mut tensor = device.persistent((n, 1), dtype, Category::Optimizer)?;
            tensor.zero();
            Ok(tensor)
        };
        if rule == Rule::BitsAndBytes && n >= MIN_8BIT_ELEMENTS {
            let blocks = n.div_ceil(BLOCK_SIZE);
            return Ok(State::Blockwise {
                m: take(n, DType::U8)?,
                v: take(n, DType::U8)?,
                m_absmax: take(blocks, DType::F32)?,
                v_absmax: take(blocks, DType::F32)?,
            });
        }
        Ok(State::Full { m: take(n, DType::F32)?, v: take(n, DType::F32)? })
    }

    /// The tensors of the state with the names they are saved under.
    pub fn tensors_mut(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        match self {
            State::Full { m, v } => vec![("exp_avg", m), ("exp_avg_sq", v)],
            State::Blockwise { m, v, m_absmax, v_absmax } => {
                vec![("state1", m), ("state2", v), ("absmax1", m_absmax), ("absmax2", v_absmax)]
            }
        }
    }
}

/// A parameter, its gradient, its moments, and whether it decays.
pub struct Parameter<'a> {
    /// (N, C) f32, updated in place.
    pub value: ViewMut<'a>,
    /// (N, C) f32.
    pub gradient: View<'a>,
    /// Updated in place.
    pub state: &'a mut State,
    /// False where the weight decay is for others alone.
    pub decays: bool,
}

/// One update of all `parameters`. See the room's contract.
pub fn update(parameters: &mut [Parameter<'_>], rule: Rule, hyper: Hyper) -> Result<()> {
    for Parameter { value, gradient, state, .. } in parameters.iter_mut() {
        let (shape, n) = ((value.rows(), value.cols()), value.shape().len());
        expect(OP, "param", value.view(), shape, DType::F32)?;
        expect(OP, "gradient", *gradient, shape, DType::F32)?;
        for (name, tensor) in state.tensors_mut() {
            let codes = matches!(name, "state1" | "state2");
            let len = if name.starts_with("absmax") { n.div_ceil(BLOCK_SIZE) } else { n };
            expect(OP, name, tensor.view(), (len, 1), if codes { DType::U8 } else { DType::F32 })?;
        }
    }
    let Some(first) = parameters.first() else { return Ok(()) };
    if first.value.device().is_plan() {
        let (mut flops, mut bytes) = (0.0, 0.0);
        for Parameter { value, state, .. } in parameters.iter() {
            let n = value.shape().len() as f64;
            flops += 12.0 * n;
            bytes += n * if matches!(state, State::Full { .. }) { 28.0 } else { 16.0 };
        }
        first.value.device().book(OP, flops, bytes);
        return Ok(());
    }
    if first.value.device().kind() == Kind::Cuda {
        return cuda::update(parameters, rule, hyper);
    }
    for parameter in parameters {
        let weight_decay = if parameter.decays { hyper.weight_decay } else { 0.0 };
        cpu::update(parameter, rule, Hyper { weight_decay, ..hyper });
    }
    Ok(())
}
