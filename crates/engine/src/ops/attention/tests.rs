//! Proofs of attention.

use crate::error::Error;
use crate::ops::attention::{self, Heads, Saved, Segment};
use crate::tensor::Tensor;
use crate::testing::{
    assert_close, cpu, dot, filled, gradient_matches, normal, plan_takes_what_cpu_takes, tensor,
};

fn heads(
    num_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    window: Option<usize>,
) -> Heads {
    Heads {
        num_heads,
        num_key_value_heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        window,
    }
}

/// Each root is (prompt length, lengths of its children).
type Roots = &'static [(usize, &'static [usize])];

/// A packed batch.
fn trees(roots: Roots) -> (Vec<Segment>, usize) {
    let (mut segments, mut row) = (Vec::new(), 0);
    for (len, children) in roots {
        let start = row;
        let segment = |at, len, parent_len| Segment {
            query_start: at,
            key_start: at,
            len,
            parent_start: start,
            parent_len,
            position0: parent_len,
        };
        segments.push(segment(row, *len, 0));
        row += len;
        for child in *children {
            segments.push(segment(row, *child, *len));
            row += child;
        }
    }
    (segments, row)
}

fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    segments: &[Segment],
    heads: Heads,
) -> (Tensor, Tensor) {
    let mut out = filled(q.device(), (q.rows(), q.cols()), 7.0);
    let mut lse = filled(q.device(), (q.rows(), heads.num_heads), 7.0);
    let (o, l) = (out.view_mut(), lse.view_mut());
    attention::forward(q.view(), k.view(), v.view(), segments, heads, o, l).unwrap();
    (out, lse)
}

/// softmax(scale q k^T + mask) v by its definition, in f64.
fn naive(q: &[f32], k: &[f32], v: &[f32], segments: &[Segment], heads: Heads) -> Vec<f32> {
    let (d, h, hkv) = (heads.head_dim, heads.num_heads, heads.num_key_value_heads);
    let mut out = vec![7.0; q.len()];
    for s in segments {
        for i in 0..s.len {
            let position = s.position0 + i;
            let parent =
                (0..s.parent_len).map(|j| (s.parent_start + j, s.position0 - s.parent_len + j));
            let own = (0..=i).map(|j| (s.key_start + j, s.position0 + j));
            let seen: Vec<usize> = parent
                .chain(own)
                .filter(|(_, at)| heads.window.is_none_or(|window| position - at < window))
                .map(|(row, _)| row)
                .collect();
            for head in 0..h {
                let kv = head / (h / hkv) * d;
                let query = &q[(s.query_start + i) * h * d + head * d..][..d];
                let score = |row: &usize| {
                    dot(query, &k[row * hkv * d + kv..][..d]) * f64::from(heads.scale)
                };
                let scores: Vec<f64> = seen.iter().map(score).collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for j in 0..d {
                    let value = |(row, score): (&usize, &f64)| {
                        (score - top).exp() / sum * f64::from(v[row * hkv * d + kv + j])
                    };
                    let at = (s.query_start + i) * h * d + head * d + j;
                    out[at] = seen.iter().zip(&scores).map(value).sum::<f64>() as f32;
                }
            }
        }
    }
    out
}

#[test]
fn two_keys_worked_by_hand() {
    let device = cpu();
    // The second query scores ln 3 against the first key and 0 against its own: weights 3/4 and 1/4.
    let q = tensor(&device, (2, 1), &[1.0, 1.0]);
    let k = tensor(&device, (2, 1), &[3f32.ln(), 0.0]);
    let v = tensor(&device, (2, 1), &[8.0, 4.0]);
    let (segments, _) = trees(&[(2, &[])]);
    let (out, lse) = forward(&q, &k, &v, &segments, heads(1, 1, 1, None));
    assert_close("out", out.as_slice(), &[8.0, 7.0], 1e-5);
    assert_close("lse", lse.as_slice(), &[3f32.ln(), 4f32.ln()], 1e-6);
}

#[test]
fn trees_agree_with_the_definition_in_f64() {
    let cases: [(Roots, Heads); 5] = [
        (&[(1, &[])], heads(1, 1, 7, None)),
        (&[(47, &[33, 1, 7])], heads(4, 2, 8, None)),
        (&[(130, &[70, 7]), (1, &[300]), (33, &[])], heads(6, 2, 5, None)),
        (&[(47, &[33, 90])], heads(2, 1, 8, Some(7))),
        (&[(200, &[33, 150])], heads(3, 3, 4, Some(100))),
    ];
    for (roots, heads) in cases {
        let device = cpu();
        let (segments, n) = trees(roots);
        let (qc, kc) =
            (heads.num_heads * heads.head_dim, heads.num_key_value_heads * heads.head_dim);
        let (q, k, v) =
            (normal(&device, (n, qc), 1), normal(&device, (n, kc), 2), normal(&device, (n, kc), 3));
        let (out, _) = forward(&q, &k, &v, &segments, heads);
        let want = naive(q.as_slice(), k.as_slice(), v.as_slice(), &segments, heads);
        assert_close(&format!("{roots:?}"), out.as_slice(), &want, 3e-6);
    }
}

#[test]
fn one_query_against_a_cache_is_the_last_row_of_the_whole_sequence() {
    let device = cpu();
    let heads = heads(4, 2, 8, Some(30));
    let (q, k, v) =
        (normal(&device, (47, 32), 1), normal(&device, (47, 16), 2), normal(&device, (47, 16), 3));
    let (whole, _) = forward(&q, &k, &v, &trees(&[(47, &[])]).0, heads);
    let last = tensor(&device, (1, 32), q.slice(46..47).as_slice());
    let decode = Segment {
        query_start: 0,
        key_start: 46,
        len: 1,
        parent_start: 0,
        parent_len: 46,
        position0: 46,
    };
    let (out, _) = forward(&last, &k, &v, &[decode], heads);
    assert_close("last row", out.as_slice(), whole.slice(46..47).as_slice(), 1e-6);
}

#[test]
fn rows_without_a_segment_are_left_alone() {
    let device = cpu();
    let (q, kv) = (normal(&device, (5, 4), 1), normal(&device, (5, 4), 2));
    let (out, lse) = forward(&q, &kv, &kv, &trees(&[(3, &[])]).0, heads(1, 1, 4, None));
    assert!(
        out.slice(3..5)
            .as_slice::<f32>()
            .iter()
            .chain(lse.slice(3..5).as_slice())
            .all(|v| *v == 7.0)
    );
}

#[test]
fn gradients_match_finite_differences_and_overwrite_what_is_there() {
    let cases: [(Roots, Heads); 3] = [
        (&[(7, &[33, 1])], heads(2, 1, 4, None)),
        (&[(70, &[7, 130]), (1, &[])], heads(4, 2, 3, None)),
        (&[(47, &[33])], heads(2, 2, 4, Some(20))),
    ];
    for (roots, heads) in cases {
        let device = cpu();
        let (segments, n) = trees(roots);
        let (qs, ks) = (
            (n, heads.num_heads * heads.head_dim),
            (n, heads.num_key_value_heads * heads.head_dim),
        );
        let (q, k, v) = (normal(&device, qs, 1), normal(&device, ks, 2), normal(&device, ks, 3));
        let dout = normal(&device, qs, 4);
        let (out, lse) = forward(&q, &k, &v, &segments, heads);
        let (mut dq, mut dk, mut dv) =
            (filled(&device, qs, 9.), filled(&device, ks, 9.), filled(&device, ks, 9.));
        let saved =
            Saved { q: q.view(), k: k.view(), v: v.view(), out: out.view(), lse: lse.view() };
        let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
        attention::backward(dout.view(), saved, &segments, heads, a, b, c).unwrap();
        let value = |q: &Tensor, k: &Tensor, v: &Tensor| {
            dot(forward(q, k, v, &segments, heads).0.as_slice(), dout.as_slice())
        };
        gradient_matches("dq", q.as_slice(), dq.as_slice(), |x| {
            value(&tensor(&device, qs, x), &k, &v)
        });
        gradient_matches("dk", k.as_slice(), dk.as_slice(), |x| {
            value(&q, &tensor(&device, ks, x), &v)
        });
        gradient_matches("dv", v.as_slice(), dv.as_slice(), |x| {
            value(&q, &k, &tensor(&device, ks, x))
        });
    }
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let device = cpu();
            let (segments, n) = trees(&[(100, &[70, 130]), (33, &[47])]);
            let heads = heads(4, 2, 16, None);
            let (q, k) = (normal(&device, (n, 64), 1), normal(&device, (n, 32), 2));
            let (out, lse) = forward(&q, &k, &k, &segments, heads);
            let (mut dq, mut dk) = (filled(&device, (n, 64), 0.), filled(&device, (n, 32), 0.));
            let mut dv = filled(&device, (n, 32), 0.);
            let saved =
                Saved { q: q.view(), k: k.view(), v: k.view(), out: out.view(), lse: lse.view() };
            let (a, b, c) = (dq.view_mut(), dk.view_mut(), dv.view_mut());
            attention::backward(out.view(), saved, &segments, heads, a, b, c).unwrap();
            [out, dq, dk, dv]
                .iter()
                .flat_map(|t| t.to_vec::<f32>().unwrap())
                .map(f32::to_bits)
                .collect::<Vec<u32>>()
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let device = cpu();
    let (q, kv) = (normal(&device, (5, 4), 1), normal(&device, (5, 4), 2));
    let (mut out, mut lse) = (filled(&device, (5, 4), 0.0), filled(&device, (5, 1), 0.0));
    let past = trees(&[(6, &[])]).0;
    let (o, l) = (out.view_mut(), lse.view_mut());
    let got = attention::forward(q.view(), kv.view(), kv.view(), &past, heads(1, 1, 4, None), o, l);
    assert!(matches!(got, Err(Error::Argument { .. })));
    let (o, l) = (out.view_mut(), lse.view_mut());
    let got = attention::forward(q.view(), kv.view(), kv.view(), &[], heads(3, 2, 2, None), o, l);
    assert!(got.is_err());
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (segments, n) = trees(&[(7, &[33])]);
        let (q, k) = (normal(device, (n, 8), 1), normal(device, (n, 4), 2));
        forward(&q, &k, &k, &segments, heads(2, 1, 4, None));
    });
    let plan = crate::device::Device::plan_for(crate::device::Kind::Cpu);
    let (segments, n) = trees(&[(2, &[3])]);
    let q = normal(&plan, (n, 4), 1);
    forward(&q, &q, &q, &segments, heads(1, 1, 4, None));
    // 1 + 2 pairs in the prompt, 3 + 4 + 5 in the child; two products of 2 x 4 operations each.
    assert_eq!(plan.ledger().total().flops, 15.0 * 4.0 * 4.0);
}
