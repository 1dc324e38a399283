//! Proofs of the gate.

use crate::error::Error;
use crate::ops::gated_mlp::{self, Activation};
use crate::tensor::Tensor;
use crate::testing::{
    assert_close, cpu, dot, filled, filled_activations, gradient_matches, normal,
    normal_activations, plan_takes_what_cpu_takes, same_on_cuda, tensor,
};

fn forward(gate: &Tensor, up: &Tensor, activation: Activation) -> Tensor {
    let mut y = filled(gate.device(), (gate.rows(), gate.cols()), 7.0);
    gated_mlp::forward(gate.view(), up.view(), activation, y.view_mut()).unwrap();
    y
}

#[test]
fn values_of_both_activations() {
    let device = cpu();
    // silu(1) = 0.7310586, silu(-2) = -0.2384058; gelu_tanh(1) = 0.8411920, gelu_tanh(-2) = -0.0454023 (torch 2.15)
    let (gate, up) = (tensor(&device, (1, 2), &[1.0, -2.0]), tensor(&device, (1, 2), &[2.0, 10.0]));
    let silu = forward(&gate, &up, Activation::Silu);
    assert_close("silu", silu.as_slice(), &[1.462_117_2, -2.384_058], 1e-6);
    let gelu = forward(&gate, &up, Activation::GeluTanh);
    assert_close("gelu", gelu.as_slice(), &[1.682_384, -0.454_023], 2e-6);
}

#[test]
fn large_gates_saturate_without_a_nan() {
    let device = cpu();
    let gate = tensor(&device, (1, 4), &[200.0, -200.0, 1e4, -1e4]);
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let y = forward(&gate, &filled(&device, (1, 4), 1.0), activation);
        assert_close("saturated", y.as_slice(), &[200.0, 0.0, 1e4, 0.0], 1e-3);
    }
}

#[test]
fn gradients_match_finite_differences_and_overwrite_what_is_there() {
    let device = cpu();
    for activation in [Activation::Silu, Activation::GeluTanh] {
        for shape in [(1, 7), (33, 47)] {
            let (gate, up, dy) =
                (normal(&device, shape, 1), normal(&device, shape, 2), normal(&device, shape, 3));
            let (mut dgate, mut dup) = (filled(&device, shape, 5.0), filled(&device, shape, 5.0));
            let (a, b) = (dgate.view_mut(), dup.view_mut());
            gated_mlp::backward(dy.view(), gate.view(), up.view(), activation, a, b).unwrap();
            gradient_matches("dgate", gate.as_slice(), dgate.as_slice(), |values| {
                dot(
                    forward(&tensor(&device, shape, values), &up, activation).as_slice(),
                    dy.as_slice(),
                )
            });
            gradient_matches("dup", up.as_slice(), dup.as_slice(), |values| {
                dot(
                    forward(&gate, &tensor(&device, shape, values), activation).as_slice(),
                    dy.as_slice(),
                )
            });
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let device = cpu();
    let (gate, up) = (normal(&device, (2, 7), 1), normal(&device, (2, 8), 2));
    let mut y = filled(&device, (2, 7), 0.0);
    let got = gated_mlp::forward(gate.view(), up.view(), Activation::Silu, y.view_mut());
    assert!(matches!(got, Err(Error::Shape { name: "up", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        forward(&normal(device, (7, 33), 1), &normal(device, (7, 33), 2), Activation::Silu);
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for activation in [Activation::Silu, Activation::GeluTanh] {
        for (n, c) in [(1, 1), (7, 33), (47, 64)] {
            same_on_cuda(|device| {
                let shape = (n, c);
                let of = |stream| normal_activations(device, shape, stream);
                let (gate, up, dy) = (of(1), of(2), of(3));
                let [mut y, mut dgate, mut dup] =
                    [7.0, 8.0, 9.0].map(|value| filled_activations(device, shape, value));
                gated_mlp::forward(gate.view(), up.view(), activation, y.view_mut()).unwrap();
                let (dg, du) = (dgate.view_mut(), dup.view_mut());
                gated_mlp::backward(dy.view(), gate.view(), up.view(), activation, dg, du).unwrap();
                vec![("y", y), ("dgate", dgate), ("dup", dup)]
            });
        }
    }
}
