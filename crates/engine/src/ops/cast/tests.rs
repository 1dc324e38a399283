//! Proofs of the casts.

use half::bf16;

use crate::dtype::DType;
use crate::error::Error;
use crate::memory::arena::Category;
use crate::ops::cast;
use crate::testing::{cpu, filled, normal, plan_takes_what_cpu_takes, same_on_cuda, tensor};

#[test]
fn narrowing_rounds_to_the_nearest_and_ties_to_even_and_widening_is_exact() {
    let device = cpu();
    // 1 + 2^-8 lies between 1 and 1 + 2^-7: a tie, to even; 1 + 3 * 2^-8 ties upwards.
    let x = tensor(&device, (1, 4), &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -2.0, 1e-40]);
    let mut narrow = device.scratch((1, 4), DType::BF16, Category::Workspace).unwrap();
    cast::forward(x.view(), narrow.view_mut()).unwrap();
    let bits: Vec<u16> = narrow.as_slice::<bf16>().iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [0x3F80, 0x3F82, 0xC000, 0x0001]);
    let mut wide = filled(&device, (1, 4), 5.0);
    cast::forward(narrow.view(), wide.view_mut()).unwrap();
    assert_eq!(wide.as_slice::<f32>()[..3], [1.0, 1.015625, -2.0]);
}

#[test]
fn a_cast_to_the_same_type_is_refused() {
    let device = cpu();
    let (x, mut y) = (normal(&device, (7, 33), 0), filled(&device, (7, 33), 0.0));
    assert!(matches!(cast::forward(x.view(), y.view_mut()), Err(Error::DType { name: "y", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let x = normal(device, (7, 33), 0);
        let mut y = device.scratch((7, 33), DType::BF16, Category::Workspace).unwrap();
        cast::forward(x.view(), y.view_mut()).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (n, c) in [(1, 1), (7, 33), (47, 64)] {
        same_on_cuda(|device| {
            let take = |dtype| device.scratch((n, c), dtype, Category::Workspace).unwrap();
            let x = normal(device, (n, c), 1);
            let (mut narrow, mut wide) = (take(DType::BF16), take(DType::F32));
            cast::forward(x.view(), narrow.view_mut()).unwrap();
            cast::forward(narrow.view(), wide.view_mut()).unwrap();
            vec![("bf16", narrow), ("f32", wide)]
        });
    }
}
