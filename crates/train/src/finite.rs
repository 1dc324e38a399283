//! Whether a model's weights are numbers: one that is not makes every loss one that is not.

use models::checkpoint::Checkpoint;
use models::weights::is_codes;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::error::{Error, Result};

/// An error that names the first tensor, by name, with a value that is infinite or not a number.
pub fn check(checkpoint: &Checkpoint) -> Result<()> {
    let names: Vec<&str> = checkpoint.names().collect();
    let found: Vec<Option<usize>> = names.par_iter().map(|name| first(checkpoint, name)).collect();
    let Some((name, at)) = names.iter().zip(found).find_map(|(name, at)| Some((name, at?))) else {
        return Ok(());
    };
    let file = checkpoint.get(name).map_or_else(Default::default, |stored| stored.file.to_owned());
    Err(Error::input(
        format!("{name} in '{}' is not finite at element {at}", file.display()),
        "the file is damaged, or the model was broken when it was saved: download it again",
    ))
}

/// The first element whose exponent is all ones; types without one, and codes under another type, have none.
fn first(checkpoint: &Checkpoint, name: &str) -> Option<usize> {
    let stored = checkpoint.get(name)?;
    if is_codes(checkpoint, name) {
        return None;
    }
    fn at<const N: usize>(bytes: &[u8], broken: impl Fn([u8; N]) -> bool) -> Option<usize> {
        bytes.as_chunks::<N>().0.iter().position(|element| broken(*element))
    }
    let ones = |high: u16, mask: u16| high & mask == mask;
    match stored.dtype {
        Dtype::F32 => at(stored.bytes, |[_, _, c, d]| ones(u16::from_le_bytes([c, d]), 0x7f80)),
        Dtype::BF16 => at(stored.bytes, |bytes| ones(u16::from_le_bytes(bytes), 0x7f80)),
        Dtype::F16 => at(stored.bytes, |bytes| ones(u16::from_le_bytes(bytes), 0x7c00)),
        _ => None,
    }
}
