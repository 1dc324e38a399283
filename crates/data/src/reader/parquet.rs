//! Parquet (github.com/apache/parquet-format), read by the `parquet` crate in batches, and only the columns that are
//! wanted.

use std::path::Path;

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::columnar::{self, Batches};
use super::{Piece, damaged, library};
use crate::error::Result;
use crate::files;

/// Rows that are decoded at once: few, since a dictionary makes a long text of every row out of few bytes.
const BATCH_ROWS: usize = 256;

/// The rows of a Parquet file.
pub(super) struct Table {
    name: String,
    reader: ParquetRecordBatchReader,
    batches: Batches,
}

impl Table {
    pub(super) fn open(path: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Table> {
        let name = path.display().to_string();
        let file = files::open(path)?;
        let reader = library(&name, || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)
                .map_err(|error| damaged(&name, &error))?;
            let places = columnar::projection(&name, builder.schema(), wanted)?;
            let mask = ProjectionMask::roots(builder.parquet_schema(), places);
            let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
            reader.map_err(|error| damaged(&name, &error))
        })?;
        Ok(Table { batches: Batches::new(name.clone()), name, reader })
    }

    pub(super) fn fill(&mut self, piece: &mut Piece) -> Result<()> {
        let Table { name, reader, batches } = self;
        batches.fill(piece, || reader.next().transpose().map_err(|error| damaged(name, &error)))
    }
}
