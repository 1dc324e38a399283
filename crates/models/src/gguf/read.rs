//! Reading a GGUF file back through a memory map. Every length is held against what is left of the file before
//! anything is taken by it, so a hostile file is an error and never a panic or a large allocation.

use std::path::{Path, PathBuf};

use engine::mapped::Mapped;

use super::format::{ALIGNMENT, ARRAY, MAGIC, TensorType, VERSION, Value};
use super::quantize;
use crate::error::{Error, Result};

/// The most dimensions ggml gives a tensor.
const MOST_DIMENSIONS: u32 = 4;

/// A file's keys and where its tensors lie.
pub struct File {
    path: PathBuf,
    map: Mapped,
    keys: Keys,
    tensors: Vec<Place>,
}

struct Place {
    name: String,
    shape: Vec<usize>,
    kind: TensorType,
    start: usize,
    end: usize,
}

/// A tensor of a file.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// Its name.
    pub name: &'a str,
    /// Rows, columns, ... as safetensors has them.
    pub shape: &'a [usize],
    /// How its elements are stored.
    pub kind: TensorType,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Stored<'_> {
    /// Its elements.
    pub fn to_f32(&self) -> Vec<f32> {
        quantize::decode(self.kind, self.bytes)
    }
}

impl File {
    /// Opens a file and checks that all it names is within it.
    pub fn open(path: &Path) -> Result<File> {
        let unreadable = |error: std::io::Error| {
            Error::input(format!("cannot read '{}': {error}", path.display()), "check the path")
        };
        let map = Mapped::open(path).map_err(unreadable)?;
        let (keys, tensors) = parse(map.bytes()).map_err(|why| {
            Error::input(
                format!("'{}' is not a whole GGUF file: {why}", path.display()),
                "write or download it again; it may be cut short",
            )
        })?;
        Ok(File { path: path.to_path_buf(), map, keys, tensors })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys with their values, in the file's order.
    pub fn keys(&self) -> &[(String, Value)] {
        &self.keys
    }

    /// A key's value, if it is there.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.keys.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> impl Iterator<Item = Stored<'_>> {
        self.tensors.iter().map(|place| Stored {
            name: &place.name,
            shape: &place.shape,
            kind: place.kind,
            bytes: &self.map.bytes()[place.start..place.end],
        })
    }

    /// A tensor, if it is there.
    pub fn tensor(&self, name: &str) -> Option<Stored<'_>> {
        self.tensors().find(|tensor| tensor.name == name)
    }
}

type Parsed<T> = std::result::Result<T, String>;

/// What is left of the file.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, count: u64) -> Parsed<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= left)
            .ok_or_else(|| format!("{count} bytes at {} reach beyond its end", self.at))?;
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Parsed<String> {
        let (start, count) = (self.at, self.u64()?);
        let bytes = self.take(count)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| format!("the text at {start} is not UTF-8"))
    }

    fn value(&mut self, kind: u32) -> Parsed<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.array()?)),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::String(self.string()?),
            ARRAY => {
                let (inner, count) = (self.u32()?, self.u64()?);
                if inner == ARRAY {
                    return Err(format!("an array of arrays at {}", self.at));
                }
                // Grown value by value: each takes bytes of the file, so the file bounds them.
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(inner)?);
                }
                Value::Array(values)
            }
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("type {other} of a value at {} is not known", self.at)),
        })
    }
}

type Keys = Vec<(String, Value)>;

fn parse(bytes: &[u8]) -> Parsed<(Keys, Vec<Place>)> {
    let mut rest = Rest { bytes, at: 0 };
    if rest.u32()? != MAGIC {
        return Err("it does not begin with GGUF".to_owned());
    }
    let version = rest.u32()?;
    if version != VERSION {
        return Err(format!("it is of version {version}, {VERSION} is read"));
    }
    let (tensor_count, key_count) = (rest.u64()?, rest.u64()?);
    let mut keys = Keys::new();
    for _ in 0..key_count {
        let key = rest.string()?;
        let kind = rest.u32()?;
        let value = rest.value(kind)?;
        keys.push((key, value));
    }
    let mut described = Vec::new();
    for _ in 0..tensor_count {
        described.push(tensor(&mut rest)?);
    }
    let alignment = match keys.iter().find(|(key, _)| key == "general.alignment") {
        None => ALIGNMENT,
        Some((_, Value::U32(alignment))) if alignment.is_power_of_two() => u64::from(*alignment),
        Some((_, other)) => return Err(format!("general.alignment is {other:?}")),
    };
    let start = (rest.at as u64).next_multiple_of(alignment);
    let mut tensors = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (name, shape, kind, offset) in described {
        let place = place(&shape, kind, start, offset, bytes.len()).ok_or_else(|| {
            format!("{name} of shape {shape:?} at {offset} is not whole within it")
        })?;
        if !names.insert(name.clone()) {
            return Err(format!("it holds {name} twice"));
        }
        tensors.push(Place { name, shape, kind, start: place.0, end: place.1 });
    }
    Ok((keys, tensors))
}

type Described = (String, Vec<usize>, TensorType, u64);

fn tensor(rest: &mut Rest<'_>) -> Parsed<Described> {
    let name = rest.string()?;
    let dimensions = rest.u32()?;
    if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
        return Err(format!("{name} has {dimensions} dimensions"));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = rest.u64()?;
        shape.push(usize::try_from(size).map_err(|_| format!("{name} has {size} elements a row"))?);
    }
    shape.reverse();
    let id = rest.u32()?;
    let kind = TensorType::ALL.into_iter().find(|kind| kind.id() == id);
    let kind = kind.ok_or_else(|| format!("{name} is of type {id}, which is not read"))?;
    Ok((name, shape, kind, rest.u64()?))
}

/// First and last byte of a tensor, where they are within `bytes`.
fn place(
    shape: &[usize],
    kind: TensorType,
    start: u64,
    offset: u64,
    bytes: usize,
) -> Option<(usize, usize)> {
    let elements = shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size))?;
    if !kind.holds_rows_of(*shape.last()?) {
        return None;
    }
    let (block, block_bytes) = kind.block();
    let length = (elements / block).checked_mul(block_bytes)?;
    let start = usize::try_from(start.checked_add(offset)?).ok()?;
    let end = start.checked_add(length)?;
    (end <= bytes).then_some((start, end))
}

#[cfg(test)]
mod tests;
