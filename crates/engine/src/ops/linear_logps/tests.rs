//! Proofs of the log-probabilities.

use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::memory::arena::Category;
use crate::ops::linear_logps::{self, Items, Logits};
use crate::ops::{
    cast,
    linear_logps::{TILE_ROWS, TILE_VOCABULARY},
};
use crate::random::Stream;
use crate::tensor::{Tensor, View};
use crate::testing::{
    activations, as_good_as, assert_close, cpu, cuda, dot, filled, filled_activations,
    gradient_matches, normal, normal_activations, plan_takes_what_cpu_takes, rounded, same_on_cuda,
    tensor, values,
};

fn forward(x: &Tensor, weight: View<'_>, items: Items<'_>) -> (Tensor, Tensor) {
    forward_as(Logits::PLAIN, x, weight, items)
}

fn forward_as(form: Logits, x: &Tensor, weight: View<'_>, items: Items<'_>) -> (Tensor, Tensor) {
    let mut lse = filled(x.device(), (x.rows(), 1), 7.0);
    let mut logps = filled(x.device(), (items.rows.len(), 1), 7.0);
    linear_logps::forward(x.view(), weight, items, form, lse.view_mut(), logps.view_mut()).unwrap();
    (lse, logps)
}

/// What families make of the product: nothing, a factor, a cap, both.
const FORMS: [Logits; 4] = [
    Logits::PLAIN,
    Logits { scale: 0.4, soft_cap: None },
    Logits { scale: 1.0, soft_cap: Some(1.5) },
    Logits { scale: 2.5, soft_cap: Some(3.0) },
];

/// The same by the definition, in f64.
fn naive(x: &[f32], weight: &[f32], c: usize, items: Items<'_>) -> Vec<f32> {
    let logit =
        |row: usize, token: usize| -> f64 { dot(&x[row * c..][..c], &weight[token * c..][..c]) };
    let one = |(row, target): (&u32, &u32)| {
        let logits: Vec<f64> =
            (0..weight.len() / c).map(|token| logit(*row as usize, token)).collect();
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = top + logits.iter().map(|l| (l - top).exp()).sum::<f64>().ln();
        (logits[*target as usize] - lse) as f32
    };
    items.rows.iter().zip(items.targets).map(one).collect()
}

/// The gradients of x and of the head (added to 0.5) by the definition, that of the logits rounded to bf16, and x's too.
fn naive_gradients(
    form: Logits,
    x: &[f32],
    weight: &[f32],
    c: usize,
    items: Items<'_>,
    dlogps: &[f32],
) -> [Vec<f32>; 2] {
    let (mut dx, mut dweight) = (vec![0f64; x.len()], vec![0.5f64; weight.len()]);
    for (row, (x, dx)) in x.chunks(c).zip(dx.chunks_mut(c)).enumerate() {
        let mine: Vec<usize> =
            (0..items.rows.len()).filter(|item| items.rows[*item] as usize == row).collect();
        let total: f64 = mine.iter().map(|item| f64::from(dlogps[*item])).sum();
        let product = |token: usize| f64::from(form.scale) * dot(x, &weight[token * c..][..c]);
        let capped = |product: f64| match form.soft_cap.map(f64::from) {
            Some(cap) => (cap * (product / cap).tanh(), 1.0 - (product / cap).tanh().powi(2)),
            None => (product, 1.0),
        };
        let logits: Vec<(f64, f64)> =
            (0..weight.len() / c).map(|token| capped(product(token))).collect();
        let top = logits.iter().fold(f64::NEG_INFINITY, |top, (logit, _)| top.max(*logit));
        let sum: f64 = logits.iter().map(|(logit, _)| (logit - top).exp()).sum();
        for (token, (logit, slope)) in logits.iter().enumerate() {
            let hits = mine.iter().filter(|item| items.targets[**item] as usize == token);
            let hit: f64 = hits.map(|item| f64::from(dlogps[*item])).sum();
            let gradient = (hit - total * (logit - top).exp() / sum) * slope;
            let rounded = half::bf16::from_f64(gradient).to_f64() * f64::from(form.scale);
            for i in 0..c {
                dx[i] += rounded * f64::from(weight[token * c + i]);
                dweight[token * c + i] += rounded * f64::from(x[i]);
            }
        }
    }
    let narrow = |values: Vec<f64>| values.iter().map(|value| *value as f32).collect::<Vec<f32>>();
    [rounded(&narrow(dx)), narrow(dweight)]
}

#[test]
fn two_tokens_worked_by_hand() {
    let device = cpu();
    // Logits 0 and ln 3: probabilities 1/4 and 3/4.
    let (x, weight) = (tensor(&device, (1, 1), &[3f32.ln()]), tensor(&device, (2, 1), &[0.0, 1.0]));
    let (lse, logps) = forward(&x, weight.view(), Items { rows: &[0, 0], targets: &[0, 1] });
    assert_close("lse", lse.as_slice(), &[4f32.ln()], 1e-6);
    assert_close("logps", logps.as_slice(), &[0.25f32.ln(), 0.75f32.ln()], 1e-6);
}

#[test]
fn a_factor_and_a_cap_worked_by_hand() {
    let device = cpu();
    // Products 0 and 2 ln 3: half of them makes logits 0 and ln 3; under a cap of 1, tanh(ln 3) = (9 - 1) / (9 + 1).
    let (x, weight) =
        (tensor(&device, (1, 1), &[2.0 * 3f32.ln()]), tensor(&device, (2, 1), &[0.0, 1.0]));
    let items = Items { rows: &[0], targets: &[1] };
    let halved = Logits { scale: 0.5, soft_cap: None };
    let (_, logps) = forward_as(halved, &x, weight.view(), items);
    assert_close("logps", logps.as_slice(), &[0.75f32.ln()], 1e-6);
    let capped = Logits { scale: 0.5, soft_cap: Some(1.0) };
    let (lse, logps) = forward_as(capped, &x, weight.view(), items);
    let expected = (1.0 + 0.8f32.exp()).ln();
    assert_close("lse", lse.as_slice(), &[expected], 1e-6);
    assert_close("logps", logps.as_slice(), &[0.8 - expected], 1e-6);
}

#[test]
fn tiles_agree_with_the_definition_in_f64_and_bf16_heads_with_their_rounded_weights() {
    let device = cpu();
    let (m, c, v) = (TILE_ROWS + 8, 7, TILE_VOCABULARY + 33);
    let (x, weight) = (normal(&device, (m, c), 1), normal(&device, (v, c), 2));
    let mut stream = Stream::new(3, 0);
    let rows: Vec<u32> =
        [519, 0, 0, 512].into_iter().chain((0..44).map(|_| stream.next_u32() % m as u32)).collect();
    let mut targets: Vec<u32> = (0..48).map(|_| stream.next_u32() % v as u32).collect();
    targets[0] = v as u32 - 1;
    let items = Items { rows: &rows, targets: &targets };
    let (_, logps) = forward(&x, weight.view(), items);
    assert_close(
        "logps",
        logps.as_slice(),
        &naive(x.as_slice(), weight.as_slice(), c, items),
        2e-5,
    );

    let mut narrow = device.scratch((v, c), DType::BF16, Category::Workspace).unwrap();
    cast::forward(weight.view(), narrow.view_mut()).unwrap();
    let mut rounded = filled(&device, (v, c), 0.0);
    cast::forward(narrow.view(), rounded.view_mut()).unwrap();
    let (_, logps) = forward(&x, narrow.view(), items);
    assert_close(
        "bf16 head",
        logps.as_slice(),
        &naive(x.as_slice(), rounded.as_slice(), c, items),
        2e-5,
    );
}

#[test]
fn gradients_match_finite_differences_on_dirty_buffers() {
    let device = cpu();
    let (m, c, v) = (7, 33, 47);
    let (x, weight) = (normal(&device, (m, c), 1), normal(&device, (v, c), 2));
    let scaled: Vec<f32> = weight.as_slice::<f32>().iter().map(|w| w * 0.3).collect();
    let weight = tensor(&device, (v, c), &scaled);
    // Row 3 is scored three times, row 5 not at all.
    let items = Items { rows: &[0, 3, 3, 3, 1, 6, 2, 4], targets: &[46, 0, 5, 5, 12, 33, 7, 1] };
    let dlogps = normal(&device, (8, 1), 3);
    for form in FORMS {
        gradients_match(form, &x, &weight, items, &dlogps);
    }
}

fn gradients_match(form: Logits, x: &Tensor, weight: &Tensor, items: Items<'_>, dlogps: &Tensor) {
    let (device, m, c, v) = (x.device(), x.rows(), x.cols(), weight.rows());
    let (lse, _) = forward_as(form, x, weight.view(), items);
    let (mut dx, mut dweight) = (filled(device, (m, c), 9.0), filled(device, (v, c), 2.0));
    let dw = Some(dweight.view_mut());
    linear_logps::backward(
        dlogps.view(),
        x.view(),
        weight.view(),
        items,
        form,
        lse.view(),
        dx.view_mut(),
        dw,
    )
    .unwrap();
    assert!(
        dx.slice(5..6).as_slice::<f32>().iter().all(|d| *d == 0.0),
        "a row that scores nothing has no gradient"
    );
    gradient_matches("dx", x.as_slice(), dx.as_slice(), |values| {
        dot(
            forward_as(form, &tensor(device, (m, c), values), weight.view(), items).1.as_slice(),
            dlogps.as_slice(),
        )
    });
    let clean: Vec<f32> = dweight.as_slice::<f32>().iter().map(|d| d - 2.0).collect();
    gradient_matches("dweight", weight.as_slice(), &clean, |values| {
        dot(
            forward_as(form, x, tensor(device, (v, c), values).view(), items).1.as_slice(),
            dlogps.as_slice(),
        )
    });
}

#[test]
fn a_target_past_the_vocabulary_is_refused() {
    let device = cpu();
    let (x, weight) = (normal(&device, (2, 3), 1), normal(&device, (5, 3), 2));
    let (mut lse, mut logps) = (filled(&device, (2, 1), 0.0), filled(&device, (1, 1), 0.0));
    let items = Items { rows: &[1], targets: &[5] };
    let error = linear_logps::forward(
        x.view(),
        weight.view(),
        items,
        Logits::PLAIN,
        lse.view_mut(),
        logps.view_mut(),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("linear_logps: row 1 scores token 5, but there are 2 rows and 5 tokens")
    );
}

#[test]
fn plan_books_it_and_never_more_than_a_tile_of_logits() {
    plan_takes_what_cpu_takes(|device| {
        let x = normal(device, (600, 7), 1);
        let weight = device.scratch((5000, 7), DType::BF16, Category::Workspace).unwrap();
        let (lse, logps) = forward(&x, weight.view(), Items { rows: &[0, 1], targets: &[3, 4] });
        let mut dx = normal(device, (600, 7), 1);
        let items = Items { rows: &[0, 1], targets: &[3, 4] };
        linear_logps::backward(
            logps.view(),
            x.view(),
            weight.view(),
            items,
            Logits::PLAIN,
            lse.view(),
            dx.view_mut(),
            None,
        )
        .unwrap();
        assert!(device.peak_bytes() < 4 * 512 * 4096 + 4 * 4096 * 7 + 300_000);
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    for (m, c, v) in [(1, 8, 3), (33, 64, 47), (700, 128, 1000), (5, 16, 40_000)] {
        let mut stream = Stream::new(3, 0);
        let rows: Vec<u32> =
            (0..m + 9).map(|i| if i < 3 { 0 } else { stream.next_u32() % m as u32 }).collect();
        let mut targets: Vec<u32> = rows.iter().map(|_| stream.next_u32() % v as u32).collect();
        targets[0] = v as u32 - 1;
        let dlogps = rounded(&stream.normals(rows.len()));
        let head: Vec<f32> = Stream::new(9, 2).normals(v * c).iter().map(|w| w * 0.1).collect();
        let head = rounded(&head);
        let items = Items { rows: &rows, targets: &targets };
        for form in FORMS {
            same_on_cuda(|device| {
                let x = normal_activations(device, (m, c), 1);
                let weight = activations(device, (v, c), &head);
                let (lse, logps) = forward_as(form, &x, weight.view(), items);
                vec![("lse", lse), ("logps", logps)]
            });
            // The gradient of the logits is bf16 in the naive formula, too: sums over it cancel.
            let gradients = |device: &Device| {
                let x = normal_activations(device, (m, c), 1);
                let weight = activations(device, (v, c), &head);
                let (lse, _) = forward_as(form, &x, weight.view(), items);
                let dlogps = tensor(device, (rows.len(), 1), &dlogps);
                let mut dx = filled_activations(device, (m, c), 7.0);
                let mut dweight = filled(device, (v, c), 0.5);
                let (d, w) = (dx.view_mut(), Some(dweight.view_mut()));
                let (x, lse_view) = (x.view(), lse.view());
                linear_logps::backward(
                    dlogps.view(),
                    x,
                    weight.view(),
                    items,
                    form,
                    lse_view,
                    d,
                    w,
                )
                .unwrap();
                [values(&dx), values(&dweight)]
            };
            let Some(gpu) = cuda() else { continue };
            let (exact, ours, again) = (gradients(&cpu()), gradients(&gpu), gradients(&gpu));
            assert!(ours == again, "two runs differ");
            let x = values(&normal_activations(&cpu(), (m, c), 1));
            let naive = naive_gradients(form, &x, &head, c, items, &dlogps);
            for (i, name) in ["dx", "dweight"].into_iter().enumerate() {
                as_good_as(name, &ours[i], &naive[i], &exact[i]);
            }
        }
    }
}

#[test]
fn plan_for_a_gpu_takes_what_the_gpu_takes() {
    let Some(gpu) = cuda() else { return };
    let run = |device: &Device| {
        let x = normal_activations(device, (700, 64), 1);
        let weight = normal_activations(device, (1000, 64), 2);
        let items = Items { rows: &[0, 5, 699], targets: &[1, 2, 999] };
        let (lse, _) = forward(&x, weight.view(), items);
        let dlogps = tensor(device, (3, 1), &[1.0; 3]);
        let mut dx = filled_activations(device, (700, 64), 7.0);
        let (d, l) = (dx.view_mut(), lse.view());
        let form = Logits::PLAIN;
        linear_logps::backward(dlogps.view(), x.view(), weight.view(), items, form, l, d, None)
            .unwrap();
        (device.peak_bytes(), device.peak_by_category())
    };
    assert_eq!(run(&Device::plan_for(Kind::Cuda)), run(&gpu));
}
