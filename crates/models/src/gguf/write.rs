//! Writing a GGUF file, tensor by tensor, so that never more than a part of one is in memory.

use std::io::{self, Write};
use std::path::Path;

use data::files;

use super::format::{ALIGNMENT, MAGIC, TensorType, VERSION, Value};
use crate::error::Result;

/// Writes the bytes of a tensor.
pub type WriteBytes<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// One tensor to write.
pub struct Entry<'a> {
    /// Its name in GGUF.
    pub name: String,
    /// Rows, columns, ... as safetensors has them; GGUF names the fastest first.
    pub shape: Vec<usize>,
    /// How its elements are stored.
    pub kind: TensorType,
    /// Its bytes, when they are asked for.
    pub bytes: WriteBytes<'a>,
}

impl Entry<'_> {
    /// Bytes of its elements.
    pub fn bytes_len(&self) -> u64 {
        self.kind.bytes(self.shape.iter().product()) as u64
    }
}

/// Writes a file, atomically.
pub fn write(path: &Path, keys: &[(String, Value)], entries: &[Entry<'_>]) -> Result<()> {
    files::write_atomically(path, |writer| write_to(writer, keys, entries))?;
    Ok(())
}

/// Writes keys and tensors in their order.
pub fn write_to(
    writer: &mut dyn Write,
    keys: &[(String, Value)],
    entries: &[Entry<'_>],
) -> io::Result<()> {
    let mut header = Vec::new();
    header.extend(MAGIC.to_le_bytes());
    header.extend(VERSION.to_le_bytes());
    header.extend((entries.len() as u64).to_le_bytes());
    header.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        put_string(&mut header, key);
        header.extend(value.type_id().to_le_bytes());
        put_value(&mut header, value);
    }
    let mut offset = 0;
    for entry in entries {
        put_string(&mut header, &entry.name);
        header.extend((entry.shape.len() as u32).to_le_bytes());
        for size in entry.shape.iter().rev() {
            header.extend((*size as u64).to_le_bytes());
        }
        header.extend(entry.kind.id().to_le_bytes());
        header.extend(u64::to_le_bytes(offset));
        offset += entry.bytes_len().next_multiple_of(ALIGNMENT);
    }
    let padded = (header.len() as u64).next_multiple_of(ALIGNMENT);
    header.resize(padded as usize, 0);
    writer.write_all(&header)?;
    for entry in entries {
        let mut counted = Counted { writer: &mut *writer, bytes: 0 };
        (entry.bytes)(&mut counted)?;
        let written = counted.bytes;
        if written != entry.bytes_len() {
            let (name, expected) = (&entry.name, entry.bytes_len());
            return Err(io::Error::other(format!("{name} gave {written} bytes, not {expected}")));
        }
        let padding = written.next_multiple_of(ALIGNMENT) - written;
        writer.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
    }
    Ok(())
}

/// Counts what passes.
struct Counted<'a> {
    writer: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.push(*value),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(text) => put_string(out, text),
        Value::Array(values) => {
            // An array without values is one of bytes.
            out.extend(values.first().map_or(0, Value::type_id).to_le_bytes());
            out.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| put_value(out, value));
        }
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
    }
}
