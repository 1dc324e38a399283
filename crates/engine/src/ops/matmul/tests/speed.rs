//! How fast the products are on a GPU, by cuBLASLt and by matmul.cu.

use cudarc::driver::sys;

use super::on_cuda::{LAYOUTS, backends, shapes};
use crate::cuda::Cuda;
use crate::cuda::check;
use crate::cuda::gemm::{self, Layout, Product, WORKSPACE_BYTES};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::ops::matmul::low_rank;
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::testing::cuda;

/// `cargo test --release -p prospect-engine speed_of_products -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
fn speed_of_products_on_cuda() {
    let Some(device) = cuda() else { return };
    let cuda = device.cuda();
    eprintln!("{}; {}", cuda.properties().name, cuda.gemm().describe());
    let weights = [(4096, 4096), (11_008, 4096), (4096, 11_008), (16, 4096), (4096, 16)];
    for backend in backends(&device) {
        for rows in [1024, 4096, 8192] {
            for (m, k) in weights {
                for layout in LAYOUTS {
                    let [left, right, out] = shapes(layout, [rows, m, k]);
                    let wide = layout == Layout::BackwardWeight;
                    let (product, _memory) = operands(&device, layout, [rows, m, k]).unwrap();
                    let run = |times: usize| {
                        (0..times).try_for_each(|_| gemm::multiply_on(cuda, backend, &product))
                    };
                    run(3).unwrap();
                    let time = (0..3)
                        .map(|_| milliseconds(cuda, || run(20)).unwrap() / 20.0)
                        .fold(f32::INFINITY, f32::min);
                    let flops = 2.0 * rows as f64 * m as f64 * k as f64;
                    let speed = flops / f64::from(time) / 1e9;
                    let bytes = 2 * (left.0 * left.1 + right.0 * right.1)
                        + out.0 * out.1 * if wide { 8 } else { 2 };
                    let traffic = bytes as f64 / f64::from(time) / 1e6;
                    eprintln!(
                        "{backend:?} {layout:?} rows {rows} weight {m} x {k}: {time:.4} ms, {speed:.1} TFLOP/s, {traffic:.0} GB/s"
                    );
                }
            }
        }
    }
}

/// `cargo test --release -p prospect-engine speed_of_adapters -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stderr)]
fn speed_of_adapters_on_cuda() {
    let Some(device) = cuda() else { return };
    let cuda = device.cuda();
    for (rows, m, k) in
        [(8192, 8192, 16), (8192, 2048, 16), (8192, 512, 16), (8192, 11_008, 16), (8192, 4096, 32)]
    {
        let (product, _memory) = operands(&device, Layout::Forward, [rows, m, k]).unwrap();
        let product = Product { add: true, ..product };
        let bytes = (4 * rows * m + 2 * (rows + m) * k) as f64;
        let time = |multiply: &dyn Fn() -> Result<()>| {
            (0..3).try_for_each(|_| multiply()).unwrap();
            let run =
                || milliseconds(cuda, || (0..20).try_for_each(|_| multiply())).unwrap() / 20.0;
            (0..3).map(|_| run()).fold(f32::INFINITY, f32::min)
        };
        let own = time(&|| low_rank::launch(cuda, &product));
        eprint!(
            "rows {rows} outputs {m} rank {k}: low_rank {:.0} GB/s",
            bytes / f64::from(own) / 1e6
        );
        for backend in backends(&device) {
            let theirs = time(&|| gemm::multiply_on(cuda, backend, &product));
            eprint!(", {backend:?} {:.0} GB/s", bytes / f64::from(theirs) / 1e6);
        }
        eprintln!();
    }
}

/// Operands filled with normal numbers: zeros would run at other clocks. A weight's gradient is f32 and added to.
fn operands(
    device: &Device,
    layout: Layout,
    [n, m, k]: [usize; 3],
) -> Result<(Product, [Tensor; 4])> {
    let wide = layout == Layout::BackwardWeight;
    let [left, right, out] = shapes(layout, [n, m, k]);
    let take = |shape: (usize, usize), dtype| device.scratch(shape, dtype, Category::Workspace);
    let dtype = if wide { DType::F32 } else { DType::BF16 };
    let mut memory = [
        take(left, DType::BF16)?,
        take(right, DType::BF16)?,
        take(out, dtype)?,
        device.scratch((WORKSPACE_BYTES, 1), DType::U8, Category::Workspace)?,
    ];
    let pattern: Vec<u8> = Stream::new(0, 0)
        .normals(1 << 20)
        .into_iter()
        .flat_map(|value| half::bf16::from_f32(value).to_le_bytes())
        .collect();
    memory[2].zero();
    for tensor in &memory[..2] {
        let view = tensor.view();
        for start in (0..view.bytes()).step_by(pattern.len()) {
            let length = pattern.len().min(view.bytes() - start);
            device.cuda().copy_up(view.address() + start as u64, &pattern[..length])?;
        }
    }
    let product = Product {
        layout,
        n,
        m,
        k,
        left: memory[0].view().into(),
        right: memory[1].view().into(),
        out: memory[2].view().into(),
        alpha: 1.0,
        add: wide,
        workspace: memory[3].view().address(),
    };
    Ok((product, memory))
}

/// Milliseconds of the GPU between the start and the end of what `queue` queues.
#[allow(unsafe_code)]
fn milliseconds(cuda: &Cuda, queue: impl FnOnce() -> Result<()>) -> Result<f32> {
    cuda.make_current()?;
    let mut events = [std::ptr::null_mut(); 2];
    let mut elapsed = 0.0;
    // SAFETY: events are made before they are recorded and destroyed once; the stream lives as long as `cuda`.
    unsafe {
        for event in &mut events {
            check("cuEventCreate", sys::cuEventCreate(event, 0))?;
        }
        let measured = (|| {
            check("cuEventRecord", sys::cuEventRecord(events[0], cuda.stream()))?;
            queue()?;
            check("cuEventRecord", sys::cuEventRecord(events[1], cuda.stream()))?;
            check("cuEventSynchronize", sys::cuEventSynchronize(events[1]))?;
            let time = sys::cuEventElapsedTime(&mut elapsed, events[0], events[1]);
            check("cuEventElapsedTime", time)
        })();
        for event in events {
            let _ = sys::cuEventDestroy_v2(event);
        }
        measured?;
    }
    Ok(elapsed)
}
