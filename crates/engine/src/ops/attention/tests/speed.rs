//! How fast the kernels are, for LOG.md: `cargo test -p prospect-engine --release speed_of -- --ignored --nocapture`.

use std::time::Instant;

use super::{heads, trees};
use crate::device::Device;
use crate::ops::attention::{self, Heads, Kernel, Saved, Segments};
use crate::random::Stream;
use crate::testing::{activations, cuda, filled};

/// Milliseconds of a call, over enough of them to fill half a second.
fn milliseconds(device: &Device, mut call: impl FnMut()) -> f64 {
    let mut time = |calls: usize| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        device.synchronize().unwrap();
        start.elapsed().as_secs_f64() * 1e3 / calls as f64
    };
    time(2);
    let once = time(3);
    time((500.0 / once).clamp(3.0, 500.0) as usize)
}

/// Operations of the products of forward are counted for visible pairs alone, those of backward 2.5 times that.
fn measure(device: &Device, len: usize, heads: Heads) -> String {
    let count = 8192 / len;
    let (segments, n) = (0..count).fold((Vec::new(), 0), |(mut all, at), _| {
        let (mut one, len) = trees(match len {
            1024 => &[(1024, &[])],
            2048 => &[(2048, &[])],
            _ => &[(8192, &[])],
        });
        one.iter_mut().for_each(|s| (s.query_start, s.key_start, s.parent_start) = (at, at, at));
        all.append(&mut one);
        (all, at + len)
    });
    let (qs, ks) = ((n, heads.query_cols()), (n, heads.key_cols()));
    let noise = Stream::new(1, 2).normals(1 << 20);
    let place = |(rows, cols): (usize, usize), shift: usize| {
        let values: Vec<f32> =
            noise.iter().cycle().skip(shift).take(rows * cols).copied().collect();
        activations(device, (rows, cols), &values)
    };
    let (q, k, v, dout) = (place(qs, 0), place(ks, 1001), place(ks, 5003), place(qs, 7013));
    let (mut out, mut dq, mut dk, mut dv) =
        (place(qs, 0), place(qs, 0), place(ks, 0), place(ks, 0));
    let mut lse = filled(device, (n, heads.num_heads), 0.0);
    let segments = Segments::new(device, segments).unwrap();
    let (q, k, v) = (q.view(), k.view(), v.view());
    let forward = milliseconds(device, || {
        let (o, l) = (out.view_mut(), lse.view_mut());
        attention::forward(q, k, v, &segments, heads, o, l).unwrap();
    });
    let saved = Saved { q, k, v, out: out.view(), lse: lse.view() };
    let backward = milliseconds(device, || {
        let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
        attention::backward(dout.view(), saved, &segments, heads, a, b, c).unwrap();
    });
    let flops = 2.0 * (count * len * len * heads.query_cols()) as f64;
    let rate = |ms: f64, flops: f64| flops / ms / 1e9;
    format!(
        "{:?} D={} H={} HKV={} {count} x {len}: forward {forward:.3} ms {:.0} TFLOP/s, backward {backward:.3} ms {:.0} TFLOP/s",
        heads.kernel,
        heads.head_dim,
        heads.num_heads,
        heads.num_key_value_heads,
        rate(forward, flops),
        rate(backward, 2.5 * flops)
    )
}

#[test]
#[ignore = "a measurement, not a proof"]
#[allow(clippy::print_stdout)]
fn speed_of_attention_on_cuda() {
    let Some(device) = cuda() else { return };
    for (h, hkv, head_dim) in [(32, 8, 128), (32, 32, 128), (32, 8, 64), (16, 8, 256)] {
        for len in [1024, 2048, 8192] {
            println!("{}", measure(&device, len, heads(h, hkv, head_dim, None)));
        }
    }
    let standard = Heads { kernel: Kernel::Standard, ..heads(32, 8, 128, None) };
    for len in [1024, 2048] {
        println!("{}", measure(&device, len, standard));
    }
}
