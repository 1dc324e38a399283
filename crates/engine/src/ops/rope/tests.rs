//! Proofs of the rotary embedding.

use crate::device::Device;
use crate::ops::rope;
use crate::tensor::Tensor;
use crate::testing::{
    assert_close, cpu, cuda, dot, gradient_matches, normal, normal_activations,
    plan_takes_what_cpu_takes, same_on_cuda, tensor, values,
};

fn tables(device: &Device, positions: usize, half: usize) -> (Tensor, Tensor) {
    let angle = |i: usize| (i / half) as f32 * 10f32.powf(-((i % half) as f32) / half as f32);
    let values =
        |f: fn(f32) -> f32| (0..positions * half).map(|i| f(angle(i))).collect::<Vec<f32>>();
    (
        tensor(device, (positions, half), &values(f32::cos)),
        tensor(device, (positions, half), &values(f32::sin)),
    )
}

#[test]
fn a_quarter_turn_worked_by_hand() {
    let device = cpu();
    // Two heads of four elements; the pairs are (0, 2) and (1, 3). cos = 0, sin = 1 turns (a, b) into (-b, a).
    let mut x = tensor(&device, (1, 8), &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let (cos, sin) =
        (tensor(&device, (2, 2), &[1., 1., 0., 0.]), tensor(&device, (2, 2), &[0., 0., 1., 1.]));
    let positions = device.upload(&[1u32]).unwrap();
    rope::forward(x.view_mut(), 4, positions.view(), cos.view(), sin.view()).unwrap();
    assert_eq!(x.as_slice::<f32>(), [-3., -4., 1., 2., -7., -8., 5., 6.]);
    rope::backward(x.view_mut(), 4, positions.view(), cos.view(), sin.view()).unwrap();
    assert_close("turned back", x.as_slice(), &[1., 2., 3., 4., 5., 6., 7., 8.], 0.0);
}

#[test]
fn backward_matches_finite_differences() {
    let device = cpu();
    // Whole heads turn, and the first 14 elements of heads of 19.
    for (head_dim, half) in [(14, 7), (19, 7)] {
        let (n, heads) = (33, 3);
        let shape = (n, heads * head_dim);
        let (cos, sin) = tables(&device, 47, half);
        let (cos, sin) = (cos.view(), sin.view());
        let positions: Vec<u32> = (0..n).map(|i| (i * 5 % 47) as u32).collect();
        let positions = device.upload(&positions).unwrap();
        let (x, dy) = (normal(&device, shape, 1), normal(&device, shape, 2));
        let mut dx = tensor(&device, shape, dy.as_slice());
        rope::backward(dx.view_mut(), head_dim, positions.view(), cos, sin).unwrap();
        gradient_matches("dx", x.as_slice(), dx.as_slice(), |values| {
            let mut y = tensor(&device, shape, values);
            rope::forward(y.view_mut(), head_dim, positions.view(), cos, sin).unwrap();
            dot(y.as_slice(), dy.as_slice())
        });
    }
}

#[test]
fn the_rest_of_a_head_stays_as_it_is() {
    let device = cpu();
    // Two heads of five elements, of which the first two are the one pair that turns.
    let mut x = tensor(&device, (1, 10), &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10.]);
    let (cos, sin) = (tensor(&device, (1, 1), &[0.]), tensor(&device, (1, 1), &[1.]));
    let positions = device.upload(&[0u32]).unwrap();
    rope::forward(x.view_mut(), 5, positions.view(), cos.view(), sin.view()).unwrap();
    assert_eq!(x.as_slice::<f32>(), [-2., 1., 3., 4., 5., -7., 6., 8., 9., 10.]);
    let wider = rope::forward(x.view_mut(), 1, positions.view(), cos.view(), sin.view());
    assert!(wider.is_err(), "more turns than a head has");
}

#[test]
fn a_position_past_the_table_and_an_odd_head_are_refused() {
    let device = cpu();
    let (cos, sin) = tables(&device, 4, 2);
    let positions = device.upload(&[4u32]).unwrap();
    let mut x = normal(&device, (1, 8), 0);
    let error =
        rope::forward(x.view_mut(), 4, positions.view(), cos.view(), sin.view()).unwrap_err();
    assert!(
        error.to_string().starts_with("rope: position 4 is past the last position 3"),
        "{error}"
    );
    let mut odd = normal(&device, (1, 6), 0);
    assert!(rope::forward(odd.view_mut(), 4, positions.view(), cos.view(), sin.view()).is_err());
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (cos, sin) = tables(device, 4, 2);
        let positions = device.upload(&[3u32; 7]).unwrap();
        let mut x = normal(device, (7, 8), 0);
        rope::forward(x.view_mut(), 4, positions.view(), cos.view(), sin.view()).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    let whole = [(1, 1, 1, 2), (7, 3, 5, 10), (33, 4, 32, 64), (47, 2, 64, 128)];
    let partly = [(7, 3, 5, 13), (33, 4, 48, 128), (5, 2, 8, 20), (47, 2, 16, 96)];
    for (n, heads, half, head_dim) in whole.into_iter().chain(partly) {
        same_on_cuda(|device| {
            let (cos, sin) = (normal(device, (50, half), 1), normal(device, (50, half), 2));
            let positions: Vec<u32> = (0..n).map(|i| (i * 13 % 50) as u32).collect();
            let positions = device.upload(&positions).unwrap();
            let mut x = normal_activations(device, (n, head_dim * heads), 3);
            let mut dx = normal_activations(device, (n, head_dim * heads), 4);
            let (p, c, s) = (positions.view(), cos.view(), sin.view());
            rope::forward(x.view_mut(), head_dim, p, c, s).unwrap();
            rope::backward(dx.view_mut(), head_dim, p, c, s).unwrap();
            vec![("x", x), ("dx", dx)]
        });
    }
}

#[test]
fn on_cuda_a_position_past_the_table_gives_nan() {
    let Some(device) = cuda() else { return };
    let (cos, sin) = (normal(&device, (3, 8), 1), normal(&device, (3, 8), 2));
    let positions = device.upload(&[1u32, 3]).unwrap();
    let mut x = normal_activations(&device, (2, 16), 3);
    rope::forward(x.view_mut(), 16, positions.view(), cos.view(), sin.view()).unwrap();
    let x = values(&x);
    assert!(x[..16].iter().all(|v| v.is_finite()) && x[16..].iter().all(|v| v.is_nan()));
}
