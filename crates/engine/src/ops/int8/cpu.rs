//! 8 bits on the CPU. The order of the float operations is that of bitsandbytes' `default` backend, since codes are
//! compared byte for byte.

use half::f16;
use rayon::prelude::*;

/// 1 / 127 in f32.
const STEP: f32 = 1.0 / 127.0;

pub(super) fn quantize(x: &[f32], cols: usize, codes: &mut [i8], scb: &mut [f32]) {
    let rounded = |x: &f32| f16::from_f32(*x).to_f32();
    let rows = x.par_chunks(cols).zip(codes.par_chunks_mut(cols)).zip(scb);
    rows.for_each(|((x, codes), scb)| {
        *scb = x.iter().map(rounded).fold(0.0, |max: f32, x| max.max(x.abs()));
        // torch divides a number by a tensor in two steps.
        let factor = (1.0 / *scb) * 127.0;
        for (x, code) in x.iter().zip(codes) {
            // In a row of zeros the product is not a number, which becomes 0.
            *code = (rounded(x) * factor).round_ties_even() as i8;
        }
    });
}

pub(super) fn dequantize(codes: &[i8], scb: &[f32], cols: usize, y: &mut [f32]) {
    y.par_chunks_mut(cols).zip(codes.par_chunks(cols)).zip(scb).for_each(|((y, codes), scb)| {
        for (y, code) in y.iter_mut().zip(codes) {
            *y = f32::from(*code) * *scb * STEP;
        }
    });
}
