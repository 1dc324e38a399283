//! How ops are proved, for the tests in their rooms: gradients against finite differences, errors measured
//! against f64.

use crate::device::Device;
use crate::dtype::DType;
use crate::memory::arena::Category;
use crate::random::Stream;
use crate::tensor::Tensor;

/// A CPU device with room for any test.
pub fn cpu() -> Device {
    Device::cpu(1 << 28).expect("the pages are only taken when touched")
}

/// A tensor of `values`.
pub fn tensor(device: &Device, shape: (usize, usize), values: &[f32]) -> Tensor {
    let mut tensor =
        device.scratch(shape, DType::F32, Category::Workspace).expect("tests are small");
    if !device.is_plan() {
        tensor.as_mut_slice::<f32>().copy_from_slice(values);
    }
    tensor
}

/// A tensor of standard normal numbers, other ones for each `stream`.
pub fn normal(device: &Device, shape: (usize, usize), stream: u64) -> Tensor {
    tensor(device, shape, &Stream::new(42, stream).normals(shape.0 * shape.1))
}

/// A tensor whose every element is `value`: dirt that an op has to overwrite or add to.
pub fn filled(device: &Device, shape: (usize, usize), value: f32) -> Tensor {
    tensor(device, shape, &vec![value; shape.0 * shape.1])
}

/// `sum_i direction_i y_i` in f64: the scalar whose gradient with respect to y is `direction`.
pub fn dot(y: &[f32], direction: &[f32]) -> f64 {
    y.iter().zip(direction).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum()
}

/// Runs `body` on `plan` and on `cpu` and asserts that both took the same bytes of their arenas, by category.
pub fn plan_takes_what_cpu_takes(body: impl Fn(&Device)) {
    let (plan, cpu) = (Device::plan_for(crate::device::Kind::Cpu), cpu());
    body(&plan);
    body(&cpu);
    assert_eq!(plan.peak_bytes(), cpu.peak_bytes(), "peak bytes on plan and on the CPU");
    assert_eq!(plan.peak_by_category(), cpu.peak_by_category());
    assert!(plan.ledger().total().traffic > 0.0, "the op booked no work");
}

/// Checks a gradient of a scalar function by the fourth-order central difference in a random direction:
/// `(8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h` against `gradient . direction`. `f` must be evaluated in
/// f32 over a smooth region around `x`.
pub fn gradient_matches(name: &str, x: &[f32], gradient: &[f32], mut f: impl FnMut(&[f32]) -> f64) {
    assert_eq!(x.len(), gradient.len(), "{name}: a gradient has the length of its input");
    let h = 1e-2;
    for stream in 0..3 {
        let direction = Stream::new(99, stream).normals(x.len());
        let norm = direction.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-12);
        let mut at = |step: f64| {
            let moved: Vec<f32> = x
                .iter()
                .zip(&direction)
                .map(|(x, d)| (f64::from(*x) + step * f64::from(*d) / norm) as f32)
                .collect();
            f(&moved)
        };
        let difference = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        let product: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(g, d)| f64::from(*g) * f64::from(*d) / norm)
            .sum();
        let size: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let scale = size / (x.len() as f64).sqrt() + product.abs() + 1e-2;
        assert!(
            (difference - product).abs() <= 4e-3 * scale,
            "{name}: finite difference {difference}, gradient {product} (stream {stream})"
        );
    }
}

/// Asserts that two slices agree within `tolerance`, and names the worst element where they do not.
pub fn assert_close(name: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{name}: lengths differ");
    let worst = ours
        .iter()
        .zip(theirs)
        .enumerate()
        .map(|(i, (a, b))| (i, if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() }))
        .fold((0, 0.0), |worst, at| if at.1 > worst.1 { at } else { worst });
    assert!(
        worst.1 <= tolerance,
        "{name}: element {} is {}, expected {} (off by {}, allowed {tolerance})",
        worst.0,
        ours[worst.0],
        theirs[worst.0],
        worst.1
    );
}
