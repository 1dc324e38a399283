//! AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), in two arithmetics:
//!
//! * [`Rule::Torch`], torch.optim.AdamW: `p *= 1 - lr wd`, then `p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)`;
//!   moments in f32
//! * [`Rule::BitsAndBytes`], the CUDA kernels of bitsandbytes 0.50.2's AdamW8bit:
//!   `p -= lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + sqrt(1 - b2^t) eps)`, then `p *= 1 - lr wd`; moments in blocks
//!   of 256 as 8-bit codes of the dynamic maps with an absmax each (arXiv 2110.02861), in f32 for tensors of fewer
//!   than 4096 elements; an element whose gradient is not finite is left alone and its moments are reset
//!
//! `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`; `param`, `gradient` (N, C) f32; `param` and the state are
//! updated in place; `t` counts from 1.

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

/// See the room's contract.
pub fn update(
    param: ViewMut<'_>,
    gradient: View<'_>,
    state: &mut State,
    rule: Rule,
    hyper: Hyper,
) -> Result<()> {
    let n = param.shape().len();
    expect(OP, "param", param.view(), (param.rows(), param.cols()), DType::F32)?;
    expect(OP, "gradient", gradient, (param.rows(), param.cols()), DType::F32)?;
    for (name, tensor) in state.tensors_mut() {
        let codes = matches!(name, "state1" | "state2");
        let len = if name.starts_with("absmax") { n.div_ceil(BLOCK_SIZE) } else { n };
        expect(OP, name, tensor.view(), (len, 1), if codes { DType::U8 } else { DType::F32 })?;
    }
    if param.device().is_plan() {
        let bytes = if matches!(state, State::Full { .. }) { 28 } else { 16 };
        param.device().book(OP, 12.0 * n as f64, (n * bytes) as f64);
        return Ok(());
    }
    if param.device().kind() == Kind::Cuda {
        return cuda::update(param, gradient, state, rule, hyper);
    }
    let (param, gradient) = (param.into_mut_slice(), gradient.as_slice());
    match state {
        State::Full { m, v } => {
            cpu::full(param, gradient, m.as_mut_slice(), v.as_mut_slice(), rule, hyper)
        }
        State::Blockwise { m, v, m_absmax, v_absmax } => cpu::blockwise(
            param,
            gradient,
            cpu::Codes { codes: m.as_mut_slice(), absmax: m_absmax.as_mut_slice() },
            cpu::Codes { codes: v.as_mut_slice(), absmax: v_absmax.as_mut_slice() },
            hyper,
        ),
    }
    Ok(())
}
