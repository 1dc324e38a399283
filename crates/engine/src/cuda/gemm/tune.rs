//! `prospect tune`: the only place that measures algorithms. Never called by a run.

use cudarc::driver::sys;

use super::{Backend, Key, Layout, Matrix, Product, Table, WORKSPACE_BYTES, fault};
use crate::cuda::Cuda;
use crate::cuda::blas::table::Machine;
use crate::cuda::context::check;
use crate::cuda::libraries::{self, Surroundings};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::arena::Category;
use crate::random::Stream;
use crate::tensor::Tensor;

/// Answers of the heuristic that are measured.
const CANDIDATES: usize = 8;
/// Products between two events, and repetitions of which the fastest counts.
const TIMES: usize = 10;
const REPETITIONS: usize = 3;
/// A later answer replaces the first only where it is faster by more than clocks and temperature explain.
const WORTH: f32 = 0.98;

/// Measures the heuristic's answers for `keys` on the device and returns the table of the fastest ones. It holds only
/// products whose fastest algorithm is not the heuristic's first.
pub fn tune(device: &Device, keys: &[Key]) -> Result<Table> {
    let cuda = device.cuda();
    let around = Surroundings::here();
    let (Some(blas), Some(cache)) = (&cuda.gemm().blas, libraries::cache(&around)) else {
        return Err(Error::Argument {
            op: "matmul",
            what: match cuda.gemm().backend() {
                Backend::Own => format!("nothing to tune: {}", cuda.gemm().describe()),
                Backend::CublasLt => "no cache folder: HOME is not set".to_owned(),
            },
            hint: "tuning needs cuBLASLt and a folder for its table; set HOME or XDG_CACHE_HOME",
        });
    };
    let mut table = Table::new(&cache, Machine::new(cuda.properties(), blas.version()));
    let stream = cuda.stream().cast();
    for key in keys {
        let (product, _memory) = operands(device, key)?;
        let mut best: Option<f32> = None;
        for (i, algorithm) in
            blas.candidates(key, CANDIDATES).map_err(fault)?.into_iter().enumerate()
        {
            // A candidate that does not run is not taken.
            if blas.trial(&product, &algorithm, TIMES, stream).is_err() {
                continue;
            }
            let mut fastest = f32::INFINITY;
            for _ in 0..REPETITIONS {
                let run = || blas.trial(&product, &algorithm, TIMES, stream).map_err(fault);
                fastest = fastest.min(milliseconds(cuda, run)?);
            }
            if best.is_none_or(|best| fastest < best * WORTH) {
                best = Some(fastest);
                if i > 0 {
                    table.insert(*key, algorithm);
                }
            }
        }
    }
    Ok(table)
}

/// Operands of a key's shape, filled with normal numbers: zeros would run at other clocks.
pub(crate) fn operands(device: &Device, key: &Key) -> Result<(Product, [Tensor; 4])> {
    let Key { layout, rows: n, m, k, strides, wide, add, .. } = *key;
    let (left, right, out) = match layout {
        Layout::Forward => (n, m, n),
        Layout::BackwardInput => (n, m, n),
        Layout::BackwardWeight => (n, n, m),
    };
    let take = |rows: usize, stride: usize, dtype| {
        device.scratch((rows, stride), dtype, Category::Workspace)
    };
    let dtype = if wide { DType::F32 } else { DType::BF16 };
    let mut memory = [
        take(left, strides[0], DType::BF16)?,
        take(right, strides[1], DType::BF16)?,
        take(out, strides[2], dtype)?,
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
    let matrix = |tensor: &Tensor, stride| Matrix { stride, ..Matrix::from(tensor.view()) };
    let product = Product {
        layout,
        n,
        m,
        k,
        left: matrix(&memory[0], strides[0]),
        right: matrix(&memory[1], strides[1]),
        out: matrix(&memory[2], strides[2]),
        alpha: 1.0,
        add,
        workspace: memory[3].view().address(),
    };
    Ok((product, memory))
}

/// Milliseconds of the GPU between the start and the end of what `queue` queues.
#[allow(unsafe_code)]
pub(crate) fn milliseconds(cuda: &Cuda, queue: impl FnOnce() -> Result<()>) -> Result<f32> {
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
