//! Proofs of RMSNorm.

use crate::error::Error;
use crate::ops::rms_norm;
use crate::tensor::Tensor;
use crate::testing::{
    assert_close, cpu, dot, filled, filled_activations, gradient_matches, normal,
    normal_activations, plan_takes_what_cpu_takes, same_on_cuda, tensor,
};

const EPS: f32 = 1e-5;

fn forward(x: &Tensor, weight: &Tensor, offset: f32) -> (Tensor, Tensor) {
    let device = x.device();
    let mut y = filled(device, (x.rows(), x.cols()), 7.0);
    let mut rstd = filled(device, (x.rows(), x.cols() / weight.rows()), 7.0);
    rms_norm::forward(x.view(), weight.view(), offset, EPS, y.view_mut(), rstd.view_mut()).unwrap();
    (y, rstd)
}

#[test]
fn a_row_worked_by_hand() {
    let device = cpu();
    // mean of squares of (3, 4) is 12.5; rstd = 1 / sqrt(12.5) = 0.28284272 (eps below f32's resolution here)
    let x = tensor(&device, (1, 2), &[3.0, 4.0]);
    let (y, rstd) = forward(&x, &tensor(&device, (2, 1), &[1.0, 2.0]), 0.0);
    assert_close("rstd", rstd.as_slice(), &[0.282_842_6], 1e-6);
    assert_close("y", y.as_slice(), &[0.848_528, 2.262_742], 2e-6);
    let (y, _) = forward(&x, &tensor(&device, (2, 1), &[0.0, 1.0]), 1.0);
    assert_close("with the offset", y.as_slice(), &[0.848_528, 2.262_742], 2e-6);
}

#[test]
fn backward_matches_finite_differences_and_adds_to_what_is_there() {
    let device = cpu();
    for (n, c, parts) in [(1, 7, 1), (33, 47, 1), (7, 33, 3), (300, 7, 2)] {
        let shape = (n, c * parts);
        let (x, weight) = (normal(&device, shape, 1), normal(&device, (c, 1), 2));
        let dy = normal(&device, shape, 3);
        let (_, rstd) = forward(&x, &weight, 0.5);
        let (mut dx, mut dweight) = (filled(&device, shape, 2.0), filled(&device, (c, 1), 3.0));
        let dw = Some(dweight.view_mut());
        rms_norm::backward(dy.view(), x.view(), weight.view(), 0.5, rstd.view(), dx.view_mut(), dw)
            .unwrap();
        let clean =
            |values: &[f32], dirt: f32| values.iter().map(|v| v - dirt).collect::<Vec<f32>>();
        let dx = clean(dx.as_slice(), 2.0);
        gradient_matches("dx", x.as_slice(), &dx, |values| {
            let (y, _) = forward(&tensor(&device, shape, values), &weight, 0.5);
            dot(y.as_slice(), dy.as_slice())
        });
        gradient_matches("dweight", weight.as_slice(), &clean(dweight.as_slice(), 3.0), |values| {
            let (y, _) = forward(&x, &tensor(&device, (c, 1), values), 0.5);
            dot(y.as_slice(), dy.as_slice())
        });
    }
}

#[test]
fn a_weight_that_does_not_divide_the_row_is_refused() {
    let device = cpu();
    let (x, mut rstd) = (normal(&device, (2, 7), 1), filled(&device, (2, 1), 0.0));
    let mut y = filled(&device, (2, 7), 0.0);
    let weight = normal(&device, (3, 1), 0);
    let got = rms_norm::forward(x.view(), weight.view(), 0.0, EPS, y.view_mut(), rstd.view_mut());
    assert!(matches!(got, Err(Error::Shape { name: "weight", got: (3, 1), .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (x, weight) = (normal(device, (33, 47), 1), normal(device, (47, 1), 2));
        let (mut y, rstd) = forward(&x, &weight, 0.0);
        rms_norm::backward(x.view(), x.view(), weight.view(), 0.0, rstd.view(), y.view_mut(), None)
            .unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (n, c, parts) in [(1, 1, 1), (7, 33, 1), (47, 128, 3), (33, 520, 1), (9, 4096, 1)] {
        same_on_cuda(|device| {
            let shape = (n, c * parts);
            let weight = normal(device, (c, 1), 1);
            let mut x = normal_activations(device, shape, 2);
            let mut y = normal_activations(device, shape, 3);
            let mut rstd = filled(device, (n, parts), 7.0);
            let (to, from) = (y.view_mut(), rstd.view_mut());
            rms_norm::add_forward(x.view_mut(), to, weight.view(), 1.0, 1e-5, from).unwrap();
            let dy = normal_activations(device, shape, 4);
            let mut dx = normal_activations(device, shape, 5);
            let mut dweight = normal(device, (c, 1), 6);
            let given = normal_activations(device, shape, 7);
            let mut plain = filled_activations(device, shape, 9.0);
            let mut given_rstd = filled(device, (n, parts), 7.0);
            let (to, r) = (plain.view_mut(), given_rstd.view_mut());
            rms_norm::forward(given.view(), weight.view(), 0.0, 1e-6, to, r).unwrap();
            rms_norm::backward(
                dy.view(),
                given.view(),
                weight.view(),
                0.0,
                given_rstd.view(),
                dx.view_mut(),
                Some(dweight.view_mut()),
            )
            .unwrap();
            vec![
                ("x", x),
                ("y", y),
                ("rstd", rstd),
                ("plain y", plain),
                ("dx", dx),
                ("dweight", dweight),
            ]
        });
    }
}
