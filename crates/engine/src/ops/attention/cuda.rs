//! Attention on CUDA: which kernels, for which heads.

pub(super) mod flash;
mod standard;

pub(super) use flash::{backward as flash_backward, forward as flash_forward};
pub(super) use standard::{backward as standard_backward, forward as standard_forward};

use super::{Heads, Kernel, OP, Segment};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::arena::Category;
use crate::tensor::Tensor;

/// Every file of kernels of this room.
pub(crate) fn modules() -> Vec<&'static crate::cuda::Module> {
    let flash = flash::FLASH.iter().flat_map(|flash| [&flash.forward, &flash.backward]);
    flash.chain([&standard::MODULE]).collect()
}

/// Whether there is a flash kernel for a head size.
pub(super) fn has_flash(head_dim: usize) -> bool {
    flash::of(head_dim).is_some()
}

/// Refuses heads that no kernel is for.
pub(super) fn check(heads: Heads) -> Result<()> {
    let (what, hint) = match heads.kernel {
        Kernel::Flash if flash::of(heads.head_dim).is_none() => (
            format!(
                "head_dim = {}, and the flash kernels on CUDA are for 64, 80, 96, 128 and 256",
                heads.head_dim
            ),
            "write attention = \"standard\" in [train]; it takes more memory and time",
        ),
        Kernel::Standard if !heads.head_dim.is_multiple_of(8) => (
            format!("head_dim = {}, and attention on CUDA takes multiples of 8", heads.head_dim),
            "train this model with device = \"cpu\"",
        ),
        _ => return Ok(()),
    };
    Err(Error::Argument { op: OP, what, hint })
}

/// What a call takes of the step's stack while it runs.
pub(super) struct Workspace {
    tensors: Vec<Tensor>,
}

impl Workspace {
    pub(super) fn forward(
        device: &Device,
        segments: &[Segment],
        heads: Heads,
    ) -> Result<Workspace> {
        let tensors = match heads.kernel {
            Kernel::Flash => Vec::new(),
            Kernel::Standard => vec![standard::scores(device, segments, heads)?],
        };
        Ok(Workspace { tensors })
    }

    /// `rows` are those of q and of k.
    pub(super) fn backward(
        device: &Device,
        segments: &[Segment],
        heads: Heads,
        rows: (usize, usize),
    ) -> Result<Workspace> {
        let f32s = |shape: (usize, usize)| device.scratch(shape, DType::F32, Category::Workspace);
        let tensors = match heads.kernel {
            // Two numbers of every row of every head.
            Kernel::Flash => vec![f32s((heads.num_heads, 2 * rows.0))?],
            Kernel::Standard => vec![
                standard::scores(device, segments, heads)?,
                standard::scores(device, segments, heads)?,
                f32s((rows.1, heads.key_cols()))?,
                f32s((rows.1, heads.key_cols()))?,
            ],
        };
        Ok(Workspace { tensors })
    }
}

/// The window as the kernels take it: more than any position without one.
fn window(heads: Heads) -> i32 {
    heads.window.map_or(1 << 30, |window| window.min(1 << 30) as i32)
}

/// The soft cap as the kernels take it: 0 for none.
fn soft_cap(heads: Heads) -> f32 {
    heads.soft_cap.unwrap_or(0.0)
}
