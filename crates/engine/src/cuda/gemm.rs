//! Matrix products on CUDA: one entry point for all ops, and the choice of who computes them.
//!
//! Operands are bf16, sums are f32, results bf16 or f32; all matrices are row-major with a stride. The three
//! layouts are those of a linear layer with weight W (M, K) over N rows:
//! * forward: `y (N, M) = alpha x (N, K) W^T`
//! * backward_input: `dx (N, K) = alpha dy (N, M) W`
//! * backward_weight: `dW (M, K) = alpha dy^T x`
//!
//! cuBLASLt computes them where it is found, kernels of our own where it is not, or where cuBLASLt has no algorithm
//! for a shape. `PROSPECT_GEMM=own` or `cublaslt` decides it by hand. An adapter's share of a layer's outputs, which is
//! a matter of memory alone, is always computed by a kernel of its own.

use std::io;

use crate::cuda::blas::{Blas, Failure};
pub use crate::cuda::blas::{Measured, Written};
use crate::cuda::libraries::Surroundings;
use crate::cuda::{Cuda, Library, Properties};
use crate::device::{Device, Kind};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::arena::Category;
use crate::ops::matmul::{self, low_rank};
use crate::tensor::{Tensor, View, ViewMut};

/// Workspace of a product: for the partial sums of products whose inner size is split among blocks. 32 MiB is what
/// NVIDIA advises for Hopper; one size for all GPUs keeps a plan independent of the GPU it is made for.
pub(crate) const WORKSPACE_BYTES: usize = 32 << 20;

/// Which of a linear layer's products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `y (N, M) = x (N, K) W (M, K)^T`
    Forward,
    /// `dx (N, K) = dy (N, M) W (M, K)`
    BackwardInput,
    /// `dW (M, K) = dy (N, M)^T x (N, K)`
    BackwardWeight,
}

impl Layout {
    /// All three.
    pub const ALL: [Layout; 3] = [Layout::Forward, Layout::BackwardInput, Layout::BackwardWeight];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Forward => "forward",
            Layout::BackwardInput => "backward_input",
            Layout::BackwardWeight => "backward_weight",
        }
    }
}

/// A row-major matrix in a GPU's memory; its shape is told by the product it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    /// Its first element.
    pub(crate) address: u64,
    /// What its elements are.
    pub(crate) dtype: DType,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
}

impl From<View<'_>> for Matrix {
    fn from(view: View<'_>) -> Matrix {
        Matrix { address: view.address(), dtype: view.dtype(), stride: view.cols() }
    }
}

impl From<&ViewMut<'_>> for Matrix {
    fn from(view: &ViewMut<'_>) -> Matrix {
        Matrix::from(view.view())
    }
}

/// `out = alpha left * right`, in one of the layouts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Which product it is.
    pub(crate) layout: Layout,
    /// Rows of x, y and their gradients.
    pub(crate) n: usize,
    /// Outputs of the layer, rows of W.
    pub(crate) m: usize,
    /// Inputs of the layer, columns of W.
    pub(crate) k: usize,
    /// x, dy or dy. bf16.
    pub(crate) left: Matrix,
    /// W, W or x. bf16.
    pub(crate) right: Matrix,
    /// y, dx or dW. bf16 or f32; it shares no bytes with the others.
    pub(crate) out: Matrix,
    /// Scale of the product.
    pub(crate) alpha: f32,
    /// True to add to the result's old value, false to overwrite it.
    pub(crate) add: bool,
    /// [`WORKSPACE_BYTES`] of the GPU's memory, multiples of 256 from its start; free again once the product has run.
    pub(crate) workspace: u64,
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// NVIDIA's library.
    CublasLt,
    /// The kernels of [`crate::ops::matmul`].
    Own,
}

/// What a context keeps for its products. Its owner calls [`Gemm::release`] while the context still lives.
pub struct Gemm {
    blas: Option<Blas>,
    /// Why there is no `blas`.
    reason: String,
}

impl Gemm {
    /// Looks for cuBLASLt. The context is current.
    pub(crate) fn new(properties: &Properties) -> Result<Gemm> {
        let around = Surroundings::here();
        let choice = (around.variable)("PROSPECT_GEMM");
        let choice = choice.map(|text| text.to_string_lossy().into_owned());
        let wanted = match choice.as_deref() {
            Some("own") => {
                return Ok(Gemm { blas: None, reason: "PROSPECT_GEMM is own".to_owned() });
            }
            Some("cublaslt") => true,
            None => false,
            Some(other) => {
                return Err(Error::Argument {
                    op: "matmul",
                    what: format!("PROSPECT_GEMM is '{other}'"),
                    hint: "write own or cublaslt, or unset it",
                });
            }
        };
        let found = Blas::find(properties.driver.0, &around).map_err(|missing| missing.to_string());
        let started = found.and_then(|found| {
            // A library the driver is too old for: the own kernels still run.
            Blas::new(found, WORKSPACE_BYTES, properties, &around).map_err(|failure| {
                format!("{} answered {} ({})", failure.call, failure.status, failure.name())
            })
        });
        match started {
            Ok(blas) => Ok(Gemm { blas: Some(blas), reason: String::new() }),
            Err(reason) if wanted => Err(Error::Argument {
                op: "matmul",
                what: format!("PROSPECT_GEMM is cublaslt, but {reason}"),
                hint: "unset PROSPECT_GEMM to compute with Prospect's own kernels",
            }),
            Err(reason) => Ok(Gemm { blas: None, reason }),
        }
    }

    /// Who computes products that both can.
    pub fn backend(&self) -> Backend {
        if self.blas.is_some() { Backend::CublasLt } else { Backend::Own }
    }

    /// The library, if it computes; else why it does not.
    pub fn library(&self) -> std::result::Result<Library, &str> {
        let Some(blas) = &self.blas else { return Err(&self.reason) };
        let (major, minor, patch) = blas.version();
        Ok(Library { version: format!("{major}.{minor}.{patch}"), path: blas.path().to_path_buf() })
    }

    /// Who computes, and from where: what decides the bytes of products, in words.
    pub fn describe(&self) -> String {
        let Some(blas) = &self.blas else {
            return format!("Prospect's own kernels ({})", self.reason);
        };
        let (major, minor, patch) = blas.version();
        let (path, choices) = (blas.path().display(), blas.choices());
        format!("cuBLASLt {major}.{minor}.{patch} from {path}{choices}")
    }

    /// From here on each product is computed by the fastest of the first `candidates` answers of cuBLASLt's heuristic,
    /// measured when it is first met: two such runs may differ. Or says why cuBLASLt computes nothing.
    pub fn tune(&self, candidates: usize) -> std::result::Result<(), &str> {
        let blas = self.blas.as_ref().ok_or(self.reason.as_str())?;
        blas.start_tuning(candidates);
        Ok(())
    }

    /// What was met since [`Gemm::tune`], in that order.
    pub fn measured(&self) -> Vec<Measured> {
        self.blas.as_ref().map(Blas::measured).unwrap_or_default()
    }

    /// Writes the choices made since [`Gemm::tune`] as the table that runs on this GPU with this cuBLASLt take.
    pub fn write_choices(&self) -> io::Result<Written> {
        let place = self.blas.as_ref().and_then(|blas| Some((blas, blas.table()?)));
        let Some((blas, table)) = place else {
            return Err(io::Error::other("neither HOME nor XDG_CACHE_HOME says where"));
        };
        blas.write_table(table)
    }

    /// Destroys the library's handle. The context is current, and nothing that was queued still runs.
    pub(crate) fn release(&mut self) {
        self.blas = None;
    }
}

/// The workspace a product needs on this device, from the step's stack; none where the CPU computes.
pub(crate) fn workspace(device: &Device) -> Result<Option<Tensor>> {
    if device.arithmetic() != Kind::Cuda {
        return Ok(None);
    }
    device.scratch((WORKSPACE_BYTES, 1), DType::U8, Category::Workspace).map(Some)
}

/// Queues a product on the compute stream.
pub(crate) fn multiply(cuda: &Cuda, product: &Product) -> Result<()> {
    if low_rank::takes(product) {
        return low_rank::launch(cuda, product);
    }
    multiply_on(cuda, cuda.gemm().backend(), product)
}

/// The same by a backend of the caller's choice.
pub(crate) fn multiply_on(cuda: &Cuda, backend: Backend, product: &Product) -> Result<()> {
    let &Product { layout, n, m, k, left, right, out, .. } = product;
    assert_eq!((left.dtype, right.dtype), (DType::BF16, DType::BF16), "operands are bf16");
    assert!(matches!(out.dtype, DType::BF16 | DType::F32), "results are bf16 or f32");
    let (rows, columns, inner) = match layout {
        Layout::Forward => (n, m, k),
        Layout::BackwardInput => (n, k, m),
        Layout::BackwardWeight => (m, k, n),
    };
    if rows == 0 || columns == 0 || (inner == 0 && product.add) {
        return Ok(());
    }
    if backend == Backend::CublasLt && inner > 0 {
        let Some(blas) = &cuda.gemm().blas else {
            unreachable!("the backend is what was loaded");
        };
        cuda.make_current()?;
        blas.tune(cuda, product)?;
        if blas.multiply(product, cuda.stream().cast()).map_err(fault)? {
            return Ok(());
        }
    }
    matmul::cuda::launch(cuda, product)
}

/// A refusal of the library as an error that a person can act on.
pub(super) fn fault(failure: Failure) -> Error {
    let hint = match failure.status {
        1 | 3 => {
            "other programs hold the GPU's memory (see `nvidia-smi`); close them, or lower memory_limit"
        }
        8 => {
            "this cuBLASLt does not know this GPU: install a newer nvidia-cublas, or set PROSPECT_GEMM=own"
        }
        _ => "set PROSPECT_GEMM=own to compute with Prospect's own kernels",
    };
    Error::Cuda {
        call: failure.call,
        code: failure.status as u32,
        name: failure.name().to_owned(),
        hint,
    }
}
