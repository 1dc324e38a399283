//! Which row of a rotary embedding's tables each row of a pass turns by.
//!
//! That is its position, except where long sequences have frequencies of their own (LongRoPE): the tables hold rows for
//! those behind the others. A prompt and its completions share keys, so a token tree turns as its longest sequence does;
//! transformers decides for a padded batch at once.

use std::collections::BTreeMap;

use engine::ops::attention::Segment;
use engine::tensor::{Tensor, View};

use super::{Model, Pass};
use crate::error::Result;

/// The rows of the tables, for each rotary embedding of a model.
pub(super) struct Turns<'a> {
    positions: View<'a>,
    /// Where they are not the positions.
    rows: Vec<Option<Tensor>>,
}

impl<'a> Turns<'a> {
    pub(super) fn new(model: &Model, pass: &Pass<'a>) -> Result<Turns<'a>> {
        let rows = model.ropes.iter().map(|tables| {
            let Some((longest, first_row)) = tables.switch else { return Ok(None) };
            let rows = rows(&pass.segments, pass.positions.rows(), longest, first_row);
            Ok(Some(model.device().upload(&rows)?))
        });
        Ok(Turns { positions: pass.positions, rows: rows.collect::<Result<_>>()? })
    }

    /// Those of the first `n` rows of the pass, for the embedding of this number.
    pub(super) fn of(&self, rope: usize, n: usize) -> View<'_> {
        match &self.rows[rope] {
            None => self.positions.slice(0..n),
            Some(rows) => rows.slice(0..n),
        }
    }
}

/// Positions of sequences up to `longest` tokens, and those of longer ones behind `first_row`.
fn rows(segments: &[Segment], count: usize, longest: usize, first_row: usize) -> Vec<u32> {
    // A tree is known by the row where its first key lies.
    let tree = |s: &Segment| if s.parent_len > 0 { s.parent_start } else { s.key_start };
    let mut lengths = BTreeMap::new();
    for segment in segments {
        let length = lengths.entry(tree(segment)).or_insert(0);
        *length = segment.position0.saturating_add(segment.len).max(*length);
    }
    let mut rows = vec![0; count];
    for segment in segments {
        let first = if lengths[&tree(segment)] > longest { first_row } else { 0 };
        let own = rows.iter_mut().skip(segment.query_start).take(segment.len);
        own.enumerate().for_each(|(i, row)| *row = (first + segment.position0 + i) as u32);
    }
    rows
}
