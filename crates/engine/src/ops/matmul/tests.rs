//! Proofs of the products of a linear layer.

mod on_cuda;
mod speed;

use crate::error::Error;
use crate::ops::matmul::{self, Output};
use crate::tensor::Tensor;
use crate::testing::{
    activations, assert_close, cpu, dot, filled, gradient_matches, normal,
    plan_takes_what_cpu_takes, tensor,
};

fn forward(x: &Tensor, weight: &Tensor) -> Tensor {
    let mut y = filled(x.device(), (x.rows(), weight.rows()), 7.0);
    matmul::forward(x.view(), weight.view(), 0.5, Output::Write, y.view_mut()).unwrap();
    y
}

#[test]
fn products_worked_by_hand() {
    let device = cpu();
    let x = tensor(&device, (1, 2), &[1.0, 2.0]);
    let weight = tensor(&device, (3, 2), &[1.0, 0.0, 0.0, 1.0, 3.0, -1.0]);
    assert_eq!(forward(&x, &weight).as_slice::<f32>(), [0.5, 1.0, 0.5]);
    let mut y = filled(&device, (1, 3), 10.0);
    matmul::forward(x.view(), weight.view(), 2.0, Output::Add, y.view_mut()).unwrap();
    assert_eq!(y.as_slice::<f32>(), [12.0, 14.0, 12.0]);
}

#[test]
fn gradients_match_finite_differences_on_dirty_buffers() {
    let device = cpu();
    for (n, m, k) in [(1, 7, 33), (47, 33, 7), (300, 1, 47)] {
        let (x, weight) = (normal(&device, (n, k), 1), normal(&device, (m, k), 2));
        let dy = normal(&device, (n, m), 3);
        let (mut dx, mut dweight) = (filled(&device, (n, k), 9.0), filled(&device, (m, k), 2.0));
        matmul::backward_input(dy.view(), weight.view(), 0.5, Output::Write, dx.view_mut())
            .unwrap();
        matmul::backward_weight(dy.view(), x.view(), 0.5, dweight.view_mut()).unwrap();
        gradient_matches("dx", x.as_slice(), dx.as_slice(), |values| {
            dot(forward(&tensor(&device, (n, k), values), &weight).as_slice(), dy.as_slice())
        });
        let clean: Vec<f32> = dweight.as_slice::<f32>().iter().map(|v| v - 2.0).collect();
        gradient_matches("dweight", weight.as_slice(), &clean, |values| {
            dot(forward(&x, &tensor(&device, (m, k), values)).as_slice(), dy.as_slice())
        });
        let once = dx.as_slice::<f32>().to_vec();
        matmul::backward_input(dy.view(), weight.view(), 0.5, Output::Add, dx.view_mut()).unwrap();
        let twice: Vec<f32> = once.iter().map(|v| v * 2.0).collect();
        assert_close("dx added", dx.as_slice(), &twice, 1e-4);
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let product = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let device = cpu();
            forward(&normal(&device, (1100, 130), 1), &normal(&device, (700, 130), 2))
                .to_vec::<f32>()
                .unwrap()
        })
    };
    let one = product(1);
    assert!(one.iter().zip(product(3)).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn shapes_that_do_not_fit_are_refused_by_name() {
    let device = cpu();
    let (x, weight) = (normal(&device, (2, 7), 1), normal(&device, (3, 8), 2));
    let mut y = filled(&device, (2, 3), 0.0);
    let got = matmul::forward(x.view(), weight.view(), 1.0, Output::Write, y.view_mut());
    assert!(matches!(
        got,
        Err(Error::Shape { op: "matmul", name: "weight", got: (3, 8), expected: (3, 7) })
    ));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (x, mut weight) = (normal(device, (33, 47), 1), normal(device, (7, 47), 2));
        let y = forward(&x, &weight);
        matmul::backward_weight(y.view(), x.view(), 1.0, weight.view_mut()).unwrap();
    });
    let plan = crate::device::Device::plan_for(crate::device::Kind::Cpu);
    forward(&normal(&plan, (33, 47), 1), &normal(&plan, (7, 47), 2));
    assert_eq!(plan.ledger().total().flops, 2.0 * 33.0 * 47.0 * 7.0);
}

#[test]
fn a_plan_for_cuda_books_the_workspace_and_half_the_bytes() {
    let plan = crate::device::Device::plan_for(crate::device::Kind::Cuda);
    let zeros = |shape: (usize, usize)| activations(&plan, shape, &vec![0.0; shape.0 * shape.1]);
    let (x, weight, mut y) = (zeros((8, 16)), zeros((4, 16)), zeros((8, 4)));
    let before = plan.used_bytes();
    matmul::forward(x.view(), weight.view(), 1.0, Output::Write, y.view_mut()).unwrap();
    assert_eq!(plan.peak_bytes(), before + crate::cuda::gemm::WORKSPACE_BYTES);
    assert_eq!(plan.ledger().total().traffic, 2.0 * (8.0 * 16.0 + 4.0 * 16.0 + 8.0 * 4.0));
    let wrong = normal(&plan, (8, 16), 1);
    let got = matmul::forward(wrong.view(), weight.view(), 1.0, Output::Write, y.view_mut());
    assert!(matches!(got, Err(Error::DType { name: "x", .. })), "f32 operands were taken");
}
