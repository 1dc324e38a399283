//! How ops are proved, for the tests in their rooms: gradients against finite differences, errors measured
//! against f64.

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::memory::arena::Category;
use crate::random::Stream;
use crate::tensor::Tensor;

/// A CPU device with room for any test, and some beside it.
pub fn cpu() -> Device {
    let device = Device::cpu(1 << 28).and_then(|device| device.with_host(1 << 24));
    device.expect("the pages are only taken when touched")
}

/// A GPU with room for any test, or none where there is no GPU: then the test is skipped, aloud, unless
/// PROSPECT_GPU_TESTS says that there must be one.
pub fn cuda() -> Option<Device> {
    static GPU: std::sync::OnceLock<Option<std::sync::Arc<crate::cuda::Cuda>>> =
        std::sync::OnceLock::new();
    let gpu = GPU.get_or_init(|| match crate::cuda::Cuda::open(0) {
        Ok(cuda) => Some(std::sync::Arc::new(cuda)),
        Err(error) if std::env::var_os("PROSPECT_GPU_TESTS").is_some() => {
            panic!("PROSPECT_GPU_TESTS is set, and {error}")
        }
        Err(_) => None,
    });
    let Some(gpu) = gpu else {
        // A test's own output, not a library's.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: no GPU");
        }
        return None;
    };
    Some(Device::on_gpu(gpu.clone(), 1 << 30).expect("a gibibyte of the GPU's memory is free"))
}

/// `values` rounded to bf16, as f32: what a GPU's activations can hold.
pub fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect()
}

/// A tensor of `values` in the device's activations.
pub fn activations(device: &Device, shape: (usize, usize), values: &[f32]) -> Tensor {
    let mut tensor =
        device.scratch(shape, device.activations(), Category::Workspace).expect("tests are small");
    let written = match device.activations() {
        DType::BF16 => {
            let values: Vec<_> = values.iter().map(|v| half::bf16::from_f32(*v)).collect();
            tensor.write(&values)
        }
        _ => tensor.write(values),
    };
    written.expect("a copy to the device");
    tensor
}

/// The elements of a tensor of f32 or bf16, as f32.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::BF16 => {
            let values: Vec<half::bf16> = tensor.to_vec().expect("a copy from the device");
            values.into_iter().map(half::bf16::to_f32).collect()
        }
        _ => tensor.to_vec().expect("a copy from the device"),
    }
}

/// Runs `op` on the CPU and on a GPU, if there is one, over the same inputs, rounded to bf16, and asserts that the GPU's
/// results are as good as the CPU's rounded to bf16. `op` returns what it computed, each by name.
pub fn same_on_cuda(op: impl Fn(&Device) -> Vec<(&'static str, Tensor)>) {
    let Some(gpu) = cuda() else { return };
    let (exact, ours) = (op(&cpu()), op(&gpu));
    for ((name, exact), (_, ours)) in exact.iter().zip(&ours) {
        let (exact, ours) = (values(exact), values(ours));
        as_good_as(name, &ours, &rounded(&exact), &exact);
    }
    let again = op(&gpu);
    for ((name, first), (_, second)) in ours.iter().zip(&again) {
        let bits = |tensor| values(tensor).iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        assert!(bits(first) == bits(second), "{name}: two runs differ");
    }
}

/// Activations of normal numbers, rounded to bf16 on every device, other ones for each `stream`.
pub fn normal_activations(device: &Device, shape: (usize, usize), stream: u64) -> Tensor {
    activations(device, shape, &rounded(&Stream::new(42, stream).normals(shape.0 * shape.1)))
}

/// Activations of which every element is `value`.
pub fn filled_activations(device: &Device, shape: (usize, usize), value: f32) -> Tensor {
    activations(device, shape, &vec![value; shape.0 * shape.1])
}

/// Asserts that `ours`, computed in bf16 storage, is at most twice as far from `exact` as `naive` is, the same formula
/// in the same storage: in the largest error and in the mean, with one rounding of the largest value to spare where the
/// naive formula happens to be exact.
pub fn as_good_as(name: &str, ours: &[f32], naive: &[f32], exact: &[f32]) {
    assert_eq!((ours.len(), naive.len()), (exact.len(), exact.len()), "{name}: lengths differ");
    let largest = exact.iter().fold(0f32, |max, x| max.max(x.abs()));
    let errors = |values: &[f32]| {
        let each = values.iter().zip(exact).map(|(a, b)| f64::from((a - b).abs()));
        let (mut worst, mut sum) = (0f64, 0f64);
        for error in each {
            // NaN is the worst error there is.
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
            sum += error;
        }
        (worst, sum / values.len().max(1) as f64)
    };
    let ((worst, mean), (naive_worst, naive_mean)) = (errors(ours), errors(naive));
    let spare = f64::from(largest) / 256.0;
    assert!(
        worst <= 2.0 * naive_worst + spare && mean <= 2.0 * naive_mean + spare / 16.0,
        "{name}: largest error {worst}, mean {mean}; of the naive formula {naive_worst}, {naive_mean}"
    );
}

/// A tensor of `values`.
pub fn tensor(device: &Device, shape: (usize, usize), values: &[f32]) -> Tensor {
    let mut tensor =
        device.scratch(shape, DType::F32, Category::Workspace).expect("tests are small");
    tensor.write(values).expect("a copy to the device");
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
    let (plan, cpu) = (Device::plan_for(Kind::Cpu), cpu());
    body(&plan);
    body(&cpu);
    assert_eq!(plan.peak_bytes(), cpu.peak_bytes(), "peak bytes on plan and on the CPU");
    assert_eq!(plan.peak_by_category(), cpu.peak_by_category());
    assert_eq!(plan.host().peak_bytes(), cpu.host().peak_bytes(), "peak bytes beside them");
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
        // What f32 leaves of a difference of two large values.
        let noise = f64::from(f32::EPSILON) * at(0.0).abs() / h;
        assert!(
            (difference - product).abs() <= 4e-3 * scale + noise,
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
