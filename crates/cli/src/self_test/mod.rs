//! `prospect doctor --self-test`: each component of the engine against its reference, on this machine, from the
//! smallest to a whole step; on the CPU, and on the GPU where there is one.

mod components;
mod step;

use std::sync::Arc;

use ::doctor::SelfTest;
use ::doctor::cards::{self, Card};
use ::train::error::Result;
use engine::cuda::Cuda;
use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::random::Stream;
use engine::tensor::Tensor;
use half::bf16;

/// A test's own result; the engine's errors and the models' become text.
type Tested<T> = std::result::Result<T, String>;

/// A component's name and its test.
type Test = (&'static str, fn(&Bench) -> Tested<Outcome>);

/// In the order in which the later ones use the earlier ones.
const TESTS: [Test; 5] = [
    ("gemm", components::gemm),
    ("nf4", components::nf4),
    ("attention", components::attention),
    ("adamw", components::adamw),
    ("step", step::step),
];

/// What a test works on.
struct Bench {
    device: Device,
    /// The GPU's figures, where its card is known.
    card: Option<&'static Card>,
}

/// How far off a component was, and how fast.
struct Outcome {
    passed: bool,
    words: String,
    speed: Option<String>,
    share: Option<f64>,
}

impl Outcome {
    fn of(difference: f64, allowed: f64, of_what: &str) -> Outcome {
        let allowed_words = format!("{allowed:.1e}").replace(".0e", "e");
        let words = format!("off by {difference:.1e}, {allowed_words} allowed{of_what}");
        // NaN is not within anything.
        Outcome { passed: difference <= allowed, words, speed: None, share: None }
    }

    fn with_speed(self, speed: String, share: Option<f64>) -> Outcome {
        Outcome { speed: Some(speed), share, ..self }
    }
}

/// The results on the CPU, and those on the GPU if there is one.
pub(crate) fn run() -> Result<(Vec<SelfTest>, Vec<SelfTest>)> {
    let cpu = Bench { device: Device::cpu(256 << 20)?, card: None };
    let on_cpu = all(&cpu, "CPU");
    let Ok(cuda) = Cuda::open(0) else { return Ok((on_cpu, Vec::new())) };
    let card = cards::named(&cuda.properties().name).filter(|card| card.tflops > 0.0);
    match Device::on_gpu(Arc::new(cuda), 1 << 30) {
        Ok(device) => Ok((on_cpu, all(&Bench { device, card }, "GPU"))),
        Err(error) => {
            let test = SelfTest {
                component: "memory (GPU)".to_owned(),
                passed: false,
                error: error.to_string(),
                speed: None,
                share_of_peak: None,
            };
            Ok((on_cpu, vec![test]))
        }
    }
}

fn all(bench: &Bench, place: &str) -> Vec<SelfTest> {
    let test = |(component, test): &Test| {
        let outcome = test(bench).unwrap_or_else(|error| Outcome {
            passed: false,
            words: error,
            speed: None,
            share: None,
        });
        SelfTest {
            component: format!("{component} ({place})"),
            passed: outcome.passed,
            error: outcome.words,
            speed: outcome.speed,
            share_of_peak: outcome.share,
        }
    };
    TESTS.iter().map(test).collect()
}

impl Bench {
    fn on_gpu(&self) -> bool {
        self.device.arithmetic() == Kind::Cuda
    }

    /// Activations of these values: on a GPU in bf16.
    fn activations(&self, shape: (usize, usize), values: &[f32]) -> Tested<Tensor> {
        let dtype = self.device.activations();
        let tensor = self.device.scratch(shape, dtype, Category::Workspace);
        let mut tensor = tensor.map_err(words)?;
        put(&mut tensor, values)?;
        Ok(tensor)
    }

    /// Normal numbers that bf16 holds exactly, so that every device gets the same ones.
    fn normals(&self, shape: (usize, usize), stream: u64) -> Tested<Tensor> {
        self.activations(shape, &exact(&Stream::new(1, stream).normals(shape.0 * shape.1)))
    }

    /// Numbers in f32, not set.
    fn room(&self, shape: (usize, usize)) -> Tested<Tensor> {
        self.device.scratch(shape, DType::F32, Category::Workspace).map_err(words)
    }
}

/// Values that bf16 holds.
fn exact(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect()
}

fn words(error: impl ToString) -> String {
    error.to_string()
}

/// Writes values into a tensor of f32 or bf16.
fn put(tensor: &mut Tensor, values: &[f32]) -> Tested<()> {
    match tensor.dtype() {
        DType::BF16 => {
            let values: Vec<bf16> = values.iter().map(|value| bf16::from_f32(*value)).collect();
            tensor.write(&values).map_err(words)
        }
        _ => tensor.write(values).map_err(words),
    }
}

/// The values of a tensor of f32 or bf16.
fn get(tensor: &Tensor) -> Tested<Vec<f32>> {
    match tensor.dtype() {
        DType::BF16 => {
            let values: Vec<bf16> = tensor.to_vec().map_err(words)?;
            Ok(values.into_iter().map(bf16::to_f32).collect())
        }
        _ => tensor.to_vec().map_err(words),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_agrees_with_its_reference_here() {
        let (cpu, gpu) = run().expect("there is memory");
        assert_eq!(cpu.len(), TESTS.len());
        for test in cpu.iter().chain(&gpu) {
            assert!(test.passed, "{}: {}", test.component, test.error);
        }
    }

    #[test]
    fn nothing_passes_that_is_not_a_number() {
        assert!(!Outcome::of(f64::NAN, 1.0, "").passed);
    }
}
