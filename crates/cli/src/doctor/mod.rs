//! `prospect doctor`: what the engine and the planner tell of this machine, handed to the doctor as facts.

mod fetch;

use std::time::Instant;

use ::doctor::cli::run_doctor_with;
use ::doctor::prospect::{Engine, Opened, SelfTest, Size, gib};
use ::train::error::Result;
use engine::cuda::{self, Cuda, Library};
use engine::device::Device;
use engine::dtype::DType;
use engine::error::{Error, Result as FromEngine};
use engine::memory::arena::Category;
use engine::ops::matmul::{self, Output};

use crate::args;
use crate::ending::Done;
use crate::self_test;

/// The doctor, with what the engine says, and the self-test's results where they were asked for.
pub(crate) fn run(arguments: &args::Doctor) -> Result<Done> {
    if arguments.fetch.is_some() {
        return fetch::cublas(&arguments.doctor);
    }
    if arguments.doctor.explain.is_some() {
        return Ok(Done::Answered(run_doctor_with(
            &arguments.doctor,
            Engine::default(),
            &mut std::io::stdout(),
        )));
    }
    let mut told = Engine::default();
    if arguments.doctor.is_here() {
        told.gpu = gpu(arguments.self_test, &mut told.self_tests);
        if arguments.self_test {
            let (cpu, gpu) = self_test::run()?;
            told.self_tests.extend(cpu);
            told.self_tests.extend(gpu);
        }
    }
    if !matches!(told.gpu, Some(Ok(_))) {
        told.sizes = sizes()?;
        told.assumption = planner::sizes::ASSUMPTION.to_owned();
        if arguments.doctor.is_here() {
            told.cpu_flops = cpu_flops().ok();
        }
    }
    let code = run_doctor_with(&arguments.doctor, told, &mut std::io::stdout());
    Ok(Done::Answered(code))
}

/// Opens the GPU as training would, if there is one, and lets the driver compile kernels: one file of them, or all for
/// the self-test.
fn gpu(all: bool, tests: &mut Vec<SelfTest>) -> Option<std::result::Result<Opened, String>> {
    let start = Instant::now();
    let cuda = match Cuda::open(0) {
        Ok(cuda) => cuda,
        // The machine's own part of the page says why: no driver, an old one, an old card.
        Err(Error::NoGpu { .. }) => return None,
        Err(error) => return Some(Err(first_line(&error.to_string()))),
    };
    let open_seconds = start.elapsed().as_secs_f64();
    let driver = cuda.properties().driver.0;
    let compiled = cuda.compile(all);
    if let (true, Ok(compiled)) = (all, &compiled) {
        tests.push(SelfTest {
            component: "kernels (GPU)".to_owned(),
            passed: true,
            error: format!(
                "the driver compiled {} kernels of {} files in {:.1} s, and keeps them",
                compiled.kernels, compiled.modules, compiled.seconds
            ),
            speed: None,
            share_of_peak: None,
        });
    }
    let told = |library: Library| (library.version, library.path.display().to_string());
    let (modules, kernels) = compiled.as_ref().map_or((0, 0), |c| (c.modules, c.kernels));
    Some(Ok(Opened {
        open_seconds,
        modules,
        kernels,
        compiled: compiled.map(|c| c.seconds).map_err(|error| first_line(&error.to_string())),
        cublaslt: cuda.gemm().library().map(told).map_err(str::to_owned),
        places: cuda::cublaslt_places(driver),
        nccl: several_gpus().then(|| cuda::nccl(driver).map(told)),
    }))
}

/// Only then NCCL is looked for: loading it takes a moment.
fn several_gpus() -> bool {
    std::fs::read_dir("/proc/driver/nvidia/gpus").is_ok_and(|folder| folder.count() > 1)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// What models of published shapes take, as the planner has it.
fn sizes() -> Result<Vec<Size>> {
    let size = |size: planner::sizes::Size| Size {
        name: size.name.to_owned(),
        billions: size.parameters as f64 / 1e9,
        cpu_gib: gib(size.cpu_bytes),
        gpu_gib: gib(size.gpu_bytes),
        flops_per_token: size.flops_per_rated_token,
    };
    Ok(planner::sizes::sizes()?.into_iter().map(size).collect())
}

/// The speed of matrix products on this CPU, from the best of a few of 0.3 GFLOP.
fn cpu_flops() -> FromEngine<f64> {
    const N: usize = 512;
    let device = Device::cpu(8 << 20)?;
    let take = || device.scratch((N, N), DType::F32, Category::Workspace);
    let (mut x, mut weight, mut y) = (take()?, take()?, take()?);
    x.write(&vec![0.5f32; N * N])?;
    weight.write(&vec![0.25f32; N * N])?;
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let start = Instant::now();
        matmul::forward(x.view(), weight.view(), 1.0, Output::Write, y.view_mut())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (N * N * N) as f64 / best)
}
