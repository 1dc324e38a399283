//! The products on a GPU, by cuBLASLt and by matmul.cu, against f64 sums of the same bf16 operands.

use crate::cuda::gemm::{self, Backend, Layout, Matrix, Product};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::ops::matmul::{self, Output, low_rank};
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::testing::{activations, as_good_as, cuda, filled, normal, rounded, values};

pub(super) const LAYOUTS: [Layout; 3] =
    [Layout::Forward, Layout::BackwardInput, Layout::BackwardWeight];

/// What a test varies besides the sizes.
#[derive(Clone, Copy, Debug)]
struct Case {
    layout: Layout,
    sizes: [usize; 3],
    /// Elements between a row's end and the next row.
    gap: usize,
    wide: bool,
    add: bool,
}

pub(super) fn backends(device: &Device) -> Vec<Backend> {
    let found = device.cuda().gemm().backend() == Backend::CublasLt;
    if found { vec![Backend::CublasLt, Backend::Own] } else { vec![Backend::Own] }
}

/// Rows and columns of left, right and out.
pub(super) fn shapes(layout: Layout, [n, m, k]: [usize; 3]) -> [(usize, usize); 3] {
    match layout {
        Layout::Forward => [(n, k), (m, k), (n, m)],
        Layout::BackwardInput => [(n, m), (m, k), (n, k)],
        Layout::BackwardWeight => [(n, m), (n, k), (m, k)],
    }
}

/// A host matrix with `gap` NaN after each row.
fn gapped((rows, cols): (usize, usize), gap: usize, elements: &[f32]) -> Vec<f32> {
    let mut all = vec![f32::NAN; rows * (cols + gap)];
    for row in 0..rows {
        all[row * (cols + gap)..][..cols].copy_from_slice(&elements[row * cols..][..cols]);
    }
    all
}

const OLD: f32 = 3.25;
const ALPHA: f32 = 0.75;

fn check(device: &Device, backend: Backend, case: Case) {
    check_by(device, &format!("{backend:?}"), case, |product| {
        gemm::multiply_on(device.cuda(), backend, product)
    });
}

fn check_by(device: &Device, by: &str, case: Case, multiply: impl Fn(&Product) -> Result<()>) {
    let Case { layout, sizes: [n, m, k], gap, wide, add } = case;
    let [left, right, out] = shapes(layout, case.sizes);
    let numbers =
        |shape: (usize, usize), stream| rounded(&Stream::new(7, stream).normals(shape.0 * shape.1));
    let (a, b) = (numbers(left, 1), numbers(right, 2));
    let up = |shape: (usize, usize), elements: &[f32]| {
        activations(device, (shape.0, shape.1 + gap), &gapped(shape, gap, elements))
    };
    let (left_on, right_on) = (up(left, &a), up(right, &b));
    let stride = out.1 + gap;
    let dtype = if wide { DType::F32 } else { DType::BF16 };
    let workspace =
        device.scratch((gemm::WORKSPACE_BYTES, 1), DType::U8, Category::Workspace).unwrap();
    let run = || {
        let dirt = vec![OLD; out.0 * stride];
        let result = if wide {
            filled(device, (out.0, stride), OLD)
        } else {
            activations(device, (out.0, stride), &dirt)
        };
        let product = Product {
            layout,
            n,
            m,
            k,
            left: left_on.view().into(),
            right: right_on.view().into(),
            out: Matrix { dtype, ..result.view().into() },
            alpha: ALPHA,
            add,
            workspace: workspace.view().address(),
        };
        multiply(&product).unwrap();
        values(&result)
    };
    let (got, again) = (run(), run());
    let name = format!("{by} {case:?}");
    let same = got.iter().zip(&again).all(|(x, y)| x.to_bits() == y.to_bits());
    assert!(same, "{name}: other bytes the second time");

    let at = |i: usize, j: usize, l: usize| match layout {
        Layout::Forward => (a[i * k + l], b[j * k + l]),
        Layout::BackwardInput => (a[i * m + l], b[l * k + j]),
        Layout::BackwardWeight => (a[l * m + i], b[l * k + j]),
    };
    let inner = match layout {
        Layout::Forward => k,
        Layout::BackwardInput => m,
        Layout::BackwardWeight => n,
    };
    // All results of small products, some of large ones.
    let every = (out.0 * out.1 * inner / 20_000_000 + 1) | 1;
    let (mut ours, mut naive, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..out.0 * stride {
        let (i, j) = (index / stride, index % stride);
        if j >= out.1 {
            assert!(got[index] == OLD, "{name}: wrote past the end of row {i}");
        } else if index % every == 0 {
            let (mut sum, mut single) = (0f64, 0f32);
            for l in 0..inner {
                let (x, y) = at(i, j, l);
                sum += f64::from(x) * f64::from(y);
                single += x * y;
            }
            let old = if add { OLD } else { 0.0 };
            ours.push(got[index]);
            exact.push((f64::from(ALPHA) * sum + f64::from(old)) as f32);
            // A framework rounds the product, then the sum.
            let product = ALPHA * single;
            naive.push(if wide {
                product + old
            } else {
                rounded(&[rounded(&[product])[0] + old])[0]
            });
        }
    }
    as_good_as(&name, &ours, &naive, &exact);
    if wide {
        // Sums are f32, but a matrix instruction cuts what lies below the last bit of its largest summand instead of
        // rounding it (Fasi, Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ CS 2021),
        // once for at least eight products.
        let worst = |v: &[f32]| v.iter().zip(&exact).fold(0f32, |w, (x, e)| w.max((x - e).abs()));
        let largest = exact.iter().fold(OLD, |w, x| w.max(x.abs()));
        let allowed = 2.0 * worst(&naive) + (inner / 8 + 2) as f32 * f32::EPSILON * largest;
        assert!(worst(&ours) <= allowed, "{name}: off by {}, allowed {allowed}", worst(&ours));
    }
}

#[test]
fn odd_shapes_on_cuda_in_all_layouts_and_by_both_backends() {
    let Some(device) = cuda() else { return };
    let sizes =
        [[1, 7, 33], [33, 47, 130], [130, 257, 7], [257, 1, 47], [7, 130, 257], [47, 33, 1]];
    for backend in backends(&device) {
        for (i, layout) in LAYOUTS.into_iter().cycle().take(18).enumerate() {
            let sizes = sizes[i / 3];
            let case = Case { layout, sizes, gap: 0, wide: i % 2 == 1, add: i / 2 % 2 == 1 };
            check(&device, backend, case);
            check(&device, backend, Case { gap: 3, wide: i % 2 == 0, ..case });
        }
    }
}

#[test]
fn shapes_of_models_on_cuda_in_all_layouts_and_by_both_backends() {
    let Some(device) = cuda() else { return };
    // Square and wide tiles, edges of both, LoRA's skinny products, one row, split inner sizes.
    let sizes = [
        [128, 256, 64],
        [200, 136, 264],
        [1000, 512, 1024],
        [1, 1024, 512],
        [8, 2048, 2048],
        [3000, 16, 512],
        [3000, 512, 16],
        [520, 64, 4096],
        [4096, 4096, 128],
    ];
    for backend in backends(&device) {
        for (i, layout) in LAYOUTS.into_iter().cycle().take(3 * sizes.len()).enumerate() {
            let sizes = sizes[i / 3];
            let (wide, add) = (layout == Layout::BackwardWeight || i % 2 == 1, i / 2 % 2 == 1);
            check(&device, backend, Case { layout, sizes, gap: 0, wide, add });
            if i < 12 {
                check(&device, backend, Case { layout, sizes, gap: 8, wide: !wide, add: !add });
            }
        }
    }
}

#[test]
fn an_adapters_share_on_cuda_is_added_for_every_rank_and_at_every_edge() {
    let Some(device) = cuda() else { return };
    // Ranks that fill their steps and that do not, rows and columns on both sides of what a block does.
    let sizes = [
        [1, 8, 8],
        [47, 24, 16],
        [130, 264, 24],
        [1000, 512, 16],
        [300, 2048, 32],
        [129, 1096, 8],
        [33, 256, 32],
        [5000, 4096, 16],
    ];
    for sizes in sizes {
        for gap in [0, 8] {
            let case = Case { layout: Layout::Forward, sizes, gap, wide: false, add: true };
            check_by(&device, "low_rank", case, |product| {
                assert!(low_rank::takes(product), "{case:?}");
                low_rank::launch(device.cuda(), product)
            });
        }
    }
}

#[test]
fn the_op_on_cuda_is_the_op_on_the_cpu() {
    let Some(device) = cuda() else { return };
    let cpu = crate::testing::cpu();
    for (n, m, k) in [(47, 33, 130), (256, 128, 64), (1, 257, 48)] {
        let numbers = |rows, cols, stream| rounded(&Stream::new(3, stream).normals(rows * cols));
        let (x, weight, dy) = (numbers(n, k, 1), numbers(m, k, 2), numbers(n, m, 3));
        let run = |device: &Device| -> [Vec<f32>; 3] {
            let on = |shape, values: &[f32]| activations(device, shape, values);
            let (x, weight, dy) = (on((n, k), &x), on((m, k), &weight), on((n, m), &dy));
            let mut y: Tensor = on((n, m), &vec![9.0; n * m]);
            let mut dx = on((n, k), &vec![2.0; n * k]);
            let mut dweight = normal(device, (m, k), 4);
            let write = Output::Write;
            matmul::forward(x.view(), weight.view(), 0.5, write, y.view_mut()).unwrap();
            matmul::backward_input(dy.view(), weight.view(), 2.0, Output::Add, dx.view_mut())
                .unwrap();
            matmul::backward_weight(dy.view(), x.view(), 0.5, dweight.view_mut()).unwrap();
            [values(&y), values(&dx), values(&dweight)]
        };
        let (ours, exact) = (run(&device), run(&cpu));
        for ((name, ours), exact) in ["y", "dx", "dweight"].into_iter().zip(&ours).zip(&exact) {
            as_good_as(name, ours, &rounded(exact), exact);
        }
    }
}
