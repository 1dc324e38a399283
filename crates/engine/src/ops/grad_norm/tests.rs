//! Proofs of the gradient norm.

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::memory::arena::Category;
use crate::ops::grad_norm;
use crate::testing::{cpu, cuda, normal, plan_takes_what_cpu_takes, tensor};

#[test]
fn a_norm_worked_by_hand_is_clipped_as_torch_clips_it() {
    let device = cpu();
    let gradient = tensor(&device, (1, 2), &[3.0, 4.0]);
    let norm = grad_norm::sum_of_squares(&[gradient.view()]).unwrap().sqrt();
    assert_eq!(norm, 5.0);
    assert_eq!(grad_norm::clip_factor(norm, 10.0), 1.0);
    let factor = grad_norm::clip_factor(norm, 1.0);
    assert_eq!(factor, (1.0 / 5.000001f64) as f32);
}

#[test]
fn the_sum_is_that_of_f64_for_any_number_of_threads() {
    let sum = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| grad_norm::sum_of_squares(&[normal(&cpu(), (333, 147), 5).view()]).unwrap())
    };
    let exact: f64 =
        normal(&cpu(), (333, 147), 5).as_slice::<f32>().iter().map(|g| f64::from(*g).powi(2)).sum();
    assert!((sum(1) - exact).abs() < 1e-9 * exact);
    assert_eq!(sum(1).to_bits(), sum(3).to_bits());
}

#[test]
fn a_gradient_that_is_not_finite_shows_in_the_norm() {
    let device = cpu();
    let gradient = tensor(&device, (1, 3), &[1.0, f32::NAN, 2.0]);
    assert!(grad_norm::sum_of_squares(&[gradient.view()]).unwrap().is_nan());
}

#[test]
fn codes_are_refused() {
    let device = Device::plan_for(Kind::Cpu);
    let codes = device.scratch((3, 1), DType::U8, Category::Workspace).unwrap();
    assert!(grad_norm::sum_of_squares(&[codes.view()]).is_err());
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let gradient = normal(device, (7, 33), 0);
        grad_norm::sum_of_squares(&[gradient.view()]).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    let Some(gpu) = cuda() else { return };
    let sum = |device: &Device| {
        // 201 tensors: more than one launch is told of.
        let gradients: Vec<_> = [(1, 1), (7, 33), (333, 47)]
            .into_iter()
            .cycle()
            .take(201)
            .enumerate()
            .map(|(i, shape)| normal(device, shape, i as u64))
            .collect();
        let views: Vec<_> = gradients.iter().map(|gradient| gradient.view()).collect();
        grad_norm::sum_of_squares(&views).unwrap()
    };
    let (exact, ours) = (sum(&cpu()), sum(&gpu));
    assert!((ours - exact).abs() < 1e-9 * exact, "{ours} {exact}");
    assert_eq!(ours.to_bits(), sum(&gpu).to_bits());
}
