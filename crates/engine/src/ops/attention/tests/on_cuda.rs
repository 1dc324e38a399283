//! The kernels against the CPU's f32, on inputs rounded to bf16: at most twice the error of the formula in bf16.

use half::bf16;
use rayon::prelude::*;

use super::{Roots, capped, dot, forward, heads, trees};
use crate::device::Device;
use crate::ops::attention::{self, Heads, Kernel, Saved, Segment, Segments, cuda};
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::testing::{activations, as_good_as, cpu, cuda, filled, rounded, tensor, values};

/// What goes in, in bf16's values.
struct Inputs {
    segments: Vec<Segment>,
    heads: Heads,
    rows: (usize, usize),
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Inputs {
    fn new(segments: Vec<Segment>, rows: (usize, usize), heads: Heads) -> Inputs {
        let normal = |n: usize, stream| rounded(&Stream::new(7, stream).normals(n));
        let (q, k) = (rows.0 * heads.query_cols(), rows.1 * heads.key_cols());
        let (q, k, v, dout) = (normal(q, 1), normal(k, 2), normal(k, 3), normal(q, 4));
        Inputs { segments, heads, rows, q, k, v, dout }
    }

    /// A pack with rows behind it that no segment covers.
    fn packed(roots: Roots, heads: Heads) -> Inputs {
        let (segments, n) = trees(roots);
        Inputs::new(segments, (n + 3, n + 3), heads)
    }

    fn shapes(&self) -> ((usize, usize), (usize, usize)) {
        ((self.rows.0, self.heads.query_cols()), (self.rows.1, self.heads.key_cols()))
    }
}

/// out, lse, dq, dk, dv.
type Results = [Vec<f32>; 5];
const NAMES: [&str; 5] = ["out", "lse", "dq", "dk", "dv"];

/// Both passes on a device, onto dirt. `backward` is left out for caches, `tall` chooses a flash kernel.
fn run(device: &Device, inputs: &Inputs, backward: bool, tall: Option<bool>) -> Results {
    let (qs, ks) = inputs.shapes();
    let (heads, dirt) = (inputs.heads, |shape: (usize, usize)| vec![7.0; shape.0 * shape.1]);
    let place = |shape, values: &[f32]| activations(device, shape, values);
    let (q, k, v) = (place(qs, &inputs.q), place(ks, &inputs.k), place(ks, &inputs.v));
    let mut out = place(qs, &dirt(qs));
    let mut lse = filled(device, (qs.0, heads.num_heads), 7.0);
    let (mut dq, mut dk, mut dv) =
        (place(qs, &dirt(qs)), place(ks, &dirt(ks)), place(ks, &dirt(ks)));
    let segments = Segments::new(device, inputs.segments.clone()).unwrap();
    let (o, l) = (out.view_mut(), lse.view_mut());
    let (qv, kv, vv) = (q.view(), k.view(), v.view());
    match tall {
        Some(tall) => cuda::flash::forward_as(tall, qv, kv, vv, &segments, heads, o, l),
        None => attention::forward(qv, kv, vv, &segments, heads, o, l),
    }
    .unwrap();
    if backward {
        let dout = place(qs, &inputs.dout);
        let saved = Saved { q: qv, k: kv, v: vv, out: out.view(), lse: lse.view() };
        let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
        attention::backward(dout.view(), saved, &segments, heads, a, b, c).unwrap();
    }
    [&out, &lse, &dq, &dk, &dv].map(values)
}

/// What one head of one segment gives in bf16 storage.
struct Naive {
    out: Vec<f32>,
    lse: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

/// Attention as frameworks write it down: scores, weights and their gradients each stored in bf16.
fn naive_head(inputs: &Inputs, s: &Segment, head: usize) -> Naive {
    let Inputs { heads, q, k, v, dout, .. } = inputs;
    let (d, h, hkv) = (heads.head_dim, heads.num_heads, heads.num_key_value_heads);
    let store = |x: f32| bf16::from_f32(x).to_f32();
    let keys: Vec<usize> = (0..s.parent_len)
        .map(|j| s.parent_start + j)
        .chain((0..s.len).map(|j| s.key_start + j))
        .collect();
    let key_of = |row: usize| (row * hkv + head / (h / hkv)) * d;
    let mut r = Naive {
        out: vec![0.0; s.len * d],
        lse: Vec::new(),
        dq: vec![0.0; s.len * d],
        dk: vec![0.0; keys.len() * d],
        dv: vec![0.0; keys.len() * d],
    };
    let add = |to: &mut [f32], x: f32, from: &[f32]| {
        to.iter_mut().zip(from).for_each(|(t, f)| *t += x * f)
    };
    for i in 0..s.len {
        let at = ((s.query_start + i) * h + head) * d;
        let (query, dout) = (&q[at..at + d], &dout[at..at + d]);
        let last = s.parent_len + i;
        let first = heads.window.map_or(0, |window| (last + 1).saturating_sub(window));
        let scores: Vec<f32> = (first..=last)
            .map(|j| {
                let s = store(dot(query, &k[key_of(keys[j])..][..d]) as f32);
                let s = store(s * heads.scale);
                heads.soft_cap.map_or(s, |cap| store(cap * store(store(s / cap).tanh())))
            })
            .collect();
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = scores.iter().map(|s| (s - top).exp()).sum();
        r.lse.push(top + sum.ln());
        let p: Vec<f32> = scores.iter().map(|s| store((s - top).exp() / sum)).collect();
        let dp: Vec<f32> =
            (first..=last).map(|j| store(dot(dout, &v[key_of(keys[j])..][..d]) as f32)).collect();
        let delta: f32 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for (x, j) in (first..=last).enumerate() {
            let key = key_of(keys[j]);
            add(&mut r.out[i * d..][..d], p[x], &v[key..key + d]);
            add(&mut r.dv[j * d..][..d], p[x], dout);
            let mut ds = store(p[x] * (dp[x] - delta));
            if let Some(cap) = heads.soft_cap {
                ds = store(ds * (1.0 - (scores[x] / cap).powi(2)));
            }
            let ds = store(ds * heads.scale);
            add(&mut r.dq[i * d..][..d], ds, &k[key..key + d]);
            add(&mut r.dk[j * d..][..d], ds, query);
        }
    }
    r
}

fn naive(inputs: &Inputs) -> Results {
    let (qs, ks) = inputs.shapes();
    let (heads, segments) = (inputs.heads, &inputs.segments);
    let (d, h, hkv) = (heads.head_dim, heads.num_heads, heads.num_key_value_heads);
    let jobs: Vec<(&Segment, usize)> =
        segments.iter().flat_map(|s| (0..h).map(move |head| (s, head))).collect();
    let parts: Vec<Naive> = jobs.par_iter().map(|(s, head)| naive_head(inputs, s, *head)).collect();
    let dirt = |n: usize| vec![7.0; n];
    let mut results = [
        dirt(qs.0 * qs.1),
        dirt(qs.0 * h),
        dirt(qs.0 * qs.1),
        dirt(ks.0 * ks.1),
        dirt(ks.0 * ks.1),
    ];
    for s in segments {
        for gradient in [3, 4] {
            results[gradient][s.key_start * ks.1..(s.key_start + s.len) * ks.1].fill(0.0);
        }
    }
    for ((s, head), part) in jobs.iter().zip(&parts) {
        for i in 0..s.len {
            let row = (s.query_start + i) * h + head;
            results[0][row * d..][..d].copy_from_slice(&part.out[i * d..][..d]);
            results[1][row] = part.lse[i];
            results[2][row * d..][..d].copy_from_slice(&part.dq[i * d..][..d]);
        }
        for j in 0..s.parent_len + s.len {
            let own = j.wrapping_sub(s.parent_len);
            let row = if j < s.parent_len { s.parent_start + j } else { s.key_start + own };
            let at = (row * hkv + head / (h / hkv)) * d;
            for (gradient, from) in [(3, &part.dk), (4, &part.dv)] {
                let to = &mut results[gradient][at..at + d];
                to.iter_mut().zip(&from[j * d..]).for_each(|(t, f)| *t += f);
            }
        }
    }
    for stored in [0, 2, 3, 4] {
        results[stored] = rounded(&results[stored]);
    }
    results
}

/// Holds the GPU's results against the CPU's and the naive ones; `count` of them.
fn check(name: &str, ours: &Results, naive: &Results, exact: &Results, count: usize) {
    for i in 0..count {
        as_good_as(&format!("{} of {name}", NAMES[i]), &ours[i], &naive[i], &exact[i]);
    }
}

/// (trees, query heads, KV heads, window, capped).
type Case = (Roots, usize, usize, Option<usize>, bool);

const CASES: [Case; 9] = [
    (&[(1, &[])], 1, 1, None, false),
    (&[(7, &[]), (33, &[1]), (47, &[7, 33])], 4, 2, None, false),
    (&[(130, &[])], 8, 1, None, false),
    (&[(130, &[47, 130, 1]), (257, &[33])], 4, 1, None, false),
    (&[(257, &[130])], 2, 2, Some(20), false),
    (&[(257, &[130, 64]), (64, &[])], 2, 1, Some(100), true),
    (&[(128, &[128, 7])], 4, 2, None, true),
    (&[(1000, &[])], 2, 2, Some(300), false),
    (&[(1000, &[257, 47])], 2, 1, None, false),
];

fn every_case_on_cuda(kernel: Kernel, head_dims: &[usize]) {
    let Some(device) = cuda() else { return };
    for head_dim in head_dims {
        for (roots, h, hkv, window, cap) in CASES {
            let plain = Heads { kernel, ..heads(h, hkv, *head_dim, window) };
            let inputs = Inputs::packed(roots, if cap { capped(plain) } else { plain });
            let name = format!("{roots:?}, {:?}", inputs.heads);
            let (exact, naive) = (run(&cpu(), &inputs, true, None), naive(&inputs));
            let ours = run(&device, &inputs, true, None);
            check(&name, &ours, &naive, &exact, 5);
            let again = run(&device, &inputs, true, None);
            assert!(ours == again, "{name}: two runs differ");
            if kernel == Kernel::Flash {
                for tall in [false, true].into_iter().take(if *head_dim > 128 { 1 } else { 2 }) {
                    let name = format!("{name}, tall: {tall}");
                    let ours = run(&device, &inputs, false, Some(tall));
                    check(&name, &ours, &naive, &exact, 2);
                }
            }
        }
    }
}

#[test]
fn flash_on_cuda_is_as_good_as_the_formula_for_heads_of_64() {
    every_case_on_cuda(Kernel::Flash, &[64]);
}

#[test]
fn flash_on_cuda_is_as_good_as_the_formula_for_heads_of_80() {
    every_case_on_cuda(Kernel::Flash, &[80]);
}

#[test]
fn flash_on_cuda_is_as_good_as_the_formula_for_heads_of_96() {
    every_case_on_cuda(Kernel::Flash, &[96]);
}

#[test]
fn flash_on_cuda_is_as_good_as_the_formula_for_heads_of_128() {
    every_case_on_cuda(Kernel::Flash, &[128]);
}

#[test]
fn flash_on_cuda_is_as_good_as_the_formula_for_heads_of_256() {
    every_case_on_cuda(Kernel::Flash, &[256]);
}

#[test]
fn standard_attention_on_cuda_is_as_good_as_the_formula() {
    every_case_on_cuda(Kernel::Standard, &[72, 128]);
}

#[test]
fn queries_against_a_cache_on_cuda_are_as_good_as_the_formula() {
    let Some(device) = cuda() else { return };
    let segment = |query_start, key_start, len, parent_start, parent_len| Segment {
        query_start,
        key_start,
        len,
        parent_start,
        parent_len,
        position0: parent_len,
    };
    // Three sequences at different places of a cache of 700 rows: one new token, a few, and a first chunk.
    let segments = vec![
        segment(0, 346, 1, 300, 46),
        segment(1, 220, 70, 90, 130),
        segment(71, 400, 257, 400, 0),
    ];
    for kernel in [Kernel::Flash, Kernel::Standard] {
        for (head_dim, window) in [(64, None), (128, Some(30)), (256, None)] {
            let heads = Heads { kernel, ..heads(4, 2, head_dim, window) };
            let inputs = Inputs::new(segments.clone(), (330, 700), heads);
            let (exact, naive) = (run(&cpu(), &inputs, false, None), naive(&inputs));
            let ours = run(&device, &inputs, false, None);
            check(&format!("a cache, {heads:?}"), &ours, &naive, &exact, 2);
        }
    }
}

#[test]
fn a_plan_for_cuda_takes_what_cuda_takes() {
    let Some(device) = cuda() else { return };
    let plan = Device::plan_for(crate::device::Kind::Cuda);
    for kernel in [Kernel::Flash, Kernel::Standard] {
        let heads = Heads { kernel, ..heads(4, 2, 64, None) };
        let inputs = Inputs::packed(&[(130, &[47, 33])], heads);
        let take = |device: &Device| {
            let (qs, ks) = inputs.shapes();
            let place = |shape, values: &[f32]| activations(device, shape, values);
            let (q, k): (Tensor, Tensor) = (place(qs, &inputs.q), place(ks, &inputs.k));
            let (mut out, mut dk) = (place(qs, &inputs.q), place(ks, &inputs.k));
            let (mut dq, mut dv) = (place(qs, &inputs.q), place(ks, &inputs.k));
            let mut lse = tensor(device, (qs.0, 4), &vec![0.0; qs.0 * 4]);
            let segments = Segments::new(device, inputs.segments.clone()).unwrap();
            let (o, l) = (out.view_mut(), lse.view_mut());
            attention::forward(q.view(), k.view(), k.view(), &segments, heads, o, l).unwrap();
            let (q, k) = (q.view(), k.view());
            let saved = Saved { q, k, v: k, out: out.view(), lse: lse.view() };
            let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
            attention::backward(q, saved, &segments, heads, a, b, c).unwrap();
            (device.peak_bytes(), device.peak_by_category())
        };
        assert_eq!(take(&plan), take(&device), "{kernel:?}");
    }
}

#[test]
fn the_naive_formula_of_these_tests_is_the_cpus_up_to_rounding() {
    let heads = capped(heads(4, 2, 8, Some(20)));
    let inputs = Inputs::packed(&[(33, &[7, 20])], heads);
    let (exact, naive) = (run(&cpu(), &inputs, true, None), naive(&inputs));
    for i in 0..5 {
        let worst = naive[i].iter().zip(&exact[i]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.1, "{}: {worst}", NAMES[i]);
    }
    let on_cpu = forward(
        &tensor(&cpu(), inputs.shapes().0, &inputs.q),
        &tensor(&cpu(), inputs.shapes().1, &inputs.k),
        &tensor(&cpu(), inputs.shapes().1, &inputs.v),
        &inputs.segments,
        heads,
    );
    assert_eq!(on_cpu.0.as_slice::<f32>(), exact[0]);
}
