//! The launches of grad_norm.cu.

use crate::cuda::Module;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::tensor::{Tensor, View};

pub(crate) static MODULE: Module = Module {
    name: "grad_norm",
    ptx: include_str!("grad_norm.ptx"),
    kernels: &[("grad_norm_squares", 256, 0)],
};

/// Blocks that share the work on one tensor; each leaves an f64.
const BLOCKS: usize = 64;

/// Room for the sums of `tensors` tensors: an f64 is two words.
pub(super) fn partial_sums(device: &Device, tensors: usize) -> Result<Tensor> {
    device.scratch((tensors * BLOCKS, 2), DType::U32, Category::Workspace)
}

pub(super) fn sum_of_squares(gradients: &[View<'_>], partial: Tensor) -> Result<f64> {
    let tensors: Vec<[u64; 3]> = gradients
        .iter()
        .enumerate()
        .map(|(i, gradient)| {
            let to = partial.slice(i * BLOCKS..(i + 1) * BLOCKS);
            [gradient.address(), gradient.shape().len() as u64, to.address()]
        })
        .collect();
    let cuda = partial.device().cuda();
    cuda.launch_over(&MODULE, "grad_norm_squares", BLOCKS as u32, &tensors, &[])?;
    let words: Vec<u32> = partial.to_vec()?;
    let number = |pair: &[u32; 2]| f64::from_bits(u64::from(pair[1]) << 32 | u64::from(pair[0]));
    Ok(words.as_chunks::<2>().0.iter().map(number).sum())
}
