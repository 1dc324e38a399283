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
    rope::forward(x.view_mut(), positions.view(), cos.view(), sin.view()).unwrap();
    assert_eq!(x.as_slice::<f32>(), [-3., -4., 1., 2., -7., -8., 5., 6.]);
    rope::backward(x.view_mut(), positions.view(), cos.view(), sin.view()).unwrap();
    assert_close("turned back", x.as_slice(), &[1., 2., 3., 4., 5., 6., 7., 8.], 0.0);
}

#[test]
fn backward_matches_finite_differences() {
    let device = cpu();
    let (n, heads, half) = (33, 3, 7);
    let shape = (n, heads * 2 * half);
    let (cos, sin) = tables(&device, 47, half);
    let positions: Vec<u32> = (0..n).map(|i| (i * 5 % 47) as u32).collect();
    let positions = device.upload(&positions).unwrap();
    let (x, dy) = (normal(&device, shape, 1), normal(&device, shape, 2));
    let mut dx = tensor(&device, shape, dy.as_slice());
    rope::backward(dx.view_mut(), positions.view(), cos.view(), sin.view()).unwrap();
    gradient_matches("dx", x.as_slice(), dx.as_slice(), |values| {
        let mut y = tensor(&device, shape, values);
        rope::forward(y.view_mut(), positions.view(), cos.view(), sin.view()).unwrap();
        dot(y.as_slice(), dy.as_slice())
    });
}

#[test]
fn a_position_past_the_table_and_an_odd_head_are_refused() {
    let device = cpu();
    let (cos, sin) = tables(&device, 4, 2);
    let positions = device.upload(&[4u32]).unwrap();
    let mut x = normal(&device, (1, 8), 0);
    let error = rope::forward(x.view_mut(), positions.view(), cos.view(), sin.view()).unwrap_err();
    assert!(
        error.to_string().starts_with("rope: position 4 is past the last position 3"),
        "{error}"
    );
    let mut odd = normal(&device, (1, 6), 0);
    assert!(rope::forward(odd.view_mut(), positions.view(), cos.view(), sin.view()).is_err());
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (cos, sin) = tables(device, 4, 2);
        let positions = device.upload(&[3u32; 7]).unwrap();
        let mut x = normal(device, (7, 8), 0);
        rope::forward(x.view_mut(), positions.view(), cos.view(), sin.view()).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (n, heads, half) in [(1, 1, 1), (7, 3, 5), (33, 4, 32), (47, 2, 64)] {
        same_on_cuda(|device| {
            let (cos, sin) = (normal(device, (50, half), 1), normal(device, (50, half), 2));
            let positions: Vec<u32> = (0..n).map(|i| (i * 13 % 50) as u32).collect();
            let positions = device.upload(&positions).unwrap();
            let mut x = normal_activations(device, (n, 2 * half * heads), 3);
            let mut dx = normal_activations(device, (n, 2 * half * heads), 4);
            let (p, c, s) = (positions.view(), cos.view(), sin.view());
            rope::forward(x.view_mut(), p, c, s).unwrap();
            rope::backward(dx.view_mut(), p, c, s).unwrap();
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
    rope::forward(x.view_mut(), positions.view(), cos.view(), sin.view()).unwrap();
    let x = values(&x);
    assert!(x[..16].iter().all(|v| v.is_finite()) && x[16..].iter().all(|v| v.is_nan()));
}
