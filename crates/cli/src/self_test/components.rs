//! The engine's parts, each against its definition in f64 on the host.

use std::time::Instant;

use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::adamw::{self, Hyper, Rule, State};
use engine::ops::attention::{self, Heads, Kernel, Segment, Segments};
use engine::ops::matmul::{self, Output};
use engine::ops::nf4::{self, CodeBook, Quantized, Scales};
use engine::tensor::Tensor;

use super::{Bench, Outcome, Tested, dot, get, words};

/// The shortest of several runs, in seconds, with what the device has queued waited for.
fn best(bench: &Bench, times: usize, mut run: impl FnMut() -> Tested<()>) -> Tested<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..times {
        bench.device.synchronize().map_err(words)?;
        let start = Instant::now();
        run()?;
        bench.device.synchronize().map_err(words)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// A product against f64 at a thousand places, and the speed of one of a layer's size.
pub(super) fn gemm(bench: &Bench) -> Tested<Outcome> {
    let (n, m, k) = (1024, 1536, 1024);
    let (x, weight) = (bench.normals((n, k), 1)?, bench.normals((m, k), 2)?);
    let mut y = bench.room((n, m))?;
    matmul::forward(x.view(), weight.view(), 1.0, Output::Write, y.view_mut()).map_err(words)?;
    let (a, b, c) = (get(&x)?, get(&weight)?, get(&y)?);
    let worst = (0..1000).map(|i| (i * 7 % n, i * 13 % m)).fold(0f64, |worst, (row, column)| {
        let exact = dot(&a[row * k..][..k], &b[column * k..][..k]);
        larger(worst, (exact - f64::from(c[row * m + column])).abs())
    });
    // Sums of a thousand products in f32: tensor cores cut what they add where a CPU rounds.
    let outcome = Outcome::of(worst, if bench.on_gpu() { 2e-2 } else { 1e-3 }, "");
    drop((x, weight, y));
    let (n, m, k) = if bench.on_gpu() { (8192, 11_008, 4096) } else { (n, m, k) };
    let (x, weight) = (bench.normals((n, k), 1)?, bench.normals((m, k), 2)?);
    let dtype = bench.device.activations();
    let mut y = bench.device.scratch((n, m), dtype, Category::Workspace).map_err(words)?;
    let seconds = best(bench, if bench.on_gpu() { 20 } else { 3 }, || {
        matmul::forward(x.view(), weight.view(), 1.0, Output::Write, y.view_mut()).map_err(words)
    })?;
    let speed = 2.0 * (n * m) as f64 * k as f64 / seconds;
    let share = bench.card.map(|card| speed / (card.tflops * 1e12));
    let told = match bench.on_gpu() {
        true => format!("{:.0} TFLOP/s", speed / 1e12),
        false => format!("{:.0} GFLOP/s", speed / 1e9),
    };
    Ok(outcome.with_speed(told, share))
}

/// The larger one, and NaN if there is one.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Quantized and back: every value within half the widest step of the code book.
pub(super) fn nf4(bench: &Bench) -> Tested<Outcome> {
    let shape = (256, 512);
    let (x, mut y) = (bench.normals(shape, 4)?, bench.normals(shape, 5)?);
    let mut quantized =
        Quantized::new(&bench.device, shape.into(), CodeBook::Nf4, nf4::BLOCK_SIZE, false)
            .map_err(words)?;
    nf4::quantize(x.view(), &mut quantized).map_err(words)?;
    nf4::dequantize(&quantized, y.view_mut()).map_err(words)?;
    let absmax = match &quantized.scales {
        Scales::Plain { absmax } => get(absmax)?,
        Scales::Double { .. } => Vec::new(),
    };
    let (x, y) = (get(&x)?, get(&y)?);
    let share = |i: usize| f64::from((x[i] - y[i]).abs() / absmax[i / nf4::BLOCK_SIZE]);
    let worst = (0..x.len()).map(share).fold(0.0, larger);
    Ok(Outcome::of(worst, 0.16, " of a block's largest"))
}

/// A prompt with two completions against the definition in f64.
pub(super) fn attention(bench: &Bench) -> Tested<Outcome> {
    const D: usize = 64;
    const SCALE: f64 = 0.125;
    let heads = Heads {
        num_heads: 2,
        num_key_value_heads: 1,
        head_dim: D,
        scale: SCALE as f32,
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
    let all = vec![whole, child(70, 90), child(160, 40)];
    let segments = Segments::new(&bench.device, all.clone()).map_err(words)?;
    let n = 200;
    let (q, k) = (bench.normals((n, 2 * D), 6)?, bench.normals((n, D), 7)?);
    let (v, mut out) = (bench.normals((n, D), 8)?, bench.normals((n, 2 * D), 9)?);
    let mut lse = bench.room((n, 2))?;
    attention::forward(
        q.view(),
        k.view(),
        v.view(),
        &segments,
        heads,
        out.view_mut(),
        lse.view_mut(),
    )
    .map_err(words)?;
    let (q, k, v, out) = (get(&q)?, get(&k)?, get(&v)?, get(&out)?);
    let mut worst = 0f64;
    for segment in &all {
        for i in 0..segment.len {
            let row = segment.query_start + i;
            let own = segment.key_start..=segment.key_start + i;
            let seen: Vec<usize> = (0..segment.parent_len).chain(own).collect();
            for head in 0..2 {
                let query = &q[row * 2 * D + head * D..][..D];
                let weights: Vec<f64> =
                    seen.iter().map(|key| (SCALE * dot(query, &k[key * D..][..D])).exp()).collect();
                let total: f64 = weights.iter().sum();
                for column in [0, D - 1] {
                    let values = seen.iter().zip(&weights);
                    let sum: f64 = values.map(|(key, w)| w * f64::from(v[key * D + column])).sum();
                    let ours = f64::from(out[row * 2 * D + head * D + column]);
                    worst = larger(worst, (sum / total - ours).abs());
                }
            }
        }
    }
    // On a GPU weights and results are bf16.
    Ok(Outcome::of(worst, if bench.on_gpu() { 3e-2 } else { 1e-5 }, ""))
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

fn update(param: &mut Tensor, gradient: &Tensor, state: &mut State) -> Tested<()> {
    let (value, gradient) = (param.view_mut(), gradient.view());
    let parameter = adamw::Parameter { value, gradient, state, decays: true };
    adamw::update(&mut [parameter], Rule::Torch, HYPER).map_err(words)
}

/// A first update against its formula in f64, and how fast memory is read and written by one.
pub(super) fn adamw(bench: &Bench) -> Tested<Outcome> {
    let n = 5000;
    let values = |stream| engine::random::Stream::new(1, stream).normals(n);
    let (before, gradients) = (values(11), values(12));
    let (mut param, mut gradient) = (bench.room((n, 1))?, bench.room((n, 1))?);
    param.write(&before).map_err(words)?;
    gradient.write(&gradients).map_err(words)?;
    let mut state = State::new(&bench.device, Rule::Torch, n).map_err(words)?;
    update(&mut param, &gradient, &mut state)?;
    let after = get(&param)?;
    let worst = (0..n).fold(0f64, |worst, i| {
        let (p, g) = (f64::from(before[i]), f64::from(gradients[i]));
        let exact = p * (1.0 - 1e-4) - 1e-3 * g / (g.abs() + 1e-8);
        larger(worst, (exact - f64::from(after[i])).abs())
    });
    let outcome = Outcome::of(worst, 1e-6, "");
    drop((param, gradient));
    // Four numbers read and three written for each parameter: more than any cache holds, on a GPU.
    let n = if bench.on_gpu() { 32 << 20 } else { 2 << 20 };
    let room = || bench.device.scratch((n, 1), DType::F32, Category::Workspace).map_err(words);
    let (mut param, mut gradient) = (room()?, room()?);
    param.zero();
    gradient.zero();
    let mut state = State::new(&bench.device, Rule::Torch, n).map_err(words)?;
    let seconds = best(bench, 5, || update(&mut param, &gradient, &mut state))?;
    let speed = 28.0 * n as f64 / seconds / 1e9;
    let share = bench.card.map(|card| speed / card.bandwidth);
    Ok(outcome.with_speed(format!("{speed:.0} GB/s"), share))
}
