//! Proofs of the factor.

use crate::ops::scale;
use crate::testing::{
    cpu, dot, gradient_matches, normal, normal_activations, plan_takes_what_cpu_takes,
    same_on_cuda, tensor,
};

#[test]
fn every_element_is_multiplied_in_place() {
    let device = cpu();
    let mut x = tensor(&device, (2, 2), &[1., -2., 0.5, 8.]);
    scale::forward(x.view_mut(), -0.25).unwrap();
    assert_eq!(x.as_slice::<f32>(), [-0.25, 0.5, -0.125, -2.]);
}

#[test]
fn backward_matches_finite_differences() {
    let device = cpu();
    for shape in [(1, 7), (33, 47)] {
        let (x, mut dx) = (normal(&device, shape, 1), normal(&device, shape, 2));
        let dy = dx.to_vec::<f32>().unwrap();
        // The gradient goes through in place: what was there is what comes from above.
        scale::backward(dx.view_mut(), 1.75).unwrap();
        gradient_matches("dx", x.as_slice(), dx.as_slice(), |values| {
            let mut y = tensor(&device, shape, values);
            scale::forward(y.view_mut(), 1.75).unwrap();
            dot(y.as_slice(), &dy)
        });
    }
}

#[test]
fn rows_beside_those_of_a_slice_stay_as_they_are() {
    let device = cpu();
    let mut x = tensor(&device, (3, 1), &[1., 2., 3.]);
    scale::forward(x.slice_mut(1..2), 10.0).unwrap();
    assert_eq!(x.as_slice::<f32>(), [1., 20., 3.]);
}

#[test]
fn a_factor_that_is_no_number_is_refused() {
    let device = cpu();
    let mut x = normal(&device, (2, 3), 0);
    let error = scale::forward(x.view_mut(), f32::NAN).unwrap_err();
    assert!(error.to_string().starts_with("scale: a factor of NaN"), "{error}");
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let mut x = normal(device, (7, 33), 0);
        scale::forward(x.view_mut(), 2.0).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for shape in [(1, 1), (7, 33), (47, 64), (333, 7)] {
        same_on_cuda(|device| {
            let mut x = normal_activations(device, shape, 1);
            scale::forward(x.view_mut(), 0.22).unwrap();
            vec![("x", x)]
        });
    }
}
