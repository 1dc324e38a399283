//! The token ids of a dataset: in memory, or in a file that the system pages in as they are needed. What is kept in
//! memory of each example is where its tokens lie and a few numbers.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Arc;

/// The bytes of a file, however the program holds them.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Bytes of a token id in a file.
pub(crate) const ID: usize = 4;

/// All token ids of a dataset, one after another.
#[derive(Clone)]
pub(crate) enum Tokens {
    /// In memory.
    Held(Arc<Vec<u32>>),
    /// In a file, little-endian, behind so many bytes.
    Mapped(Bytes, usize),
}

impl Tokens {
    /// `count` ids from the `start`-th on. What is not there is left out.
    pub(crate) fn get(&self, start: u64, count: u32) -> Cow<'_, [u32]> {
        let (start, count) = (start as usize, count as usize);
        match self {
            Tokens::Held(ids) => Cow::Borrowed(ids.get(start..start + count).unwrap_or_default()),
            Tokens::Mapped(bytes, before) => {
                let bytes: &[u8] = (**bytes).as_ref();
                let from = before + start * ID;
                let bytes = bytes.get(from..from + count * ID).unwrap_or_default();
                let (ids, _) = bytes.as_chunks::<ID>();
                Cow::Owned(ids.iter().map(|id| u32::from_le_bytes(*id)).collect())
            }
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Tokens::Held(_) => "tokens in memory",
            Tokens::Mapped(..) => "tokens in a file",
        })
    }
}

/// Where tokens are written to.
pub(crate) enum Sink<'a> {
    /// To memory.
    Held(Vec<u32>),
    /// To a file; so many were written.
    File(&'a mut dyn Write, u64),
}

impl Sink<'_> {
    /// Writes the tokens of an example; gives how many lie before them.
    pub(crate) fn push(&mut self, ids: &[u32]) -> io::Result<u64> {
        match self {
            Sink::Held(held) => {
                let before = held.len() as u64;
                held.extend_from_slice(ids);
                Ok(before)
            }
            Sink::File(writer, written) => {
                let before = *written;
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                writer.write_all(&bytes)?;
                *written += ids.len() as u64;
                Ok(before)
            }
        }
    }
}

/// What is kept in memory of a tokenized completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where its tokens begin.
    pub(crate) start: u64,
    /// The line or row it was read from.
    pub(crate) line: u64,
    /// Tokens of prompt and completion together.
    pub(crate) whole: u32,
    /// Tokens of the prompt.
    pub(crate) prompt: u32,
    /// The number of its prompt: see [`crate::Example::family`].
    pub(crate) family: u32,
    /// The largest of its token ids.
    pub(crate) largest: u32,
    /// The file, by its place among all.
    pub(crate) file: u32,
    /// The origin, by its place among all.
    pub(crate) origin: u16,
    /// Whether the completion is desirable.
    pub(crate) label: bool,
    /// Whether the end of the prompt tokenizes differently with the completion behind it.
    pub(crate) moved: bool,
}

impl Entry {
    /// Bytes of an entry in a file.
    pub(crate) const BYTES: usize = 40;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.line.to_le_bytes());
        let numbers = [self.whole, self.prompt, self.family, self.largest, self.file];
        for (place, number) in bytes[16..36].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[36..38].copy_from_slice(&self.origin.to_le_bytes());
        (bytes[38], bytes[39]) = (u8::from(self.label), u8::from(self.moved));
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Entry {
        let wide = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Entry {
            start: wide(0),
            line: wide(8),
            whole: number(16),
            prompt: number(20),
            family: number(24),
            largest: number(28),
            file: number(32),
            origin: u16::from_le_bytes([bytes[36], bytes[37]]),
            label: bytes[38] != 0,
            moved: bytes[39] != 0,
        }
    }
}
