//! Arrow IPC (arrow.apache.org/docs/format/Columnar.html, "Serialization and Interprocess Communication").
//!
//! A stream is messages one after another, each a length, flatbuffer metadata and a body; a file is the same behind
//! eight bytes `ARROW1`, with an index at its end that reading in order does not need. Messages are cut out here, so
//! that no length of a file is believed before its bytes are there, and decoded by the `arrow-ipc` crate.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::Buffer;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{Message, MessageHeader, RecordBatch as Batch, convert, root_as_message};
use arrow_schema::Schema;

use super::columnar::{self, Batches};
use super::{Input, Piece, damaged, library};
use crate::error::{Error, Result};

/// The longest metadata of a message: a schema of many thousand columns.
const METADATA: u64 = 64 << 20;

/// The largest body of a message, also decompressed: a batch of a thousand rows has some megabytes.
const BODY: u64 = 2 << 30;

/// The messages of a stream or file.
pub(super) struct Stream {
    input: Input,
    name: String,
    schema: Arc<Schema>,
    projection: Vec<usize>,
    dictionaries: HashMap<i64, ArrayRef>,
    batches: Batches,
}

impl Stream {
    pub(super) fn open(mut input: Input, wanted: &dyn Fn(&str) -> bool) -> Result<Stream> {
        let name = input.path.display().to_string();
        if input.peek()?.starts_with(b"ARROW1") {
            let mut magic = [0; 8];
            input.read_exact(&mut magic).map_err(|error| broken(&input, &error))?;
        }
        let (schema, projection) = library(&name, || {
            let Some(metadata) = metadata(&mut input)? else {
                return Err(damaged(&name, &"it has no schema"));
            };
            let message = message(&name, &metadata)?;
            let Some(schema) = message.header_as_schema() else {
                return Err(damaged(&name, &"it does not begin with a schema"));
            };
            let schema =
                convert::try_fb_to_schema(schema).map_err(|error| damaged(&name, &error))?;
            let projection = columnar::projection(&name, &schema, wanted)?;
            Ok((Arc::new(schema), projection))
        })?;
        let batches = Batches::new(name.clone());
        Ok(Stream { input, name, schema, projection, dictionaries: HashMap::new(), batches })
    }

    pub(super) fn fill(&mut self, piece: &mut Piece) -> Result<()> {
        let Stream { input, name, schema, projection, dictionaries, batches } = self;
        batches.fill(piece, || next(input, name, schema, projection, dictionaries))
    }
}

/// The next batch; none at the end.
fn next(
    input: &mut Input,
    name: &str,
    schema: &Arc<Schema>,
    projection: &[usize],
    dictionaries: &mut HashMap<i64, ArrayRef>,
) -> Result<Option<RecordBatch>> {
    loop {
        let Some(metadata) = metadata(input)? else { return Ok(None) };
        let message = message(name, &metadata)?;
        let length = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
        if length > BODY {
            return Err(too_large(name, length));
        }
        let body = Buffer::from_vec(exactly(input, length)?);
        let version = message.version();
        match message.header_type() {
            MessageHeader::RecordBatch => {
                let Some(batch) = message.header_as_record_batch() else {
                    return Err(damaged(name, &"a batch has no header"));
                };
                check(name, &batch, &body)?;
                let schema = schema.clone();
                let batch = read_record_batch(
                    &body,
                    batch,
                    schema,
                    dictionaries,
                    Some(projection),
                    &version,
                );
                return batch.map(Some).map_err(|error| damaged(name, &error));
            }
            MessageHeader::DictionaryBatch => {
                let Some(batch) = message.header_as_dictionary_batch() else {
                    return Err(damaged(name, &"a dictionary has no header"));
                };
                if let Some(values) = batch.data() {
                    check(name, &values, &body)?;
                }
                read_dictionary(&body, batch, schema, dictionaries, &version)
                    .map_err(|error| damaged(name, &error))?;
            }
            _ => return Err(damaged(name, &"it has a message that is no batch")),
        }
    }
}

/// The buffers of a batch lie in its body and decompress to no more than a body may have.
fn check(name: &str, batch: &Batch<'_>, body: &Buffer) -> Result<()> {
    let mut decompressed = 0u64;
    for buffer in batch.buffers().iter().flatten() {
        let (start, length) = (buffer.offset() as usize, buffer.length() as usize);
        let bytes = start.checked_add(length).and_then(|end| body.get(start..end));
        let Some(bytes) = bytes else {
            return Err(damaged(name, &"a buffer lies outside its batch"));
        };
        if batch.compression().is_some()
            && let Some(prefix) = bytes.first_chunk::<8>()
        {
            // Minus one is "not compressed".
            let claimed = i64::from_le_bytes(*prefix).max(0).unsigned_abs();
            decompressed = decompressed.saturating_add(claimed);
        }
    }
    if decompressed > BODY { Err(too_large(name, decompressed)) } else { Ok(()) }
}

fn too_large(name: &str, bytes: u64) -> Error {
    Error::input(
        format!("'{name}' has a batch of {bytes} bytes, more than {BODY}"),
        "write the file in smaller batches, or as Parquet; if it should not be so large, it is damaged",
    )
}

fn message<'a>(name: &str, metadata: &'a [u8]) -> Result<Message<'a>> {
    root_as_message(metadata).map_err(|error| damaged(name, &error))
}

/// The metadata of the next message; none at the end, which is a length of zero or that of the file.
fn metadata(input: &mut Input) -> Result<Option<Vec<u8>>> {
    let mut number = || -> Result<Option<u32>> {
        if input.peek()?.is_empty() {
            return Ok(None);
        }
        let mut bytes = [0; 4];
        input.read_exact(&mut bytes).map_err(|error| broken(input, &error))?;
        Ok(Some(u32::from_le_bytes(bytes)))
    };
    // Before Arrow 0.15 there was no marker before the length.
    let length = match number()? {
        Some(u32::MAX) => number()?,
        other => other,
    };
    match length {
        None | Some(0) => Ok(None),
        Some(length) if u64::from(length) > METADATA => Err(damaged(
            &input.path.display().to_string(),
            &"the metadata of a message is too long",
        )),
        Some(length) => exactly(input, u64::from(length)).map(Some),
    }
}

/// So many bytes, which are there.
fn exactly(input: &mut Input, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match Read::take(&mut *input, length).read_to_end(&mut bytes) {
        Ok(count) if count as u64 == length => Ok(bytes),
        Ok(_) => Err(broken(input, &io::Error::from(io::ErrorKind::UnexpectedEof))),
        Err(error) => Err(broken(input, &error)),
    }
}

fn broken(input: &Input, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof if input.compression.is_none() => {
            damaged(&input.path.display().to_string(), &"it is cut short")
        }
        _ => input.error(error),
    }
}
