//! The launches of gated_mlp.cu.

use super::Activation;
use crate::cuda::Module;
use crate::error::Result;
use crate::ops::blocks;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "gated_mlp",
    ptx: include_str!("gated_mlp.ptx"),
    kernels: &[
        ("gated_mlp_forward_silu", 256, 0),
        ("gated_mlp_forward_gelu", 256, 0),
        ("gated_mlp_backward_silu", 256, 0),
        ("gated_mlp_backward_gelu", 256, 0),
    ],
};

pub(super) fn forward(
    gate: View<'_>,
    up: View<'_>,
    activation: Activation,
    y: ViewMut<'_>,
) -> Result<()> {
    let n = gate.shape().len();
    let kernel = match activation {
        Activation::Silu => "gated_mlp_forward_silu",
        Activation::GeluTanh => "gated_mlp_forward_gelu",
    };
    let args = [gate.into(), up.into(), (&y).into(), (n as u64).into()];
    y.device().cuda().launch(&MODULE, kernel, blocks(n, 8), &args)
}

pub(super) fn backward(
    dy: View<'_>,
    gate: View<'_>,
    up: View<'_>,
    activation: Activation,
    dgate: ViewMut<'_>,
    dup: ViewMut<'_>,
) -> Result<()> {
    let n = gate.shape().len();
    let kernel = match activation {
        Activation::Silu => "gated_mlp_backward_silu",
        Activation::GeluTanh => "gated_mlp_backward_gelu",
    };
    let args =
        [dy.into(), gate.into(), up.into(), (&dgate).into(), (&dup).into(), (n as u64).into()];
    dy.device().cuda().launch(&MODULE, kernel, blocks(n, 8), &args)
}
