//! Proofs of DoRA.

use crate::error::Error;
use crate::ops::dora;
use crate::testing::{
    cpu, dot, filled, filled_activations, gradient_matches, normal, normal_activations,
    plan_takes_what_cpu_takes, same_on_cuda, tensor,
};

#[test]
fn lengths_and_scales_worked_by_hand_come_out() {
    let device = cpu();
    // W + 2 B A has the rows (3, 4) and (6, 8).
    let weight = tensor(&device, (2, 2), &[1.0, 4.0, 6.0, 0.0]);
    let (a, b) =
        (tensor(&device, (2, 2), &[1., 0., 0., 2.]), tensor(&device, (2, 2), &[1., 0., 0., 2.]));
    let mut norm = filled(&device, (2, 1), 7.0);
    dora::row_norms(weight.view(), a.view(), b.view(), 2.0, norm.view_mut()).unwrap();
    assert_eq!(norm.as_slice::<f32>(), [5.0, 10.0]);

    let magnitude = tensor(&device, (2, 1), &[10.0, 5.0]);
    let mut y = tensor(&device, (2, 2), &[1., 2., 3., 4.]);
    dora::forward(y.view_mut(), magnitude.view(), norm.view()).unwrap();
    assert_eq!(y.as_slice::<f32>(), [2.0, 1.0, 6.0, 2.0]);

    // Onto dirty buffers: du is overwritten, dmagnitude is added to.
    let (dy, u) =
        (tensor(&device, (2, 2), &[1., 1., 2., -1.]), tensor(&device, (2, 2), &[1., 2., 3., 4.]));
    let (mut du, mut dmagnitude) = (filled(&device, (2, 2), 9.0), filled(&device, (2, 1), 0.5));
    dora::backward(
        dy.view(),
        u.view(),
        magnitude.view(),
        norm.view(),
        du.view_mut(),
        dmagnitude.view_mut(),
    )
    .unwrap();
    assert_eq!(du.as_slice::<f32>(), [2.0, 0.5, 4.0, -0.5]);
    assert_eq!(dmagnitude.as_slice::<f32>(), [0.5 + 7.0 / 5.0, 0.5 - 2.0 / 10.0]);
}

#[test]
fn gradients_match_finite_differences() {
    let device = cpu();
    for (n, m) in [(1, 1), (7, 33), (47, 130)] {
        let (u, dy, magnitude) =
            (normal(&device, (n, m), 1), normal(&device, (n, m), 2), normal(&device, (m, 1), 3));
        let mut norm = normal(&device, (m, 1), 4);
        norm.as_mut_slice::<f32>().iter_mut().for_each(|norm| *norm = norm.abs() + 0.5);
        let (mut du, mut dmagnitude) = (filled(&device, (n, m), 3.0), filled(&device, (m, 1), 0.0));
        dora::backward(
            dy.view(),
            u.view(),
            magnitude.view(),
            norm.view(),
            du.view_mut(),
            dmagnitude.view_mut(),
        )
        .unwrap();
        let loss = |u: &[f32], magnitude: &[f32]| {
            let mut y = tensor(&device, (n, m), u);
            let magnitude = tensor(&device, (m, 1), magnitude);
            dora::forward(y.view_mut(), magnitude.view(), norm.view()).unwrap();
            dot(y.as_slice(), dy.as_slice())
        };
        gradient_matches("du", u.as_slice(), du.as_slice(), |u| loss(u, magnitude.as_slice()));
        gradient_matches("dmagnitude", magnitude.as_slice(), dmagnitude.as_slice(), |magnitude| {
            loss(u.as_slice(), magnitude)
        });
    }
}

#[test]
fn lengths_in_more_tiles_than_one_are_those_of_the_sum() {
    let device = cpu();
    let (m, k, r) = (dora::TILE_ROWS + 33, 47, 7);
    let (weight, a, b) =
        (normal(&device, (m, k), 1), normal(&device, (r, k), 2), normal(&device, (m, r), 3));
    let mut norm = filled(&device, (m, 1), -1.0);
    dora::row_norms(weight.view(), a.view(), b.view(), 0.5, norm.view_mut()).unwrap();
    let (weight, a, b) = (weight.as_slice::<f32>(), a.as_slice::<f32>(), b.as_slice::<f32>());
    for (j, norm) in norm.as_slice::<f32>().iter().enumerate() {
        let element = |i: usize| {
            let update = (0..r).map(|l| f64::from(b[j * r + l]) * f64::from(a[l * k + i]));
            f64::from(weight[j * k + i]) + 0.5 * update.sum::<f64>()
        };
        let exact = (0..k).map(|i| element(i).powi(2)).sum::<f64>().sqrt();
        assert!((f64::from(*norm) - exact).abs() < 1e-5 * exact, "row {j}: {norm}, not {exact}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let device = cpu();
    let (two, three) = (filled(&device, (2, 1), 1.0), filled(&device, (3, 1), 1.0));
    let (mut y, mut norm) = (filled(&device, (4, 3), 1.0), filled(&device, (3, 1), 1.0));
    let refused = dora::forward(y.view_mut(), two.view(), three.view());
    assert!(matches!(refused, Err(Error::Shape { name: "magnitude", .. })));
    let (weight, a, b) =
        (normal(&device, (3, 4), 0), normal(&device, (2, 4), 1), normal(&device, (3, 3), 2));
    let refused = dora::row_norms(weight.view(), a.view(), b.view(), 1.0, norm.view_mut());
    assert!(matches!(refused, Err(Error::Shape { name: "b", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (weight, a, b) =
            (normal(device, (600, 33), 0), normal(device, (7, 33), 1), normal(device, (600, 7), 2));
        let (mut norm, magnitude) = (filled(device, (600, 1), 0.0), filled(device, (600, 1), 1.0));
        dora::row_norms(weight.view(), a.view(), b.view(), 1.0, norm.view_mut()).unwrap();
        let (mut y, dy) = (normal(device, (5, 600), 3), normal(device, (5, 600), 4));
        dora::forward(y.view_mut(), magnitude.view(), norm.view()).unwrap();
        let (mut du, mut dmagnitude) =
            (filled(device, (5, 600), 0.0), filled(device, (600, 1), 0.0));
        dora::backward(
            dy.view(),
            y.view(),
            magnitude.view(),
            norm.view(),
            du.view_mut(),
            dmagnitude.view_mut(),
        )
        .unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (n, m, k, r) in [(1, 1, 1, 1), (7, 33, 47, 4), (333, 600, 130, 16)] {
        same_on_cuda(|device| {
            let (weight, a, b) = (
                normal_activations(device, (m, k), 1),
                normal_activations(device, (r, k), 2),
                normal_activations(device, (m, r), 3),
            );
            let (mut norm, magnitude) = (normal(device, (m, 1), 4), normal(device, (m, 1), 5));
            dora::row_norms(weight.view(), a.view(), b.view(), 0.5, norm.view_mut()).unwrap();
            let (mut y, dy) =
                (normal_activations(device, (n, m), 6), normal_activations(device, (n, m), 7));
            let u = normal_activations(device, (n, m), 8);
            dora::forward(y.view_mut(), magnitude.view(), norm.view()).unwrap();
            let (mut du, mut dmagnitude) =
                (filled_activations(device, (n, m), 0.0), normal(device, (m, 1), 9));
            dora::backward(
                dy.view(),
                u.view(),
                magnitude.view(),
                norm.view(),
                du.view_mut(),
                dmagnitude.view_mut(),
            )
            .unwrap();
            vec![("norm", norm), ("y", y), ("du", du), ("dmagnitude", dmagnitude)]
        });
    }
}
