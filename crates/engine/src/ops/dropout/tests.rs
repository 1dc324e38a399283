//! Proofs of dropout.

use crate::error::Error;
use crate::ops::dropout::{self, Mask};
use crate::testing::{
    assert_close, cpu, dot, filled, filled_activations, gradient_matches, normal,
    normal_activations, plan_takes_what_cpu_takes, same_on_cuda, tensor,
};

const MASK: Mask = Mask { seed: 5, stream: 9, p: 0.25 };

#[test]
fn a_quarter_is_dropped_and_the_rest_grows_by_a_third() {
    let device = cpu();
    let mut y = filled(&device, (100, 101), 7.0);
    dropout::forward(filled(&device, (100, 101), 3.0).view(), MASK, y.view_mut()).unwrap();
    let values: &[f32] = y.as_slice();
    assert!(values.iter().all(|v| *v == 0.0 || *v == 4.0));
    let dropped = values.iter().filter(|v| **v == 0.0).count();
    assert!((2300..2750).contains(&dropped), "{dropped} of 10100 dropped");
    let mut other = filled(&device, (100, 101), 0.0);
    dropout::forward(
        filled(&device, (100, 101), 3.0).view(),
        Mask { stream: 10, ..MASK },
        other.view_mut(),
    )
    .unwrap();
    assert_ne!(values, other.as_slice::<f32>());
}

#[test]
fn backward_matches_finite_differences_and_adds_to_what_is_there() {
    let device = cpu();
    let shape = (33, 47);
    let (x, dy) = (normal(&device, shape, 1), normal(&device, shape, 2));
    let mut dx = filled(&device, shape, 2.0);
    dropout::backward(dy.view(), MASK, dx.view_mut()).unwrap();
    let clean: Vec<f32> = dx.as_slice::<f32>().iter().map(|d| d - 2.0).collect();
    gradient_matches("dx", x.as_slice(), &clean, |values| {
        let mut y = filled(&device, shape, 0.0);
        dropout::forward(tensor(&device, shape, values).view(), MASK, y.view_mut()).unwrap();
        dot(y.as_slice(), dy.as_slice())
    });
}

#[test]
fn a_chance_of_zero_changes_nothing() {
    let device = cpu();
    let x = normal(&device, (7, 33), 1);
    let mut y = filled(&device, (7, 33), 0.0);
    dropout::forward(x.view(), Mask { p: 0.0, ..MASK }, y.view_mut()).unwrap();
    assert_close("y", y.as_slice(), x.as_slice(), 0.0);
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let device = cpu();
    let mut y = filled(&device, (2, 3), 0.0);
    let got = dropout::forward(normal(&device, (3, 2), 0).view(), MASK, y.view_mut());
    assert!(matches!(got, Err(Error::Shape { name: "x", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let mut y = normal(device, (7, 33), 0);
        dropout::forward(normal(device, (7, 33), 1).view(), MASK, y.view_mut()).unwrap();
    });
}

#[test]
fn on_cuda_it_draws_what_the_cpu_draws() {
    for (n, c) in [(1, 1), (7, 33), (47, 64)] {
        same_on_cuda(|device| {
            let mask = Mask { seed: 0x1234_5678_9abc, stream: 5 << 33, p: 0.3 };
            let x = normal_activations(device, (n, c), 1);
            let mut y = filled_activations(device, (n, c), 7.0);
            let mut dx = normal_activations(device, (n, c), 2);
            dropout::forward(x.view(), mask, y.view_mut()).unwrap();
            dropout::backward(x.view(), mask, dx.view_mut()).unwrap();
            vec![("y", y), ("dx", dx)]
        });
    }
}
