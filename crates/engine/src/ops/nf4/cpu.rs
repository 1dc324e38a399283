//! 4 bits on the CPU. The order of the float operations is that of bitsandbytes' `default` backend, since codes are
//! compared byte for byte: a full block is multiplied with the reciprocal of its absmax, a short last block is
//! divided by it.

use rayon::prelude::*;

use super::{CodeBook, NESTED_BLOCK_SIZE, tables};

/// The least absmax a block is divided by.
const TINY: f32 = 1e-38;

/// The largest magnitude of a block.
fn absmax_of(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |max: f32, x| max.max(x.abs()))
}

/// Fills `codes` and returns the absmax of each block.
pub(super) fn quantize(
    x: &[f32],
    code_book: CodeBook,
    block_size: usize,
    codes: &mut [u8],
) -> Vec<f32> {
    let (bounds, order) = (code_book.bounds(), code_book.order());
    let code = |scaled: f32| {
        order[bounds.iter().filter(|bound| scaled.clamp(-1.0, 1.0) > **bound).count()]
    };
    let scale_of = |block: &[f32]| -> (f32, f32) {
        let max = absmax_of(block);
        // (what is stored, what is divided by)
        if block.len() == block_size {
            (max, max.max(TINY))
        } else {
            (max.max(TINY), max.max(TINY))
        }
    };
    let scales: Vec<(f32, f32)> = x.par_chunks(block_size).map(scale_of).collect();
    let element = |i: usize| -> u8 {
        if i >= x.len() {
            return code(0.0); // an odd count is padded with a zero
        }
        let block = i / block_size;
        let whole = (block + 1) * block_size <= x.len();
        let divisor = scales[block].1;
        code(if whole { x[i] * (1.0 / divisor) } else { x[i] / divisor })
    };
    codes.par_iter_mut().enumerate().with_min_len(4096).for_each(|(i, byte)| {
        *byte = element(2 * i) << 4 | element(2 * i + 1);
    });
    scales.into_iter().map(|scale| scale.0).collect()
}

/// Quantizes the scales themselves and returns the offset. The nearest value is searched exactly, where
/// bitsandbytes' CPU path goes through a table; for values below 1e-4 of the block's largest it may differ by a code.
pub(super) fn quantize_absmax(absmax: &[f32], codes: &mut [u8], nested: &mut [f32]) -> f32 {
    let offset = (absmax.iter().map(|x| f64::from(*x)).sum::<f64>() / absmax.len() as f64) as f32;
    let bounds: [f32; 255] = tables::thresholds(tables::dynamic_signed());
    for ((block, codes), nested) in
        absmax.chunks(NESTED_BLOCK_SIZE).zip(codes.chunks_mut(NESTED_BLOCK_SIZE)).zip(nested)
    {
        *nested = block.iter().fold(0.0, |max: f32, x| max.max((x - offset).abs()));
        for (x, code) in block.iter().zip(codes) {
            let scaled = (x - offset) * (1.0 / nested.max(TINY));
            *code = bounds.partition_point(|bound| scaled > *bound) as u8;
        }
    }
    offset
}

pub(super) fn dequantize(
    values: &[f32; 16],
    codes: &[u8],
    block_size: usize,
    scale: impl Fn(usize) -> f32 + Sync,
    y: &mut [f32],
) {
    y.par_chunks_mut(block_size).enumerate().with_min_len(256).for_each(|(block, y)| {
        let scale = scale(block);
        let at = block * block_size;
        if at.is_multiple_of(2) {
            let values: [f32; 16] = values.map(|value| value * scale);
            for (pair, byte) in y.chunks_mut(2).zip(&codes[at / 2..]) {
                pair[0] = values[(byte >> 4) as usize];
                if let [_, second] = pair {
                    *second = values[(byte & 15) as usize];
                }
            }
        } else {
            for (i, y) in y.iter_mut().enumerate() {
                let byte = codes[(at + i) / 2];
                let code = if (at + i).is_multiple_of(2) { byte >> 4 } else { byte & 15 };
                *y = values[code as usize] * scale;
            }
        }
    });
}
