//! The code books of bitsandbytes: NF4, and the dynamic 8-bit maps (Dettmers, arXiv 1511.04561; Dettmers et al.,
//! arXiv 2110.02861, section 2.2).

use std::sync::OnceLock;

/// NF4 by code: quantiles of the standard normal distribution, scaled to [-1, 1], with an exact zero.
#[allow(clippy::excessive_precision)] // the digits as published; each rounds to the f32 meant
pub const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// The points between neighbouring values of a sorted code book: `x > thresholds[i]` goes above code i.
pub fn thresholds<const N: usize>(values: &[f32]) -> [f32; N] {
    std::array::from_fn(|i| (values[i] + values[i + 1]) / 2.0)
}

/// The 8-bit map for signed values: 256 sorted values, code 127 is 0, the largest is 1.
///
/// Seven decades, each with twice the resolution of the one below: the midpoints of 2^i (unsigned: 2^(i+1)) equal
/// parts of [0.1, 1], times 10^(i - 6), with 0, 1 and, where signed, the negatives. bitsandbytes 0.50.2 builds it with
/// torch.linspace, whose last bits depend on its vector lanes, so the 1,024 bytes are kept as they are.
pub fn dynamic_signed() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| from_bytes(include_bytes!("dynamic_signed.f32")))
}

/// The 8-bit map for values that are not negative: code 0 is 0, the largest is 1. See [`dynamic_signed`].
pub fn dynamic_unsigned() -> &'static [f32; 256] {
    static MAP: OnceLock<[f32; 256]> = OnceLock::new();
    MAP.get_or_init(|| from_bytes(include_bytes!("dynamic_unsigned.f32")))
}

fn from_bytes(bytes: &[u8; 1024]) -> [f32; 256] {
    std::array::from_fn(|i| {
        f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
    })
}
