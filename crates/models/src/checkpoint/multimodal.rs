//! A model that reads images too, whose decoder is one part of it: the decoder's tensors under the names that a model of
//! text alone has, the others set aside, so that they can be written again as they were.
//!
//! Sources: `Gemma3ForConditionalGeneration`, `language_model.model.layers` as transformers 4 names it and 5 still saves it,
//! `model.language_model.layers` as transformers 5 has it in memory.

use std::collections::BTreeMap;

use super::{Checkpoint, Place};
use crate::error::Result;
use crate::export::Entry;

/// The decoder's path: in the file, and of a model of text alone.
const SPELLINGS: [[(&str, &str); 2]; 2] = [
    [("language_model.model.", "model."), ("language_model.lm_head.", "lm_head.")],
    [("model.language_model.", "model."), ("lm_head.", "lm_head.")],
];

/// What a checkpoint of such a model has besides.
pub(super) struct Multimodal {
    spelling: &'static [(&'static str, &'static str); 2],
    /// The tensors that are no part of the decoder, by their names in the file.
    beside: BTreeMap<String, Place>,
}

impl Multimodal {
    /// Leaves the decoder's tensors alone in `places`, if it is a part of something.
    pub(super) fn take(places: &mut BTreeMap<String, Place>) -> Option<Multimodal> {
        let has = |start: &str| places.keys().any(|name| name.starts_with(start));
        let spelling = SPELLINGS.iter().find(|spelling| has(spelling[0].0))?;
        let mut beside = BTreeMap::new();
        for (name, place) in std::mem::take(places) {
            let within =
                spelling.iter().find_map(|(file, alone)| Some((name.strip_prefix(file)?, alone)));
            match within {
                Some((rest, alone)) => places.insert(format!("{alone}{rest}"), place),
                None => beside.insert(name, place),
            };
        }
        Some(Multimodal { spelling, beside })
    }
}

impl Checkpoint {
    /// The names of tensors that are no part of the decoder, where it is one part of a model.
    pub fn beside(&self) -> impl Iterator<Item = &str> {
        self.multimodal.iter().flat_map(|it| it.beside.keys().map(String::as_str))
    }

    /// The decoder's tensors under their names in this checkpoint, with those beside it as they are: the whole model, where
    /// it is more than a decoder.
    pub fn whole<'a>(&'a self, decoder: Vec<Entry<'a>>) -> Result<Vec<Entry<'a>>> {
        let Some(Multimodal { spelling, beside }) = &self.multimodal else { return Ok(decoder) };
        let mut entries = decoder;
        for entry in &mut entries {
            let within = spelling
                .iter()
                .find_map(|(file, alone)| Some((file, entry.name.strip_prefix(alone)?)));
            if let Some((file, rest)) = within {
                entry.name = format!("{file}{rest}");
            }
        }
        for (name, place) in beside {
            entries.push(Entry::stored(
                name,
                self.stored(place),
                "what reads images is written as it is stored, in F32, BF16 or F16: take a model that is not quantized",
            )?);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
