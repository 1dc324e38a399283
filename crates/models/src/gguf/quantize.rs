//! Rows of f32 to the bytes of a [`TensorType`] and back, as gguf 0.19.0's `quants.py` computes them, to the byte:
//!
//! * Q8_0: `d = max |x| / 127`, `q = round(x (1 / d))`, halves away from zero
//! * Q4_0: `d = m / -8` with m the first element of the largest magnitude, `q = min(15, trunc(x (1 / d) + 8.5))`
//! * both: 1 / d is 0 where d is 0; d is used in f32 and stored in f16; dequantized `d q` and `d (q - 8)`
//! * F16 and BF16: nearest, ties to even

use half::{bf16, f16};

use super::format::TensorType;

/// Writes `values` as `kind`. False where a finite value became infinite: the type's exponent is too narrow.
pub(super) fn encode(kind: TensorType, values: &[f32], out: &mut [u8]) -> bool {
    match kind {
        TensorType::F32 => {
            for (value, out) in values.iter().zip(out.as_chunks_mut::<4>().0) {
                *out = value.to_le_bytes();
            }
            true
        }
        TensorType::Bf16 => {
            let mut holds = true;
            for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
                let narrow = bf16::from_f32(*value);
                holds &= narrow.is_finite() || !value.is_finite();
                *out = narrow.to_le_bytes();
            }
            holds
        }
        TensorType::F16 => {
            let mut holds = true;
            for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
                let narrow = f16::from_f32(*value);
                holds &= narrow.is_finite() || !value.is_finite();
                *out = narrow.to_le_bytes();
            }
            holds
        }
        TensorType::Q8_0 => {
            let blocks = values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<34>().0);
            blocks.fold(true, |holds, (values, out)| encode_q8_0(values, out) && holds)
        }
        TensorType::Q4_0 => {
            let blocks = values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<18>().0);
            blocks.fold(true, |holds, (values, out)| encode_q4_0(values, out) && holds)
        }
    }
}

fn encode_q8_0(values: &[f32; 32], out: &mut [u8; 34]) -> bool {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let (stored, inverse) = scale(largest / 127.0, out);
    for (value, out) in values.iter().zip(&mut out[2..]) {
        *out = (value * inverse).round() as i8 as u8;
    }
    stored
}

fn encode_q4_0(values: &[f32; 32], out: &mut [u8; 18]) -> bool {
    let mut largest = values[0];
    for value in values {
        if value.abs() > largest.abs() {
            largest = *value;
        }
    }
    let (stored, inverse) = scale(largest / -8.0, out);
    // A cast to u8 cuts off the fraction and stays within 0 and 255.
    let nibble = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    for i in 0..16 {
        out[2 + i] = nibble(values[i]) | nibble(values[16 + i]) << 4;
    }
    stored
}

/// Stores the scale of a block; whether f16 holds it, and its inverse.
fn scale(d: f32, out: &mut [u8]) -> (bool, f32) {
    let narrow = f16::from_f32(d);
    out[..2].copy_from_slice(&narrow.to_le_bytes());
    (narrow.is_finite() || !d.is_finite(), if d == 0.0 { 0.0 } else { 1.0 / d })
}

/// The elements of bytes that [`encode`] wrote.
pub(super) fn decode(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    match kind {
        TensorType::F32 => {
            bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        TensorType::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
            .collect(),
        TensorType::Bf16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
            .collect(),
        TensorType::Q8_0 => {
            let blocks = bytes.as_chunks::<34>().0.iter();
            blocks
                .flat_map(|block| {
                    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    block[2..].iter().map(move |q| d * f32::from(*q as i8))
                })
                .collect()
        }
        TensorType::Q4_0 => {
            let blocks = bytes.as_chunks::<18>().0.iter();
            blocks
                .flat_map(|block| {
                    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    let low = block[2..].iter().map(|q| q & 15);
                    let high = block[2..].iter().map(|q| q >> 4);
                    low.chain(high).map(move |q| d * (f32::from(q) - 8.0))
                })
                .collect()
        }
    }
}
