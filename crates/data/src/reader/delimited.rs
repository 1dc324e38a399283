//! CSV and TSV (RFC 4180, read by the `csv` crate): the first row names the columns, every cell is text.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use csv::ByteRecord;
use serde_json::{Map, Value};

use super::{Body, Input, LONGEST, Piece, RawRow, too_long};
use crate::error::{Error, Result};

/// The rows of a file with delimiters.
pub(super) struct Delimited {
    path: PathBuf,
    compression: Option<&'static str>,
    reader: csv::Reader<Limited>,
    /// Bytes read since the row began.
    since: Arc<AtomicUsize>,
    columns: Vec<String>,
    record: ByteRecord,
}

/// Ends where a row is longer than any: the reader keeps a row whole, and a quotation mark that is never closed makes
/// one row of a file.
struct Limited {
    input: Input,
    since: Arc<AtomicUsize>,
    failed: Cell<bool>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since.load(Ordering::Relaxed) > LONGEST {
            self.failed.set(true);
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let count = self.input.read(buffer)?;
        self.since.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }
}

impl Delimited {
    pub(super) fn open(input: Input, delimiter: u8) -> Result<Delimited> {
        let (path, compression) = (input.path.clone(), input.compression);
        let since = Arc::new(AtomicUsize::new(0));
        let limited = Limited { input, since: since.clone(), failed: Cell::new(false) };
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .buffer_capacity(1 << 18)
            .from_reader(limited);
        let mut rows = Delimited {
            path,
            compression,
            reader,
            since,
            columns: Vec::new(),
            record: ByteRecord::new(),
        };
        let header = match rows.reader.byte_headers() {
            Ok(header) => header.clone(),
            Err(error) => return Err(rows.error(&error)),
        };
        for name in &header {
            let name = rows.text(name, 1)?;
            if !name.is_empty() && rows.columns.contains(&name) {
                return Err(Error::input(
                    format!("{}:1 names two columns '{name}'", rows.path.display()),
                    "the first row of a CSV file names its columns, each once",
                ));
            }
            rows.columns.push(name);
        }
        Ok(rows)
    }

    pub(super) fn fill(&mut self, piece: &mut Piece) -> Result<()> {
        while !piece.is_full() {
            self.since.store(0, Ordering::Relaxed);
            let mut record = std::mem::take(&mut self.record);
            match self.reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(self.error(&error)),
            }
            let line = record.position().map_or(1, |position| position.line() as usize);
            let mut cells = Map::new();
            for (name, cell) in self.columns.iter().zip(&record) {
                if !name.is_empty() {
                    cells.insert(name.clone(), Value::String(self.text(cell, line)?));
                }
            }
            piece.add(RawRow { line, body: Body::Cells(cells) }, record.as_slice().len());
            self.record = record;
        }
        Ok(())
    }

    fn text(&self, cell: &[u8], line: usize) -> Result<String> {
        match std::str::from_utf8(cell) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Error::input(
                format!("{}:{line} is not UTF-8 text", self.path.display()),
                "save the file as UTF-8, for example with `iconv -t UTF-8`",
            )),
        }
    }

    fn error(&self, error: &csv::Error) -> Error {
        let path = self.path.display();
        let line = error.position().map_or(1, |position| position.line());
        match error.kind() {
            csv::ErrorKind::Io(_) if self.reader.get_ref().failed.get() => {
                let line = self.reader.position().line();
                too_long(&format!("{path}:{line}"))
            }
            csv::ErrorKind::Io(error) => Input::failed(&self.path, self.compression, error),
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Error::input(
                format!(
                    "{path}:{line} has {len} cells, but the first row names {expected_len} columns"
                ),
                "a cell with a comma, a quotation mark or a line end stands in quotation marks",
            ),
            _ => Error::input(
                format!("{path}:{line} cannot be read as CSV: {error}"),
                "save the file as UTF-8 CSV with a first row that names the columns",
            ),
        }
    }
}
