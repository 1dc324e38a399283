//! A repository into a folder: from the cache where it is whole, else from the hub.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cache::Place;
use crate::download;
use crate::error::{Error, Result};
use crate::hash::Expected;
use crate::listing::{File, Listing};
use crate::repository::{Kind, Repository, is_path};
use crate::settings::{Patience, Settings};
use crate::transport::{Failure, Transport, Tries, encoded};
use crate::wanted;

/// The most bytes of a list of files.
const LARGEST_LIST: u64 = 64 << 20;
/// The deepest folder of a snapshot that is looked into.
const DEEPEST: usize = 8;

/// What happens while a repository is fetched.
#[derive(Debug)]
pub enum Event<'a> {
    /// So much will be fetched.
    Begin {
        /// From where.
        repository: &'a Repository,
        /// The commit that the revision is.
        commit: &'a str,
        /// Files that are not in the cache yet.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// A file is so far.
    Progress {
        /// Its path in the repository.
        path: &'a str,
        /// Bytes that are there.
        done: u64,
        /// Bytes of all of it.
        size: u64,
    },
    /// A file is there and is what it should be.
    Fetched {
        /// Its path in the repository.
        path: &'a str,
    },
    /// Another program fetches this file; it is waited for.
    Waiting {
        /// Its path in the repository.
        path: &'a str,
    },
    /// Something failed that may pass.
    Pause {
        /// What.
        why: &'a str,
        /// The time until the next attempt.
        pause: Duration,
    },
    /// The hub does not answer, and the copy in the cache is taken as the revision it was.
    Older {
        /// Of what.
        repository: &'a Repository,
        /// Why it does not answer.
        why: &'a str,
    },
}

/// The hub, and the cache of what came from it.
pub struct Hub {
    settings: Settings,
}

impl Hub {
    /// A hub by its settings.
    pub fn new(settings: Settings) -> Hub {
        Hub { settings }
    }

    /// The hub of this process's environment.
    pub fn of_environment() -> Result<Hub> {
        Settings::of_environment().map(Hub::new)
    }

    /// The folder of a model: its snapshot in the cache, whose name is the commit.
    pub fn model(
        &self,
        repository: &Repository,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf> {
        self.snapshot(repository, &wanted::of_model, &is_whole_model, events)
    }

    /// The same without the weights, for what their shapes are enough for: those follow from the configuration. What of the weights is
    /// in the cache already stays there.
    pub fn configuration(
        &self,
        repository: &Repository,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf> {
        self.snapshot(repository, &wanted::of_configuration, &is_configured, events)
    }

    fn snapshot(
        &self,
        repository: &Repository,
        wanted: &Wanted,
        is_whole: &dyn Fn(&Path) -> bool,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf> {
        let place = Place::of(&self.settings.cache, repository);
        let cached = || self.commit(&place, repository).map(|commit| place.snapshot(&commit));
        let cached = || cached().filter(|folder| is_whole(folder));
        if repository.is_commit()
            && let Some(folder) = cached()
        {
            return Ok(folder);
        }
        match self.list(repository, cached().is_some(), events) {
            Ok((transport, listing)) => {
                let files = wanted(repository, &listing.files)?;
                self.fetch(&transport, repository, &place, &listing.commit, &files, events)?;
                Ok(place.snapshot(&listing.commit))
            }
            Err(error) => match cached() {
                Some(folder) if error.unreachable => {
                    self.older(repository, &error, events);
                    Ok(folder)
                }
                _ => Err(error),
            },
        }
    }

    /// The files of a data set with rows: those at `within`, or else those named by one of `splits`.
    pub fn dataset(
        &self,
        repository: &Repository,
        within: Option<&str>,
        splits: &[&str],
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Vec<PathBuf>> {
        let place = Place::of(&self.settings.cache, repository);
        let known = self.commit(&place, repository).is_some();
        let (commit, files) = match self.list(repository, known, events) {
            Ok((transport, listing)) => {
                let files = wanted::of_dataset(repository, &listing.files, within, splits)?;
                self.fetch(&transport, repository, &place, &listing.commit, &files, events)?;
                (listing.commit, files.into_iter().cloned().collect::<Vec<_>>())
            }
            Err(error) if error.unreachable => {
                let Some(commit) = self.commit(&place, repository) else { return Err(error) };
                let listed = files_of(&self.settings.cache, repository, &commit, &place);
                let files = match wanted::of_dataset(repository, &listed, within, splits) {
                    Ok(files) => files.into_iter().cloned().collect::<Vec<_>>(),
                    Err(_) => return Err(error),
                };
                if files.iter().any(|file| !place.snapshot(&commit).join(&file.path).exists()) {
                    return Err(error);
                }
                self.older(repository, &error, events);
                (commit, files)
            }
            Err(error) => return Err(error),
        };
        let folder = place.snapshot(&commit);
        let mut paths: Vec<PathBuf> = files.iter().map(|file| folder.join(&file.path)).collect();
        paths.sort();
        Ok(paths)
    }

    /// Says that an older copy is taken, unless nobody was to be asked.
    fn older(&self, repository: &Repository, error: &Error, events: &mut dyn FnMut(Event<'_>)) {
        if !self.settings.offline {
            events(Event::Older { repository, why: &error.message });
        }
    }

    /// The commit that a revision is, as far as the cache knows.
    fn commit(&self, place: &Place, repository: &Repository) -> Option<String> {
        match repository.is_commit() {
            true => Some(repository.revision.clone()),
            false => place.reference(&repository.revision),
        }
    }

    /// Asks the hub what a revision holds: once, where a copy is in the cache already.
    fn list(
        &self,
        repository: &Repository,
        once: bool,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<(Transport<'_>, Listing)> {
        if self.settings.offline {
            return Err(Error {
                unreachable: true,
                ..Error::input(
                    format!(
                        "'{repository}' is not in the cache '{}', and HF_HUB_OFFLINE says to ask nobody",
                        self.settings.cache.display()
                    ),
                    "unset HF_HUB_OFFLINE, or fetch it where there is a network and copy the cache",
                )
            });
        }
        let transport = Transport::new(&self.settings)?;
        let kind = match repository.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        let (endpoint, id) = (&self.settings.endpoint, &repository.id);
        let revision = encoded(&repository.revision, "");
        let url = format!("{endpoint}/api/{kind}/{id}/revision/{revision}?blobs=true");
        let patience = transport.patience();
        let attempts = if once { 1 } else { patience.attempts };
        let mut tries = Tries::new(Patience { attempts, ..patience });
        let text = loop {
            let attempt = transport.get(repository, &url, 0).and_then(|answer| {
                let mut text = String::new();
                let mut body = answer.body.into_reader().take(LARGEST_LIST);
                match body.read_to_string(&mut text) {
                    Ok(_) => Ok(text),
                    Err(_) => Err(Failure::passing(Error::unreachable(
                        format!("the hub's list of '{repository}' broke off"),
                        "try again",
                    ))),
                }
            });
            match attempt {
                Ok(text) => break text,
                Err(failure) => tries.wait(failure, events)?,
            }
        };
        let listing = Listing::read(&text, repository)?;
        Ok((transport, listing))
    }

    /// Fetches what is not there, then makes the snapshot, then notes the revision: what is found by a revision's
    /// name is whole.
    fn fetch(
        &self,
        transport: &Transport<'_>,
        repository: &Repository,
        place: &Place,
        commit: &str,
        files: &[&File],
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let there = |file: &&&File| place.snapshot(commit).join(&file.path).exists();
        let missing: Vec<&&File> = files.iter().filter(|file| !there(file)).collect();
        if !missing.is_empty() {
            let bytes = missing.iter().map(|file| file.size).sum();
            events(Event::Begin { repository, commit, files: missing.len(), bytes });
        }
        let kind = match repository.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        for file in &missing {
            let (endpoint, id) = (&self.settings.endpoint, &repository.id);
            let path = encoded(&file.path, "/");
            let url = format!("{endpoint}/{kind}{id}/resolve/{commit}/{path}");
            download::file(transport, repository, place, file, &url, events)?;
        }
        for file in &missing {
            place.link(commit, &file.path, file.hash.name())?;
        }
        if !repository.is_commit() {
            place.refer(&repository.revision, commit)?;
        }
        Ok(())
    }
}

/// Which files of a repository are meant.
type Wanted = dyn for<'a> Fn(&Repository, &'a [File]) -> Result<Vec<&'a File>>;

/// Whether a snapshot has what a plan needs.
fn is_configured(folder: &Path) -> bool {
    ["config.json", "tokenizer.json"].iter().all(|name| folder.join(name).exists())
}

/// Whether a snapshot has what a model needs: another program may have fetched a part of it alone.
fn is_whole_model(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    if has("adapter_config.json") && has("adapter_model.safetensors") {
        return true;
    }
    if !has("config.json") || !has("tokenizer.json") {
        return false;
    }
    if has("model.safetensors") {
        return true;
    }
    let index = fs::read_to_string(folder.join("model.safetensors.index.json"));
    let index: Option<Value> = index.ok().and_then(|text| serde_json::from_str(&text).ok());
    let shards = index.as_ref().and_then(|index| index.get("weight_map")?.as_object());
    shards.is_some_and(|shards| {
        shards.values().all(|shard| shard.as_str().is_some_and(|name| is_path(name) && has(name)))
    })
}

/// The files of a data set's commit as the cache knows them: by the list that huggingface_hub keeps of a commit
/// (`trees/<commit>.json`), which also names what it did not fetch, or else those of the snapshot.
fn files_of(cache: &Path, repository: &Repository, commit: &str, place: &Place) -> Vec<File> {
    let list = cache.join(repository.folder()).join("trees").join(format!("{commit}.json"));
    let list: Option<Value> =
        fs::read_to_string(list).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut paths = Vec::new();
    match list.as_ref().and_then(|list| list.get("files")?.as_object()) {
        Some(files) => paths.extend(files.keys().filter(|path| is_path(path)).cloned()),
        None => walk(&place.snapshot(commit), "", DEEPEST, &mut paths),
    }
    paths.sort();
    let nothing = || Expected::Git(String::new());
    paths.into_iter().map(|path| File { path, size: 0, hash: nothing() }).collect()
}

fn walk(folder: &Path, prefix: &str, depth: usize, paths: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => {
                walk(&entry.path(), &format!("{path}/"), depth - 1, paths);
            }
            Ok(kind) if !kind.is_dir() && entry.path().exists() => paths.push(path),
            _ => {}
        }
    }
}
