//! What a GGUF file holds: values of keys, and the element types of tensors.

/// "GGUF", little-endian.
pub(super) const MAGIC: u32 = 0x4655_4747;
/// The version that is written and read.
pub(super) const VERSION: u32 = 3;
/// Tensors begin at multiples of this many bytes, where `general.alignment` does not say otherwise.
pub(super) const ALIGNMENT: u64 = 32;

/// A key's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type 0.
    U8(u8),
    /// Type 1.
    I8(i8),
    /// Type 2.
    U16(u16),
    /// Type 3.
    I16(i16),
    /// Type 4.
    U32(u32),
    /// Type 5.
    I32(i32),
    /// Type 6.
    F32(f32),
    /// Type 7.
    Bool(bool),
    /// Type 8.
    String(String),
    /// Type 9: values of one type.
    Array(Vec<Value>),
    /// Type 10.
    U64(u64),
    /// Type 11.
    I64(i64),
    /// Type 12.
    F64(f64),
}

/// The type of a value that holds others.
pub(super) const ARRAY: u32 = 9;

impl Value {
    /// The number that stands for its type.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => ARRAY,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// An array of strings.
    pub(super) fn strings(values: Vec<String>) -> Value {
        Value::Array(values.into_iter().map(Value::String).collect())
    }
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// 4 bytes each.
    F32,
    /// 2 bytes each, 5 bits of exponent.
    F16,
    /// 2 bytes each, 8 bits of exponent.
    Bf16,
    /// Blocks of 32: a scale in f16, then 32 signed bytes.
    Q8_0,
    /// Blocks of 32: a scale in f16, then 32 nibbles, the first 16 low and the others high.
    Q4_0,
}

impl TensorType {
    /// All of them.
    pub const ALL: [TensorType; 5] =
        [TensorType::F32, TensorType::F16, TensorType::Bf16, TensorType::Q8_0, TensorType::Q4_0];

    /// The number that stands for it.
    pub(super) fn id(self) -> u32 {
        match self {
            TensorType::F32 => 0,
            TensorType::F16 => 1,
            TensorType::Q4_0 => 2,
            TensorType::Q8_0 => 8,
            TensorType::Bf16 => 30,
        }
    }

    /// Its name in ggml.
    pub fn name(self) -> &'static str {
        match self {
            TensorType::F32 => "F32",
            TensorType::F16 => "F16",
            TensorType::Q4_0 => "Q4_0",
            TensorType::Q8_0 => "Q8_0",
            TensorType::Bf16 => "BF16",
        }
    }

    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            TensorType::F32 => (1, 4),
            TensorType::F16 | TensorType::Bf16 => (1, 2),
            TensorType::Q8_0 => (32, 34),
            TensorType::Q4_0 => (32, 18),
        }
    }

    /// Bytes of `elements`, which are whole blocks.
    pub fn bytes(self, elements: usize) -> usize {
        let (block, bytes) = self.block();
        elements / block * bytes
    }

    /// Whether rows of `cols` elements are whole blocks.
    pub fn holds_rows_of(self, cols: usize) -> bool {
        cols.is_multiple_of(self.block().0)
    }
}
