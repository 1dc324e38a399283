//! One file into its blob: from where an earlier attempt was cut off, no byte beyond its size, and only if its hash is
//! the one that the hub listed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use crate::cache::{Place, cannot_write, make_folder_of};
use crate::error::{Error, Result};
use crate::fetch::Event;
use crate::hash::Hasher;
use crate::listing;
use crate::repository::Repository;
use crate::transport::{Answer, Failure, Transport, Tries};

/// Bytes between two events of progress.
const STRIDE: u64 = 1 << 20;

/// How often a file may come with the wrong content before it is given up.
const MOST_WRONG: u32 = 2;

/// Makes the blob of `file` be there.
pub(crate) fn file(
    transport: &Transport<'_>,
    repository: &Repository,
    place: &Place,
    file: &listing::File,
    url: &str,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<()> {
    let blob = place.blob(file.hash.name());
    if is_whole(&blob, file.size) {
        return Ok(());
    }
    let path = &file.path;
    let _lock = place.lock(file.hash.name(), || events(Event::Waiting { path }))?;
    // Another program may have fetched it while this one waited.
    if is_whole(&blob, file.size) {
        return Ok(());
    }
    let incomplete = place.blob(&format!("{}.incomplete", file.hash.name()));
    make_folder_of(&incomplete)?;
    let mut part = Part::open(&incomplete, file)?;
    let mut tries = Tries::new(transport.patience());
    let (mut wrong, mut best) = (0, part.have);
    loop {
        let attempt = match part.have == file.size {
            true => Ok(()),
            false => transport
                .get(repository, url, part.have)
                .and_then(|answer| part.take(answer, events)),
        };
        if part.have > best {
            best = part.have;
            tries.progressed();
        }
        match attempt {
            Ok(()) if part.hash() == file.hash.name() => break,
            // Whole, and not what it should be: from the beginning, once more.
            Ok(()) => {
                part.forget()?;
                wrong += 1;
                if wrong >= MOST_WRONG {
                    return Err(Error::machine(
                        format!(
                            "{path} of '{repository}' came with another hash than the hub lists"
                        ),
                        "something between here and the hub changes what passes (a proxy, a mirror); try another network",
                    ));
                }
            }
            Err(failure) => tries.wait(failure, events)?,
        }
    }
    part.file.sync_all().map_err(|error| cannot_write(&incomplete, &error))?;
    drop(part);
    fs::rename(&incomplete, &blob).map_err(|error| cannot_write(&blob, &error))?;
    events(Event::Fetched { path });
    Ok(())
}

/// Whether a blob is there with its size; its name is its hash, checked when it was written.
fn is_whole(blob: &Path, size: u64) -> bool {
    fs::metadata(blob).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// What is there of a file.
struct Part<'a> {
    file: File,
    path: &'a Path,
    listed: &'a listing::File,
    have: u64,
    hasher: Hasher,
}

impl<'a> Part<'a> {
    /// Opens what an earlier attempt left.
    fn open(path: &'a Path, listed: &'a listing::File) -> Result<Part<'a>> {
        let failed = |error: io::Error| cannot_write(path, &error);
        let mut options = File::options();
        let file = options.create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(failed)?;
        let hasher = listed.hash.begin(listed.size);
        let mut part = Part { file, path, listed, have: 0, hasher };
        let length = part.file.metadata().map_err(failed)?.len();
        if length > listed.size {
            part.forget()?;
        } else {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = part.file.read(&mut buffer).map_err(failed)?;
                if count == 0 {
                    break;
                }
                part.hasher.update(&buffer[..count]);
                part.have += count as u64;
            }
        }
        Ok(part)
    }

    /// Begins anew.
    fn forget(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| cannot_write(self.path, &error))?;
        self.have = 0;
        self.hasher = self.listed.hash.begin(self.listed.size);
        Ok(())
    }

    /// The hash of what is there.
    fn hash(&mut self) -> String {
        let begun = self.listed.hash.begin(self.listed.size);
        std::mem::replace(&mut self.hasher, begun).finish()
    }

    /// Appends an answer's body.
    fn take(
        &mut self,
        answer: Answer,
        events: &mut dyn FnMut(Event<'_>),
    ) -> std::result::Result<(), Failure> {
        let cut = |why: &str| {
            Failure::passing(Error::machine(
                format!("{} broke off: {why}", self.listed.path),
                "try again: what came so far is kept and gone on with",
            ))
        };
        let from = match answer.status {
            206 => {
                let range = answer.header("content-range").unwrap_or("");
                let start = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
                start.and_then(|(start, _)| start.parse().ok())
            }
            200 => Some(0),
            // The server has no such part: begin at the beginning.
            _ => None,
        };
        let (ended, silent) = (cut("the connection ended"), cut("the server is silent"));
        let odd = cut("the server sent another part than was asked for");
        if from != Some(self.have) {
            self.forget().map_err(Failure::last)?;
            if from != Some(0) {
                return Err(odd);
            }
        }
        let mut told = self.have;
        let mut body = answer.body.into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.to_string().contains("timeout") => return Err(silent),
                Err(_) => return Err(ended),
            };
            if count as u64 > self.listed.size - self.have {
                let (path, size) = (&self.listed.path, self.listed.size);
                let error = Error::machine(
                    format!("{path} is longer than the {size} bytes that the hub lists"),
                    "something between here and the hub changes what passes (a proxy, a mirror); try another network",
                );
                self.forget().map_err(Failure::last)?;
                return Err(Failure::last(error));
            }
            let written = self.file.write_all(&buffer[..count]);
            written.map_err(|error| Failure::last(cannot_write(self.path, &error)))?;
            self.hasher.update(&buffer[..count]);
            self.have += count as u64;
            if self.have - told >= STRIDE || self.have == self.listed.size {
                told = self.have;
                let (path, size) = (&self.listed.path, self.listed.size);
                events(Event::Progress { path, done: self.have, size });
            }
        }
        if self.have < self.listed.size { Err(ended) } else { Ok(()) }
    }
}
