//! The launches of adamw.cu.

use super::{BLOCK_SIZE, Factors, Hyper, Rule, State};
use crate::cuda::{Arg, Module};
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "adamw",
    ptx: include_str!("adamw.ptx"),
    kernels: &[("adamw_full", 256, 0), ("adamw_blockwise", BLOCK_SIZE as u32, 0)],
};

pub(super) fn update(
    param: ViewMut<'_>,
    gradient: View<'_>,
    state: &mut State,
    rule: Rule,
    hyper: Hyper,
) -> Result<()> {
    let (cuda, n) = (param.device().cuda(), param.shape().len());
    let f = Factors::new(rule, hyper);
    let mut args: Vec<Arg> = vec![(&param).into(), gradient.into()];
    let kernel = match state {
        State::Full { .. } => "adamw_full",
        State::Blockwise { .. } => "adamw_blockwise",
    };
    args.extend(state.tensors_mut().into_iter().map(|(_, tensor)| Arg::from(tensor.view())));
    args.push((n as u64).into());
    let scalars = [f.beta1, f.beta2, f.one_less_beta1, f.one_less_beta2, f.step_size];
    args.extend(scalars.map(Arg::from));
    args.extend([f.decay, f.root, f.eps, f.scale].map(Arg::from));
    args.push(u32::from(f.decay_first).into());
    cuda.launch(&MODULE, kernel, blocks(n, 1), &args)
}
