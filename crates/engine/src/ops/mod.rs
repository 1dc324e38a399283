//! The ops: one room each, with the formula, the arguments' shapes and what is saved for backward at its top.
//!
//! Outputs that are parameters' gradients are added to; every other output is overwritten, unless the room says
//! so. Reading order: what a step of a decoder meets first comes first.

pub mod embedding;

pub mod rms_norm;

pub mod cast;
pub mod int8;
pub mod matmul;
pub mod nf4;

pub mod rope;

pub mod attention;

pub mod add;
pub mod columns;
pub mod gated_mlp;
pub mod scale;

pub mod dora;
pub mod dropout;
pub mod linear_logps;

pub mod adamw;
pub mod grad_norm;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::View;

/// Every file of kernels there is, for the test of their launch tables and for the self-test.
pub(crate) fn modules() -> Vec<&'static crate::cuda::Module> {
    let mut all = vec![
        &embedding::cuda::MODULE,
        &rms_norm::cuda::MODULE,
        &cast::cuda::MODULE,
        &matmul::cuda::FORWARD,
        &matmul::cuda::BACKWARD_INPUT,
        &matmul::cuda::BACKWARD_WEIGHT,
        &matmul::low_rank::MODULE,
        &nf4::cuda::MODULE,
        &int8::cuda::MODULE,
        &rope::cuda::MODULE,
        &add::cuda::MODULE,
        &columns::cuda::MODULE,
        &scale::cuda::MODULE,
        &gated_mlp::cuda::MODULE,
        &dora::cuda::MODULE,
        &dropout::cuda::MODULE,
        &linear_logps::cuda::MODULE,
        &grad_norm::cuda::MODULE,
        &adamw::cuda::MODULE,
    ];
    all.extend(attention::cuda::modules());
    all
}

/// Blocks of 256 threads that do `each` elements a thread.
fn blocks(elements: usize, each: usize) -> [u32; 3] {
    [elements.div_ceil(256 * each) as u32, 1, 1]
}

/// Checks one argument of an op against the contract in its room.
fn expect(
    op: &'static str,
    name: &'static str,
    view: View<'_>,
    shape: (usize, usize),
    dtype: DType,
) -> Result<()> {
    let got = (view.rows(), view.cols());
    if got != shape {
        return Err(Error::Shape { op, name, got, expected: shape });
    }
    if view.dtype() != dtype {
        return Err(Error::DType { op, name, got: view.dtype(), expected: dtype });
    }
    Ok(())
}
