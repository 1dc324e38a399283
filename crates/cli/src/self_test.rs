//! `prospect doctor --self-test`: each component of the engine against its reference, on this machine, from the
//! smallest to a whole step.

use std::time::Instant;

use ::doctor::SelfTest;
use ::doctor::cli::run_doctor_with;
use ::train::error::Result;
use engine::device::Device;
use engine::dtype::DType;
use engine::error::Result as Engine;
use engine::memory::arena::Category;
use engine::ops::adamw::{self, Hyper, Rule, State};
use engine::ops::attention::{self, Heads, Kernel, Segment, Segments};
use engine::ops::linear_logps::{self, Items, Logits};
use engine::ops::matmul::{self, Output};
use engine::ops::nf4::{self, Quantized, Scales};
use engine::random::Stream;
use engine::tensor::Tensor;

use crate::args;
use crate::ending::Done;

/// The doctor, with the self-test's results among its facts where they were asked for.
pub(crate) fn doctor(arguments: &args::Doctor) -> Result<Done> {
    let tests = if arguments.self_test { run()? } else { Vec::new() };
    Ok(Done::Answered(run_doctor_with(&arguments.doctor, tests, &mut std::io::stdout())))
}

/// A component's name and its test, which says how far off it was and what it measured.
type Test = (&'static str, fn(&Device) -> Engine<Outcome>);

struct Outcome {
    passed: bool,
    words: String,
}

impl Outcome {
    fn of(difference: f64, allowed: f64, measured: &str) -> Outcome {
        let words = format!("off by {difference:.1e}, {allowed:.0e} allowed{measured}");
        Outcome { passed: difference <= allowed, words }
    }
}

fn run() -> Result<Vec<SelfTest>> {
    const TESTS: [Test; 5] = [
        ("gemm", gemm),
        ("nf4", nf4),
        ("attention", attention),
        ("adamw", optimizer),
        ("step", step),
    ];
    let device = Device::cpu(256 << 20)?;
    let test = |(component, test): &Test| {
        let outcome = test(&device)
            .unwrap_or_else(|error| Outcome { passed: false, words: error.to_string() });
        SelfTest {
            component: (*component).to_owned(),
            passed: outcome.passed,
            error: outcome.words,
            share_of_peak: None, // a CPU has no figure on a data sheet to compare with
        }
    };
    Ok(TESTS.iter().map(test).collect())
}

fn tensor(device: &Device, shape: (usize, usize), values: &[f32]) -> Engine<Tensor> {
    let mut tensor = device.scratch(shape, DType::F32, Category::Workspace)?;
    tensor.as_mut_slice::<f32>().copy_from_slice(values);
    Ok(tensor)
}

fn random(device: &Device, shape: (usize, usize), stream: u64) -> Engine<Tensor> {
    tensor(device, shape, &Stream::new(1, stream).normals(shape.0 * shape.1))
}

fn dot(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f64 {
    a.zip(b).map(|(a, b)| f64::from(a) * f64::from(b)).sum()
}

/// A product of layer size against f64 at a thousand places, and its speed.
fn gemm(device: &Device) -> Engine<Outcome> {
    let (n, m, k) = (1024, 1536, 1024);
    let (x, weight, mut y) =
        (random(device, (n, k), 1)?, random(device, (m, k), 2)?, random(device, (n, m), 3)?);
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        matmul::forward(x.view(), weight.view(), 1.0, Output::Write, y.view_mut())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    let (x, weight, y): (&[f32], &[f32], &[f32]) = (x.as_slice(), weight.as_slice(), y.as_slice());
    let worst = (0..1000).map(|i| (i * 7 % n, i * 13 % m)).fold(0f64, |worst, (row, column)| {
        let exact =
            dot(x[row * k..][..k].iter().copied(), weight[column * k..][..k].iter().copied());
        worst.max((exact - f64::from(y[row * m + column])).abs())
    });
    let speed = 2.0 * (n * m * k) as f64 / best / 1e9;
    Ok(Outcome::of(worst, 1e-3, &format!("; {speed:.0} GFLOP/s")))
}

/// Quantized and back: every value within half the widest step of the code book.
fn nf4(device: &Device) -> Engine<Outcome> {
    let shape = (256, 512);
    let (x, mut y) = (random(device, shape, 4)?, random(device, shape, 5)?);
    let mut quantized = Quantized::new(device, shape.into(), nf4::BLOCK_SIZE, false)?;
    nf4::quantize(x.view(), &mut quantized)?;
    nf4::dequantize(&quantized, y.view_mut())?;
    let absmax: Vec<f32> = match &quantized.scales {
        Scales::Plain { absmax } => absmax.to_vec()?,
        Scales::Double { .. } => Vec::new(),
    };
    let share =
        |(i, (x, y)): (usize, (&f32, &f32))| f64::from((x - y).abs() / absmax[i / nf4::BLOCK_SIZE]);
    let pairs = x.as_slice::<f32>().iter().zip(y.as_slice::<f32>());
    Ok(Outcome::of(pairs.enumerate().map(share).fold(0.0, f64::max), 0.16, " of a block's largest"))
}

/// A prompt with two completions against the definition in f64.
fn attention(device: &Device) -> Engine<Outcome> {
    let heads = Heads {
        num_heads: 2,
        num_key_value_heads: 1,
        head_dim: 32,
        scale: 0.2,
        window: None,
        soft_cap: None,
        kernel: Kernel::Flash,
    };
    let child = |start, len| Segment {
        query_start: start,
        key_start: start,
        len,
        parent_start: 0,
        parent_len: 70,
        position0: 70,
    };
    let whole = Segment { parent_len: 0, position0: 0, ..child(0, 70) };
    let segments = Segments::new(device, vec![whole, child(70, 90), child(160, 40)])?;
    let n = 200;
    let (q, k, v) =
        (random(device, (n, 64), 6)?, random(device, (n, 32), 7)?, random(device, (n, 32), 8)?);
    let (mut out, mut lse) = (random(device, (n, 64), 9)?, random(device, (n, 2), 10)?);
    attention::forward(
        q.view(),
        k.view(),
        v.view(),
        &segments,
        heads,
        out.view_mut(),
        lse.view_mut(),
    )?;
    let (q, k, v, out): (&[f32], &[f32], &[f32], &[f32]) =
        (q.as_slice(), k.as_slice(), v.as_slice(), out.as_slice());
    let mut worst = 0f64;
    for segment in segments.iter() {
        for i in 0..segment.len {
            let row = segment.query_start + i;
            let seen: Vec<usize> =
                (0..segment.parent_len).chain(segment.key_start..=segment.key_start + i).collect();
            for head in 0..2 {
                let query = &q[row * 64 + head * 32..][..32];
                let weight = |key: &usize| {
                    (0.2 * dot(query.iter().copied(), k[key * 32..][..32].iter().copied())).exp()
                };
                let total: f64 = seen.iter().map(weight).sum();
                let exact: f64 =
                    seen.iter().map(|key| weight(key) * f64::from(v[key * 32])).sum::<f64>()
                        / total;
                worst = worst.max((exact - f64::from(out[row * 64 + head * 32])).abs());
            }
        }
    }
    Ok(Outcome::of(worst, 1e-5, ""))
}

const HYPER: Hyper = Hyper {
    learning_rate: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    gradient_scale: 1.0,
};

/// A first update against its formula in f64.
fn optimizer(device: &Device) -> Engine<Outcome> {
    let n = 5000;
    let (mut param, gradient) = (random(device, (n, 1), 11)?, random(device, (n, 1), 12)?);
    let before: Vec<f32> = param.to_vec()?;
    let mut state = State::new(device, Rule::Torch, n)?;
    adamw::update(param.view_mut(), gradient.view(), &mut state, Rule::Torch, HYPER)?;
    let exact = |p: f32, g: f32| {
        f64::from(p) * (1.0 - 1e-4) - 1e-3 * f64::from(g) / (f64::from(g).abs() + 1e-8)
    };
    let values = before.iter().zip(gradient.as_slice::<f32>()).zip(param.as_slice::<f32>());
    let worst = values
        .fold(0f64, |worst, ((p, g), after)| worst.max((exact(*p, *g) - f64::from(*after)).abs()));
    Ok(Outcome::of(worst, 1e-6, ""))
}

/// Forward, backward and a small step down the gradient of a head: the loss falls by the gradient's square
/// times the step.
fn step(device: &Device) -> Engine<Outcome> {
    let (m, c, v) = (64, 48, 500);
    let (x, mut weight) = (random(device, (m, c), 13)?, random(device, (v, c), 14)?);
    let rows: Vec<u32> = (0..m as u32).collect();
    let targets: Vec<u32> = rows.iter().map(|row| row * 7 % v as u32).collect();
    let items = Items { rows: &rows, targets: &targets };
    let (mut lse, mut logps) = (random(device, (m, 1), 15)?, random(device, (m, 1), 16)?);
    let mut loss = |weight: &Tensor| -> Engine<(f64, Vec<f32>)> {
        let (l, p) = (lse.view_mut(), logps.view_mut());
        linear_logps::forward(x.view(), weight.view(), items, Logits::PLAIN, l, p)?;
        Ok((-logps.as_slice::<f32>().iter().map(|l| f64::from(*l)).sum::<f64>(), lse.to_vec()?))
    };
    let (before, saved) = loss(&weight)?;
    let saved = tensor(device, (m, 1), &saved)?;
    let dlogps = tensor(device, (m, 1), &vec![-1.0; m])?;
    let (mut dx, mut dweight) = (random(device, (m, c), 17)?, random(device, (v, c), 18)?);
    dweight.zero();
    let out = Some(dweight.view_mut());
    linear_logps::backward(
        dlogps.view(),
        x.view(),
        weight.view(),
        items,
        Logits::PLAIN,
        saved.view(),
        dx.view_mut(),
        out,
    )?;
    let square =
        dot(dweight.as_slice::<f32>().iter().copied(), dweight.as_slice::<f32>().iter().copied());
    let size = 1e-3 * before / square;
    let gradient: Vec<f32> = dweight.to_vec()?;
    weight
        .as_mut_slice::<f32>()
        .iter_mut()
        .zip(gradient)
        .for_each(|(w, g)| *w -= (size * f64::from(g)) as f32);
    let (after, _) = loss(&weight)?;
    let fallen = (before - after) / (size * square);
    Ok(Outcome::of((fallen - 1.0).abs(), 2e-2, " of the predicted fall"))
}
