//! The segments of a pass, and the tables of tiles that the CUDA kernels read them from: made once, read by every
//! layer, whatever its window.
//!
//! A tile is [`TILE`] queries, or keys, of one segment; kernels with smaller blocks split it. Blocks start in the order
//! of the tables, so what takes longest comes first and the last blocks to end are short.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::OP;
use crate::device::{Device, Kind};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, View};

/// A run of queries and the keys it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row of its queries.
    pub query_start: usize,
    /// First row of its own keys; the i-th query sees the first i + 1 of them.
    pub key_start: usize,
    /// Number of queries and of own keys.
    pub len: usize,
    /// First row of the parent's keys, all of which every query sees.
    pub parent_start: usize,
    /// Number of the parent's keys, 0 for none. Their positions end at `position0 - 1`.
    pub parent_len: usize,
    /// Position of the first query.
    pub position0: usize,
}

/// Rows of a tile: `ENTRY` in tiles.cuh.
pub(super) const TILE: usize = 128;

/// The segments of a pass, ready for every layer's attention.
pub struct Segments {
    list: Vec<Segment>,
    tables: Option<Tables>,
}

/// Tables on the device. Those of keys are for backward, and empty where the segments are no whole trees.
struct Tables {
    words: Tensor,
    query_tiles: usize,
    key_tiles: usize,
}

impl Segments {
    /// Makes the tables and takes their place on the step's stack: none on the CPU.
    pub fn new(device: &Device, list: Vec<Segment>) -> Result<Segments> {
        if device.arithmetic() != Kind::Cuda {
            return Ok(Segments { list, tables: None });
        }
        let queries = query_tiles(&list);
        let (keys, runs) = families(&list)
            .map_or_else(|_| Default::default(), |families| key_tiles(&list, &families));
        let words: Vec<u32> = [queries.concat(), keys.concat(), runs.concat()].concat();
        let words = device.upload(&words)?;
        let tables = Tables { words, query_tiles: queries.len(), key_tiles: keys.len() };
        Ok(Segments { list, tables: Some(tables) })
    }

    /// The table of tiles of queries, and how many there are. Panics on a device that needs none.
    pub(super) fn query_table(&self) -> (View<'_>, usize) {
        let tables = self.tables();
        (tables.words.view(), tables.query_tiles)
    }

    /// The table of tiles of keys, how many there are, and the runs of queries that they point into.
    pub(super) fn key_table(&self) -> (View<'_>, usize, View<'_>) {
        let tables = self.tables();
        let (keys, words) = (8 * tables.query_tiles, tables.words.rows());
        let runs = keys + 8 * tables.key_tiles;
        (tables.words.slice(keys..runs), tables.key_tiles, tables.words.slice(runs..words))
    }

    fn tables(&self) -> &Tables {
        match &self.tables {
            Some(tables) => tables,
            None => unreachable!("segments of another device"),
        }
    }
}

impl std::ops::Deref for Segments {
    type Target = [Segment];

    fn deref(&self) -> &[Segment] {
        &self.list
    }
}

/// `(query_start, key_start, len, parent_start, parent_len, first query, 0, 0)` of every tile of queries.
pub(super) fn query_tiles(segments: &[Segment]) -> Vec<[u32; 8]> {
    let mut tiles: Vec<(usize, [u32; 8])> = Vec::new();
    for s in segments {
        for start in (0..s.len).step_by(TILE) {
            let seen = s.parent_len + (start + TILE).min(s.len);
            let tile =
                [s.query_start, s.key_start, s.len, s.parent_start, s.parent_len, start, 0, 0];
            tiles.push((seen, tile.map(|word| word as u32)));
        }
    }
    tiles.sort_by_key(|(seen, _)| Reverse(*seen));
    tiles.into_iter().map(|(_, tile)| tile).collect()
}

/// `(first key's row, keys, its position, first run, end of runs, 0, 0, 0)` of every tile of keys, and the runs of
/// queries `(first query's row, queries, its position, 0)` that see them: of the segment itself, then of its children.
pub(super) fn key_tiles(
    segments: &[Segment],
    families: &[Vec<usize>],
) -> (Vec<[u32; 8]>, Vec<[u32; 4]>) {
    let mut tiles: Vec<(usize, [u32; 8])> = Vec::new();
    let mut runs: Vec<[u32; 4]> = Vec::new();
    for family in families {
        for (place, index) in family.iter().enumerate() {
            let s = &segments[*index];
            // The root comes first in its family; it is seen by all of it, a child by itself.
            let seeing = if place == 0 { &family[..] } else { &family[place..=place] };
            let first_run = runs.len();
            let run = |s: &Segment| [s.query_start, s.len, s.position0, 0].map(|word| word as u32);
            runs.extend(seeing.iter().map(|index| run(&segments[*index])));
            let queries: usize = seeing.iter().map(|index| segments[*index].len).sum();
            for start in (0..s.len).step_by(TILE) {
                let keys = (s.len - start).min(TILE);
                let (row, position) = (s.key_start + start, s.position0 + start);
                let tile = [row, keys, position, first_run, runs.len(), 0, 0, 0];
                tiles.push((queries - start, tile.map(|word| word as u32)));
            }
        }
    }
    tiles.sort_by_key(|(queries, _)| Reverse(*queries));
    (tiles.into_iter().map(|(_, tile)| tile).collect(), runs)
}

/// Groups segments by root: each root with its children, in order. Keys of a family are read by it alone.
pub(super) fn families(segments: &[Segment]) -> Result<Vec<Vec<usize>>> {
    let mut families: Vec<Vec<usize>> = Vec::new();
    let mut root_at = HashMap::new();
    for (i, segment) in segments.iter().enumerate() {
        if segment.parent_len == 0 {
            root_at.insert(segment.key_start, (families.len(), segment.len));
            families.push(vec![i]);
            continue;
        }
        match root_at.get(&segment.parent_start) {
            Some((family, len)) if *len == segment.parent_len => families[*family].push(i),
            _ => {
                return Err(Error::Argument {
                    op: OP,
                    what: format!("the parent of {segment:?} is not a root segment before it"),
                    hint: "trees are two deep in training: list every prompt before its completions",
                });
            }
        }
    }
    Ok(families)
}
