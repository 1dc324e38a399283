//! Casts on the CPU.

use half::bf16;
use rayon::prelude::*;

const CHUNK: usize = 16 * 1024;

pub(super) fn widen(x: &[bf16], y: &mut [f32]) {
    x.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK)).for_each(|(x, y)| {
        // bf16 is the upper half of an f32, so the shift is the exact value.
        x.iter().zip(y).for_each(|(x, y)| *y = f32::from_bits(u32::from(x.to_bits()) << 16));
    });
}

pub(super) fn narrow(x: &[f32], y: &mut [bf16]) {
    x.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK)).for_each(|(x, y)| {
        x.iter().zip(y).for_each(|(x, y)| *y = bf16::from_f32(*x));
    });
}
