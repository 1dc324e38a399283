//! The launches of adamw.cu.

use super::{BLOCK_SIZE, Factors, Hyper, Parameter, Rule, State};
use crate::cuda::{Arg, Module};
use crate::error::Result;

pub(crate) static MODULE: Module = Module {
    name: "adamw",
    ptx: include_str!("adamw.ptx"),
    kernels: &[("adamw_full", 256, 0), ("adamw_blockwise", BLOCK_SIZE as u32, 0)],
};

/// Elements of a tensor that a thread does, in a tensor that is not larger than the most blocks can do so.
const EACH: usize = 4;
/// The most blocks of a tensor.
const MOST_BLOCKS: usize = 4096;

pub(super) fn update(parameters: &[Parameter<'_>], rule: Rule, hyper: Hyper) -> Result<()> {
    let Some(first) = parameters.first() else { return Ok(()) };
    let cuda = first.value.device().cuda();
    let f = Factors::new(rule, hyper);
    let scalars = [f.beta1, f.beta2, f.one_less_beta1, f.one_less_beta2, f.step_size];
    let mut args: Vec<Arg> = scalars.map(Arg::from).to_vec();
    args.extend([f.root, f.eps, f.scale].map(Arg::from));
    args.push(u32::from(f.decay_first).into());
    let full = |state: &State| matches!(state, State::Full { .. });
    for (kernel, of_full) in [("adamw_full", true), ("adamw_blockwise", false)] {
        let those = || parameters.iter().filter(|parameter| full(parameter.state) == of_full);
        let largest = those().map(|parameter| parameter.value.shape().len()).max();
        let blocks = largest.unwrap_or(0).div_ceil(256 * EACH).min(MOST_BLOCKS) as u32;
        let tensors: Vec<[u64; 8]> = those().map(|parameter| words(parameter, f.decay)).collect();
        cuda.launch_over(&MODULE, kernel, blocks, &tensors, &args)?;
    }
    Ok(())
}

/// What adamw.cu's `Tensor` holds.
fn words(parameter: &Parameter<'_>, decay: f32) -> [u64; 8] {
    let Parameter { value, gradient, state, decays } = parameter;
    let [m, v, m_absmax, v_absmax] = match &**state {
        State::Full { m, v } => [m.view().address(), v.view().address(), 0, 0],
        State::Blockwise { m, v, m_absmax, v_absmax } => {
            [m, v, m_absmax, v_absmax].map(|tensor| tensor.view().address())
        }
    };
    let decay = if *decays { decay } else { 1.0 };
    let (value, gradient) = (value.view(), gradient.address());
    let n = value.shape().len() as u64;
    [value.address(), gradient, m, v, m_absmax, v_absmax, n, u64::from(decay.to_bits())]
}
