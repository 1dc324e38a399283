//! Files of rows: JSON lines, a JSON array, CSV and TSV, Parquet, Arrow IPC (file and stream), and gzip or zstd of
//! all but Parquet.
//!
//! What a file is, its first bytes say: `PAR1` (Parquet), `ARROW1` (an Arrow file), the continuation marker
//! FF FF FF FF (an Arrow stream, which is what `datasets` saves as `.arrow`), 1F 8B (gzip, RFC 1952), 28 B5 2F FD
//! (zstd, RFC 8878). Text is CSV or TSV by the name of the file, else JSON. Every format gives the same rows: JSON
//! objects, so that the forms are read by one code.
//!
//! Files are read piece by piece, never whole: what a row or a batch may take is limited, whatever lengths a file
//! claims and however far it decompresses.

mod arrow;
mod columnar;
mod delimited;
mod json;
mod parquet;

use std::io::{self, BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub(crate) use json::kind;

use crate::error::{Error, Result};
use crate::files;

/// The longest row, in bytes: more text than any model reads.
const LONGEST: usize = 64 << 20;

/// A piece has about so many bytes and so many rows: enough to keep many threads busy, and little beside a model.
const PIECE_BYTES: usize = 8 << 20;
const PIECE_ROWS: usize = 4096;

/// A row of a file, before it is looked at.
#[derive(Debug)]
pub(crate) struct RawRow {
    /// The line it begins on, or in a file without lines its number; from 1.
    pub(crate) line: usize,
    pub(crate) body: Body,
}

/// What a row is made of.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// JSON text, which is parsed on many threads.
    Json(json::Text),
    /// Named values.
    Fields(Map<String, Value>),
    /// Named cells of text: a row of CSV.
    Cells(Map<String, Value>),
}

/// An open file of rows.
pub(crate) struct Reader {
    path: PathBuf,
    format: &'static str,
    rows: Rows,
}

enum Rows {
    Lines(json::Lines),
    Array(json::Array),
    Delimited(delimited::Delimited),
    Arrow(Box<arrow::Stream>),
    Parquet(Box<parquet::Table>),
}

/// Rows that are filled up to the size of a piece.
pub(crate) struct Piece {
    pub(crate) rows: Vec<RawRow>,
    bytes: usize,
}

impl Piece {
    fn new() -> Piece {
        Piece { rows: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, row: RawRow, bytes: usize) {
        self.bytes += bytes;
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.bytes >= PIECE_BYTES || self.rows.len() >= PIECE_ROWS
    }
}

/// A file's bytes, decompressed if it is compressed.
struct Input {
    path: PathBuf,
    /// How it is compressed.
    compression: Option<&'static str>,
    bytes: BufReader<Box<dyn Read + Send>>,
}

impl Reader {
    /// Opens a file; of a file with typed columns only those that are wanted are read.
    pub(crate) fn open(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Reader> {
        let file = files::open(path)?;
        let mut input = Input::new(path, None, Box::new(file));
        let magic = input.peek()?;
        if magic.starts_with(b"PAR1") {
            let table = parquet::Table::open(path, wanted)?;
            return Ok(Reader::of(path, "Parquet", Rows::Parquet(Box::new(table))));
        }
        let magic: [u8; 4] = magic.get(..4).and_then(|it| it.try_into().ok()).unwrap_or_default();
        let (name, decoder): (_, Box<dyn Read + Send>) = match magic {
            [0x1f, 0x8b, ..] => {
                ("gzip", Box::new(flate2::bufread::MultiGzDecoder::new(input.bytes)))
            }
            [0x28, 0xb5, 0x2f, 0xfd] => match zstd::Decoder::with_buffer(input.bytes) {
                Ok(decoder) => ("zstd", Box::new(decoder)),
                Err(error) => return Err(files::reading(path, &error)),
            },
            _ => return Reader::of_bytes(path, input, wanted),
        };
        Reader::of_bytes(path, Input::new(path, Some(name), decoder), wanted)
    }

    fn of(path: &Path, format: &'static str, rows: Rows) -> Reader {
        Reader { path: path.to_owned(), format, rows }
    }

    fn of_bytes(path: &Path, mut input: Input, wanted: &dyn Fn(&str) -> bool) -> Result<Reader> {
        let magic = input.peek()?;
        if magic.starts_with(b"PAR1") {
            return Err(Error::input(
                format!("'{}' is a compressed Parquet file", path.display()),
                "decompress it first: Parquet compresses its own pages",
            ));
        }
        if magic.starts_with(b"ARROW1") || magic.starts_with(&[0xff; 4]) {
            let stream = Box::new(arrow::Stream::open(input, wanted)?);
            return Ok(Reader::of(path, "Arrow IPC", Rows::Arrow(stream)));
        }
        if let Some((format, delimiter)) = delimiter(path) {
            let rows = delimited::Delimited::open(input, delimiter)?;
            return Ok(Reader::of(path, format, Rows::Delimited(rows)));
        }
        let start = json::skip_space(&mut input)?;
        Ok(match input.peek()?.first() {
            Some(b'[') => {
                Reader::of(path, "a JSON array", Rows::Array(json::Array::new(input, start)))
            }
            _ => Reader::of(path, "JSON lines", Rows::Lines(json::Lines::new(input, start))),
        })
    }

    /// What the file is, in words.
    pub(crate) fn format(&self) -> &'static str {
        self.format
    }

    /// The next rows; none at the end.
    pub(crate) fn read(&mut self) -> Result<Option<Piece>> {
        let mut piece = Piece::new();
        let name = self.path.display().to_string();
        match &mut self.rows {
            Rows::Lines(lines) => lines.fill(&mut piece)?,
            Rows::Array(array) => array.fill(&mut piece)?,
            Rows::Delimited(rows) => rows.fill(&mut piece)?,
            Rows::Arrow(stream) => library(&name, || stream.fill(&mut piece))?,
            Rows::Parquet(table) => library(&name, || table.fill(&mut piece))?,
        }
        Ok((!piece.rows.is_empty()).then_some(piece))
    }
}

/// What a batch of a file with typed columns begins with, for the limit on what reading it may take.
const BATCH: usize = 64 << 20;

/// Calls a library that reads what strangers wrote: a panic becomes an error, and what takes all memory ends the
/// program with words.
fn library<T>(name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let what = format!("reading '{name}'");
    let call = || catch_unwind(AssertUnwindSafe(call));
    match crate::confined::confined(
        BATCH,
        &what,
        "the file is damaged, or its batches are too large",
        call,
    ) {
        Ok(result) => result,
        Err(panic) => {
            let words = match panic.downcast_ref::<String>() {
                Some(words) => words.as_str(),
                None => panic.downcast_ref::<&str>().copied().unwrap_or("it is inconsistent"),
            };
            Err(damaged(name, &words.lines().next().unwrap_or_default()))
        }
    }
}

/// A file with typed columns that cannot be read.
fn damaged(name: &str, why: &dyn std::fmt::Display) -> Error {
    let why: String = why.to_string().chars().take(200).collect();
    Error::input(
        format!("'{name}' is damaged: {why}"),
        "get the file again, or write it anew, for example with `datasets`' to_parquet",
    )
}

/// The delimiter of a file, if its name says that it has one. `.gz` and `.zst` behind it are not looked at.
fn delimiter(path: &Path) -> Option<(&'static str, u8)> {
    match files::kind(path)? {
        "csv" => Some(("CSV", b',')),
        "tsv" => Some(("TSV", b'\t')),
        _ => None,
    }
}

impl Input {
    fn new(path: &Path, compression: Option<&'static str>, bytes: Box<dyn Read + Send>) -> Input {
        Input {
            path: path.to_owned(),
            compression,
            bytes: BufReader::with_capacity(1 << 20, bytes),
        }
    }

    /// The next bytes, which stay; none at the end. At the beginning of a file they are its first ones.
    fn peek(&mut self) -> Result<&[u8]> {
        // Borrowed twice, since the error needs the rest of `self`.
        match self.bytes.fill_buf() {
            Ok(_) => Ok(self.bytes.buffer()),
            Err(error) => Err(Self::failed(&self.path, self.compression, &error)),
        }
    }

    fn error(&self, error: &io::Error) -> Error {
        Self::failed(&self.path, self.compression, error)
    }

    fn failed(path: &Path, compression: Option<&'static str>, error: &io::Error) -> Error {
        match compression {
            // What the machine says has a number.
            Some(name) if error.raw_os_error().is_none() => Error::input(
                format!(
                    "'{}' is compressed ({name}) and cannot be decompressed: {error}",
                    path.display()
                ),
                "the file is damaged or cut short: get it again",
            ),
            _ => files::reading(path, error),
        }
    }
}

/// A row that is longer than any.
fn too_long(place: &str) -> Error {
    Error::input(
        format!("{place} is a row of more than {} MiB", LONGEST >> 20),
        "rows are separated by line ends in JSONL, by commas in a JSON array; no text to learn from is that long",
    )
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}
