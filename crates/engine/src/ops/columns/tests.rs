//! Proofs of columns taken and put back.

use crate::error::Error;
use crate::ops::columns;
use crate::testing::{
    cpu, dot, filled, filled_activations, gradient_matches, normal, normal_activations,
    plan_takes_what_cpu_takes, same_on_cuda, tensor,
};

#[test]
fn two_of_four_columns_worked_by_hand() {
    let device = cpu();
    let wide = tensor(&device, (2, 4), &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let mut part = filled(&device, (2, 2), 9.0);
    columns::take(wide.view(), 1, part.view_mut()).unwrap();
    assert_eq!(part.as_slice::<f32>(), [2., 3., 6., 7.]);
    // Columns beside those that are put stay as they are.
    let mut dirty = filled(&device, (2, 4), 0.5);
    columns::put(part.view(), 2, dirty.view_mut()).unwrap();
    assert_eq!(dirty.as_slice::<f32>(), [0.5, 0.5, 2., 3., 0.5, 0.5, 6., 7.]);
}

#[test]
fn the_backward_of_either_is_the_other() {
    let device = cpu();
    let (n, width, start, cols) = (7, 47, 13, 33);
    let (wide, dpart) = (normal(&device, (n, width), 1), normal(&device, (n, cols), 2));
    let mut dwide = filled(&device, (n, width), 0.0);
    columns::put(dpart.view(), start, dwide.view_mut()).unwrap();
    gradient_matches("dwide", wide.as_slice(), dwide.as_slice(), |values| {
        let mut part = filled(&device, (n, cols), 3.0);
        columns::take(tensor(&device, (n, width), values).view(), start, part.view_mut()).unwrap();
        dot(part.as_slice(), dpart.as_slice())
    });
    let mut taken = filled(&device, (n, cols), 3.0);
    columns::take(wide.view(), start, taken.view_mut()).unwrap();
    gradient_matches("dpart", dpart.as_slice(), taken.as_slice(), |values| {
        let mut whole = filled(&device, (n, width), 0.0);
        columns::put(tensor(&device, (n, cols), values).view(), start, whole.view_mut()).unwrap();
        dot(whole.as_slice(), wide.as_slice())
    });
}

#[test]
fn columns_past_the_matrix_and_other_rows_are_refused() {
    let device = cpu();
    let wide = normal(&device, (2, 5), 0);
    let mut part = filled(&device, (2, 3), 0.0);
    let error = columns::take(wide.view(), 3, part.view_mut()).unwrap_err();
    assert!(error.to_string().starts_with("columns: 3 columns from 3 on, of 5"), "{error}");
    assert!(columns::take(wide.view(), usize::MAX, part.view_mut()).is_err());
    let mut rows = filled(&device, (3, 3), 0.0);
    let got = columns::take(wide.view(), 0, rows.view_mut());
    assert!(matches!(got, Err(Error::Shape { .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (mut wide, mut part) = (normal(device, (7, 33), 0), normal(device, (7, 16), 1));
        columns::take(wide.view(), 17, part.view_mut()).unwrap();
        columns::put(part.view(), 0, wide.view_mut()).unwrap();
    });
}

#[test]
fn on_cuda_it_moves_what_the_cpu_does() {
    for (n, width, start, cols) in
        [(1, 1, 0, 1), (7, 47, 13, 33), (33, 96, 32, 64), (47, 24, 16, 8)]
    {
        same_on_cuda(|device| {
            let mut wide = normal_activations(device, (n, width), 1);
            let mut part = filled_activations(device, (n, cols), 7.0);
            columns::take(wide.view(), start, part.view_mut()).unwrap();
            let other = normal_activations(device, (n, cols), 2);
            columns::put(other.view(), start, wide.view_mut()).unwrap();
            vec![("part", part), ("wide", wide)]
        });
    }
}
