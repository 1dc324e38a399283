//! Rows of Arrow record batches, as the JSON objects that the same rows have in a JSONL file: text, booleans,
//! numbers, lists, structs and dictionaries of them.
//!
//! Arrow has every field in every struct and writes null where a row has none; such nulls are left out, as JSONL
//! leaves them out. Bytes are text if they are UTF-8. Types that no form has (dates, decimals, unions) are null.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_schema::{DataType, Schema};
use serde_json::{Map, Number, Value};

use super::{Body, LONGEST, Piece, RawRow, too_long};
use crate::error::{Error, Result};

/// A batch that is being given out row by row.
pub(super) struct Batches {
    name: String,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    next: usize,
    /// Rows of the file so far.
    rows: usize,
    /// Whether the last batch is through: behind it may lie what is no batch.
    ended: bool,
}

impl Batches {
    pub(super) fn new(name: String) -> Batches {
        Batches { name, batch: None, next: 0, rows: 0, ended: false }
    }

    /// Fills a piece from one batch after another.
    pub(super) fn fill(
        &mut self,
        piece: &mut Piece,
        mut batch: impl FnMut() -> Result<Option<RecordBatch>>,
    ) -> Result<()> {
        while !piece.is_full() && !self.ended {
            let Some(current) = &self.batch else {
                self.next = 0;
                self.batch = batch()?;
                self.ended = self.batch.is_none();
                continue;
            };
            if self.next == current.num_rows() {
                self.batch = None;
                continue;
            }
            let number = self.rows + 1;
            let mut left = LONGEST;
            let row = row(current, self.next, &mut left)
                .ok_or_else(|| too_long(&format!("{}:{number}", self.name)))?;
            (self.next, self.rows) = (self.next + 1, number);
            piece.add(RawRow { line: number, body: Body::Fields(row) }, LONGEST - left);
        }
        Ok(())
    }
}

/// The columns that are wanted, by their places.
pub(super) fn projection(
    name: &str,
    schema: &Schema,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<usize>> {
    let fields = schema.fields();
    let places: Vec<usize> = (0..fields.len()).filter(|&i| wanted(fields[i].name())).collect();
    if places.is_empty() {
        let names: Vec<String> =
            fields.iter().take(20).map(|field| format!("'{}'", field.name())).collect();
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::input(
            format!("'{name}' has no column to learn from; its columns are {has}"),
            "say which columns are meant, for example columns = { prompt = \"question\" }",
        ));
    }
    Ok(places)
}

fn row(batch: &RecordBatch, index: usize, left: &mut usize) -> Option<Map<String, Value>> {
    let mut row = Map::new();
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        row.insert(field.name().clone(), value(column, index, left)?);
    }
    Some(row)
}

/// A value, if what is left of the row's bytes suffices.
fn value(array: &ArrayRef, index: usize, left: &mut usize) -> Option<Value> {
    // A null type has no bit that says so.
    if array.is_null(index) || array.data_type() == &DataType::Null {
        *left = left.checked_sub(1)?;
        return Some(Value::Null);
    }
    let mut text = |text: &str| {
        *left = left.checked_sub(text.len() + 1)?;
        Some(Value::String(text.to_owned()))
    };
    let bytes = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    match array.data_type() {
        DataType::Utf8 => return text(array.as_string::<i32>().value(index)),
        DataType::LargeUtf8 => return text(array.as_string::<i64>().value(index)),
        DataType::Utf8View => return text(array.as_string_view().value(index)),
        DataType::Binary => {
            return bytes(array.as_binary::<i32>().value(index))
                .map_or(Some(Value::Null), |it| text(&it));
        }
        DataType::LargeBinary => {
            return bytes(array.as_binary::<i64>().value(index))
                .map_or(Some(Value::Null), |it| text(&it));
        }
        DataType::BinaryView => {
            return bytes(array.as_binary_view().value(index))
                .map_or(Some(Value::Null), |it| text(&it));
        }
        DataType::List(_) => return list(&array.as_list::<i32>().value(index), left),
        DataType::LargeList(_) => return list(&array.as_list::<i64>().value(index), left),
        DataType::FixedSizeList(..) => return list(&array.as_fixed_size_list().value(index), left),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = plain(&make_array(dictionary.keys().to_data()), index);
            let key = key.as_u64().map_or(usize::MAX, |key| key as usize);
            return match key < dictionary.values().len() {
                false => Some(Value::Null),
                true => value(dictionary.values(), key, left),
            };
        }
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let mut map = Map::new();
            for (field, column) in fields.iter().zip(array.columns()) {
                let value = value(column, index, left)?;
                if !value.is_null() {
                    *left = left.checked_sub(field.name().len())?;
                    map.insert(field.name().clone(), value);
                }
            }
            return Some(Value::Object(map));
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(index);
            let (names, values) = (entries.column(0), entries.column(1));
            let mut map = Map::new();
            for entry in 0..entries.len() {
                let name = value(names, entry, left)?;
                let value = value(values, entry, left)?;
                if let Value::String(name) = name {
                    map.insert(name, value);
                }
            }
            return Some(Value::Object(map));
        }
        _ => {}
    }
    *left = left.checked_sub(8)?;
    Some(plain(array, index))
}

fn list(values: &ArrayRef, left: &mut usize) -> Option<Value> {
    // Each costs at least one of what is left, so the list is no longer than that.
    (0..values.len())
        .map(|index| value(values, index, left))
        .collect::<Option<_>>()
        .map(Value::Array)
}

/// A boolean or a number; what is neither is null.
fn plain(array: &ArrayRef, index: usize) -> Value {
    macro_rules! number {
        ($Type:ty) => {
            Value::from(array.as_primitive::<$Type>().value(index))
        };
    }
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(index)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(index).to_f64()),
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(index))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(index)),
        _ => Value::Null,
    }
}
