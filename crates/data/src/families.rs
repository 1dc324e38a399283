//! Families of examples with one prompt.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::tokenize::Kept;

/// Numbers the prompts: two completions are of one family if their prompts are equal before or after the cut to the
/// common beginning, or through others that are. The earliest names the family.
#[derive(Default)]
pub(crate) struct Families {
    parent: Vec<u32>,
    first: [HashMap<u128, u32>; 2],
}

impl Families {
    pub(crate) fn add(&mut self, kept: &Kept) -> Result<u32> {
        let Ok(index) = u32::try_from(self.parent.len()) else {
            return Err(Error::input(
                "the data has more than 4294967295 records",
                "no run sees so many: train on a part of them",
            ));
        };
        self.parent.push(index);
        for (first, fingerprint) in [0, 1].into_iter().zip(kept.fingerprints) {
            let same = *self.first[first].entry(fingerprint).or_insert(index);
            let (one, other) = (self.root(index), self.root(same));
            self.parent[one.max(other) as usize] = one.min(other);
        }
        Ok(index)
    }

    pub(crate) fn root(&mut self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            let above = self.parent[self.parent[node as usize] as usize];
            self.parent[node as usize] = above;
            node = above;
        }
        node
    }
}
