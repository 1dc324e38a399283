//! What one element of a tensor is.

use std::fmt;

/// Element types. Arithmetic is always f32; `BF16` and the packed 4-bit codes in `U8` are storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of an f32.
    BF16,
    /// Token ids, row indices and positions.
    U32,
    /// Quantization codes and quantized optimizer states.
    U8,
    /// Quantization codes with a sign.
    I8,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::BF16 => 2,
            DType::U8 | DType::I8 => 1,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::U32 => "u32",
            DType::U8 => "u8",
            DType::I8 => "i8",
        })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for u32 {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
}

/// The Rust types behind [`DType`]: any bit pattern is a value of each of them, which is what makes it sound
/// to look at arena bytes as a slice of them.
pub trait Element: Copy + Send + Sync + Default + sealed::Sealed + 'static {
    /// The tag of this type.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for half::bf16 {
    const DTYPE: DType = DType::BF16;
}
impl Element for u32 {
    const DTYPE: DType = DType::U32;
}
impl Element for u8 {
    const DTYPE: DType = DType::U8;
}
impl Element for i8 {
    const DTYPE: DType = DType::I8;
}
