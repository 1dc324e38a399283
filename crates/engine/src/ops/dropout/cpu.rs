//! Dropout on the CPU.

use rayon::prelude::*;

use super::Mask;
use crate::random::philox;

/// Elements of a task; each block of four shares one draw.
const CHUNK: usize = 4096;

pub(super) fn apply(x: &[f32], mask: Mask, y: &mut [f32], put: impl Fn(&mut f32, f32) + Sync) {
    let key = [mask.seed as u32, (mask.seed >> 32) as u32];
    let (keep, threshold) = (mask.keep(), mask.threshold());
    x.par_chunks(CHUNK).zip(y.par_chunks_mut(CHUNK)).enumerate().for_each(|(chunk, (x, y))| {
        for (four, (x, y)) in x.chunks(4).zip(y.chunks_mut(4)).enumerate() {
            let block = (chunk * CHUNK / 4 + four) as u64;
            let counter = [
                block as u32,
                (block >> 32) as u32,
                mask.stream as u32,
                (mask.stream >> 32) as u32,
            ];
            let draws = philox(key, counter);
            for ((x, y), draw) in x.iter().zip(y).zip(draws) {
                put(y, if draw < threshold { 0.0 } else { x * keep });
            }
        }
    });
}
