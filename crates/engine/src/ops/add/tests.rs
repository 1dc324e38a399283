//! Proofs of the sums.

use crate::error::Error;
use crate::ops::add;
use crate::testing::{
    cpu, dot, filled, gradient_matches, normal, normal_activations, plan_takes_what_cpu_takes,
    same_on_cuda, tensor,
};

#[test]
fn sums_worked_by_hand_are_added_to_what_is_there() {
    let device = cpu();
    let mut y = tensor(&device, (2, 2), &[1., 2., 3., 4.]);
    add::forward(tensor(&device, (2, 2), &[10., 20., 30., 40.]).view(), y.view_mut()).unwrap();
    assert_eq!(y.as_slice::<f32>(), [11., 22., 33., 44.]);
    add::bias(tensor(&device, (2, 1), &[100., 200.]).view(), y.view_mut()).unwrap();
    assert_eq!(y.as_slice::<f32>(), [111., 222., 133., 244.]);
    let mut dbias = filled(&device, (2, 1), 0.5);
    add::bias_backward(y.view(), dbias.view_mut()).unwrap();
    assert_eq!(dbias.as_slice::<f32>(), [244.5, 466.5]);
}

#[test]
fn the_bias_gradient_matches_finite_differences() {
    let device = cpu();
    for (n, c) in [(1, 7), (33, 130), (47, 1)] {
        let (bias, dy) = (normal(&device, (c, 1), 1), normal(&device, (n, c), 2));
        let mut dbias = filled(&device, (c, 1), 0.0);
        add::bias_backward(dy.view(), dbias.view_mut()).unwrap();
        gradient_matches("dbias", bias.as_slice(), dbias.as_slice(), |values| {
            let mut y = filled(&device, (n, c), 1.0);
            add::bias(tensor(&device, (c, 1), values).view(), y.view_mut()).unwrap();
            dot(y.as_slice(), dy.as_slice())
        });
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let device = cpu();
    let mut y = filled(&device, (2, 3), 0.0);
    let x = normal(&device, (3, 2), 0);
    assert!(matches!(add::forward(x.view(), y.view_mut()), Err(Error::Shape { name: "x", .. })));
    assert!(matches!(add::bias(x.view(), y.view_mut()), Err(Error::Shape { name: "bias", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (x, mut y, mut bias) =
            (normal(device, (7, 33), 0), normal(device, (7, 33), 1), normal(device, (33, 1), 2));
        add::forward(x.view(), y.view_mut()).unwrap();
        add::bias(bias.view(), y.view_mut()).unwrap();
        add::bias_backward(y.view(), bias.view_mut()).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (n, c) in [(1, 1), (7, 33), (47, 64), (333, 7)] {
        same_on_cuda(|device| {
            let (x, mut y) =
                (normal_activations(device, (n, c), 1), normal_activations(device, (n, c), 2));
            add::forward(x.view(), y.view_mut()).unwrap();
            let (b, mut biased) =
                (normal(device, (c, 1), 3), normal_activations(device, (n, c), 4));
            add::bias(b.view(), biased.view_mut()).unwrap();
            let mut dbias = normal(device, (c, 1), 5);
            add::bias_backward(x.view(), dbias.view_mut()).unwrap();
            vec![("y", y), ("biased", biased), ("dbias", dbias)]
        });
    }
}
