//! The CUDA device: NVIDIA's driver, loaded at run time, and nothing else required.
//!
//! [`Cuda::open`] finds the driver, a GPU and its context; ops launch kernels of committed PTX on one compute
//! stream through [`Cuda::launch`]. Everything is ordered by that stream, so a tensor may be dropped while kernels
//! that use it wait. An error that a GPU reports late is kept and returned by the next call that can fail.

mod aside;
mod blas;
mod context;
pub mod gemm;
mod host;
mod inspect;
mod launch;
mod libraries;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use context::check;
pub use context::{Cuda, Properties};
pub(crate) use host::DeviceMemory;
pub use inspect::{Compiled, Library, cublaslt_places, library_folder, nccl};
pub(crate) use launch::{Arg, Module};
