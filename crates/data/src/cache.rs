//! Tokens in a file, so that a dataset is tokenized once and may be larger than memory.
//!
//! A file is named by SHA-256 of all that its tokens depend on: the bytes of the data, how it is read, tokenizer,
//! special tokens, chat templates, and the version of this program. Where to cut (`max_length`) is not among them:
//! tokens are kept whole. It is written whole or not at all ([`crate::files`]), and holds
//!
//! ```text
//! "prospct1" | token ids, u32 | entries, 40 bytes each | summary, JSON
//!            | counts of ids, entries and bytes of the summary, u64 | checksum, 32 bytes | "prospct1"
//! ```
//!
//! all numbers little-endian. The checksum is SHA-256 of the SHA-256 of every 16 MiB before it, so that many threads
//! check it. A file that does not hold what it should is made anew. What a template was told of the clock stands in
//! the summary: on another day, where that would be another date, the tokens are made anew too.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files;
use crate::load::{self, Made, Origin, Stopped, Summary};
use crate::template::{ASKED, Moment};
use crate::tokenize::Tokenization;
use crate::tokens::{Bytes, Entry, ID, Sink, Tokens};

/// Opens the bytes of a file; mapped, where the caller can.
pub type Map = fn(&Path) -> io::Result<Bytes>;

/// A folder of files of tokens.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The folder; made when it is needed.
    pub folder: PathBuf,
    /// Data of fewer bytes is tokenized every time, which takes a moment.
    pub least: u64,
    /// How a file's bytes are held.
    pub map: Map,
}

const MAGIC: [u8; 8] = *b"prospct1";
/// Three counts, the checksum and the magic again.
const TRAILER: usize = 3 * 8 + 32 + 8;
const BLOCK: usize = 16 << 20;

/// How long what a killed program left may lie.
const LEFTOVER: Duration = Duration::from_secs(24 * 3600);

/// Tokens, what is known of them, and a word on the cache.
pub(crate) type Tokenized = (Tokens, Made, Option<String>);

/// Tokenizes in memory.
pub(crate) fn in_memory(
    origins: &[Origin],
    names: &[Arc<Path>],
    tokenization: &Tokenization<'_>,
) -> Result<(Tokens, Made)> {
    let mut sink = Sink::Held(Vec::new());
    match (load::make(origins, names, tokenization, &mut sink), sink) {
        (Ok(made), Sink::Held(ids)) => Ok((Tokens::Held(Arc::new(ids)), made)),
        (Err(Stopped::Data(error)), _) => Err(error),
        (Err(Stopped::Sink(error)), _) => Err(files::cannot_write(Path::new("memory"), &error)),
        (Ok(made), Sink::File(..)) => Ok((Tokens::Held(Arc::default()), made)),
    }
}

impl Cache {
    /// Finds the tokens, or makes and keeps them. `sums` are those of the files.
    pub(crate) fn tokenized(
        &self,
        origins: &[Origin],
        names: &[Arc<Path>],
        sums: &[String],
        tokenization: &Tokenization<'_>,
        now: Moment,
    ) -> Result<Tokenized> {
        let path = self.folder.join(format!("{}.tokens", key(origins, names, sums, tokenization)));
        let mut word = format!("tokens are kept in {}", path.display());
        match self.read(&path, names.len(), now) {
            Ok(Some((tokens, made))) => {
                return Ok((
                    tokens,
                    made,
                    Some(format!("tokens are read from {}", path.display())),
                ));
            }
            Ok(None) => {}
            Err(why) => word += &format!(", anew: {why}"),
        }
        let unwritten = match self.write(&path, origins, names, tokenization)? {
            None => match self.read(&path, names.len(), now) {
                Ok(Some((tokens, made))) => return Ok((tokens, made, Some(word))),
                Ok(None) => "it is gone".to_owned(),
                Err(why) => why,
            },
            Some(why) => why,
        };
        let (tokens, made) = in_memory(origins, names, tokenization)?;
        let word = format!(
            "tokens stay in memory, since they cannot be kept in {} ({unwritten}): data.cache names another folder",
            self.folder.display()
        );
        Ok((tokens, made, Some(word)))
    }

    /// Makes the file; gives why it cannot be written, if so.
    fn write(
        &self,
        path: &Path,
        origins: &[Origin],
        names: &[Arc<Path>],
        tokenization: &Tokenization<'_>,
    ) -> Result<Option<String>> {
        if let Err(error) = fs::create_dir_all(&self.folder) {
            return Ok(Some(error.to_string()));
        }
        self.remove_leftovers();
        let mut wrong_data: Option<Error> = None;
        let written = files::write_atomically(path, |writer| {
            let mut writer = Summing::new(writer);
            writer.write_all(&MAGIC)?;
            let mut sink = Sink::File(&mut writer, 0);
            let made = match load::make(origins, names, tokenization, &mut sink) {
                Ok(made) => made,
                Err(Stopped::Sink(error)) => return Err(error),
                Err(Stopped::Data(error)) => {
                    wrong_data = Some(error);
                    return Err(io::Error::other("the data is wrong"));
                }
            };
            let ids = if let Sink::File(_, ids) = sink { ids } else { 0 };
            for entry in &made.entries {
                writer.write_all(&entry.to_bytes())?;
            }
            let summary = serde_json::to_vec(&made.summary).map_err(io::Error::from)?;
            writer.write_all(&summary)?;
            for count in [ids, made.entries.len() as u64, summary.len() as u64] {
                writer.write_all(&count.to_le_bytes())?;
            }
            writer.finish()
        });
        match (wrong_data, written) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(None),
            (None, Err(error)) => Ok(Some(error.message)),
        }
    }

    /// Reads the file; none if there is none for this moment, and words if it is damaged.
    fn read(
        &self,
        path: &Path,
        files: usize,
        now: Moment,
    ) -> Result<Option<(Tokens, Made)>, String> {
        let bytes = match (self.map)(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("it cannot be read: {error}")),
        };
        let Some(made) = check((*bytes).as_ref(), files) else {
            return Err("the file was damaged".to_owned());
        };
        let clock = &made.summary.clock;
        let same = clock.iter().all(|(format, time)| now.strftime(format) == *time);
        if !same || clock.len() >= ASKED {
            return Ok(None);
        }
        Ok(Some((Tokens::Mapped(bytes, MAGIC.len()), made)))
    }

    /// Removes what programs left that were killed while they wrote. What is young may still be written.
    fn remove_leftovers(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours =
                name.starts_with('.') && name.contains(".tokens.") && name.ends_with(".tmp");
            let age = entry.metadata().and_then(|it| it.modified()).ok();
            let age = age.and_then(|then| SystemTime::now().duration_since(then).ok());
            if is_ours && age.is_some_and(|age| age > LEFTOVER) {
                // Space that is not given back harms nothing else.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What a file of tokens holds beside them, if it is whole.
fn check(bytes: &[u8], files: usize) -> Option<Made> {
    let (summed, sum) = bytes.split_at_checked(bytes.len().checked_sub(32 + MAGIC.len())?)?;
    let sum = sum.strip_suffix(&MAGIC)?;
    if !summed.starts_with(&MAGIC) || sum_of(summed) != sum {
        return None;
    }
    let trailer = bytes.get(bytes.len().checked_sub(TRAILER)?..)?;
    let count = |at: usize| -> Option<usize> {
        usize::try_from(u64::from_le_bytes(*trailer.get(at * 8..)?.first_chunk::<8>()?)).ok()
    };
    let (ids, entries, summary) = (count(0)?, count(1)?, count(2)?);
    let after_ids = ids.checked_mul(ID)?.checked_add(MAGIC.len())?;
    let after_entries = entries.checked_mul(Entry::BYTES)?.checked_add(after_ids)?;
    let end = after_entries.checked_add(summary)?;
    if end + TRAILER != bytes.len() {
        return None;
    }
    let summary: Summary = serde_json::from_slice(bytes.get(after_entries..end)?).ok()?;
    let (chunks, _) = bytes.get(after_ids..after_entries)?.as_chunks::<{ Entry::BYTES }>();
    let entries: Vec<Entry> = chunks.iter().map(Entry::from_bytes).collect();
    let inside = |entry: &Entry| {
        let end = entry.start.checked_add(u64::from(entry.whole));
        end.is_some_and(|end| end <= ids as u64)
            && entry.prompt <= entry.whole
            && (entry.file as usize) < files
            && usize::from(entry.origin) < summary.origins.len()
    };
    let named = summary.empty.first.iter().chain(&summary.halves.first);
    let sound =
        entries.iter().all(inside) && named.into_iter().all(|place| (place.0 as usize) < files);
    sound.then_some(Made { entries, summary })
}

/// The checksum of bytes.
fn sum_of(bytes: &[u8]) -> Vec<u8> {
    let sums: Vec<_> = bytes.par_chunks(BLOCK).map(Sha256::digest).collect();
    let mut all = Sha256::new();
    sums.iter().for_each(|sum| all.update(sum));
    all.finalize().to_vec()
}

/// Takes the checksum of what is written.
struct Summing<'a> {
    writer: &'a mut dyn Write,
    block: Sha256,
    /// Bytes of the block.
    filled: usize,
    all: Sha256,
}

impl<'a> Summing<'a> {
    fn new(writer: &'a mut dyn Write) -> Self {
        Summing { writer, block: Sha256::new(), filled: 0, all: Sha256::new() }
    }

    /// Writes the checksum and the magic behind it.
    fn finish(mut self) -> io::Result<()> {
        if self.filled > 0 {
            self.all.update(self.block.finalize());
        }
        self.writer.write_all(&self.all.finalize())?;
        self.writer.write_all(&MAGIC)
    }
}

impl Write for Summing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(BLOCK - self.filled)];
        let count = self.writer.write(bytes)?;
        self.block.update(&bytes[..count]);
        self.filled += count;
        if self.filled == BLOCK {
            self.all.update(self.block.finalize_reset());
            self.filled = 0;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The name of all that tokens depend on.
fn key(
    origins: &[Origin],
    names: &[Arc<Path>],
    sums: &[String],
    tokenization: &Tokenization<'_>,
) -> String {
    let mut digest = Sha256::new();
    // Each part with its length, so that no two lists of parts read the same.
    let mut part = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    part(env!("CARGO_PKG_VERSION"));
    part(&format!("{:?}", tokenization.form));
    tokenization.tokenizer.identity().iter().for_each(|text| part(text));
    let mut files = names.iter().zip(sums);
    for origin in origins {
        part(origin.reading.name());
        for (name, column) in &origin.columns.names {
            part(name);
            part(column);
        }
        for (name, format) in &origin.columns.formats {
            part("format");
            part(name);
            part(format.text());
        }
        part("files");
        for (name, sum) in files.by_ref().take(origin.files.len()) {
            // The name says whether text is CSV.
            part(files::kind(name).unwrap_or(""));
            part(sum);
        }
    }
    files::hex(&digest.finalize())
}

#[cfg(test)]
mod tests;
