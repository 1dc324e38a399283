//! The folders of the cache. What is written is put in its place whole: a reader, also another program, sees a file or
//! none.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::repository::Repository;

/// A repository's place in the cache.
pub(crate) struct Place {
    root: PathBuf,
    folder: String,
}

impl Place {
    pub(crate) fn of(cache: &Path, repository: &Repository) -> Place {
        Place { root: cache.to_path_buf(), folder: repository.folder() }
    }

    pub(crate) fn blob(&self, name: &str) -> PathBuf {
        self.root.join(&self.folder).join("blobs").join(name)
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join(&self.folder).join("snapshots").join(commit)
    }

    /// The commit that a branch or tag was.
    pub(crate) fn reference(&self, revision: &str) -> Option<String> {
        let path = self.root.join(&self.folder).join("refs").join(revision);
        let commit = fs::read_to_string(path).ok()?;
        let commit = commit.trim();
        crate::repository::is_hex(commit, 40).then(|| commit.to_owned())
    }

    /// Notes the commit that a branch or tag is.
    pub(crate) fn refer(&self, revision: &str, commit: &str) -> Result<()> {
        if self.reference(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join(&self.folder).join("refs").join(revision);
        make_folder_of(&path)?;
        let beside = beside(&path);
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(commit.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&beside, &path));
        written.map_err(|error| cannot_write(&path, &error))
    }

    /// Links a path of a snapshot to its blob, relatively, so that the cache may be moved.
    pub(crate) fn link(&self, commit: &str, path: &str, name: &str) -> Result<()> {
        let link = self.snapshot(commit).join(path);
        let blob = self.blob(name);
        // A link that leads somewhere is right: a commit's file never changes.
        if fs::metadata(&link).is_ok() {
            return Ok(());
        }
        make_folder_of(&link)?;
        let up = "../".repeat(2 + path.matches('/').count());
        let beside = beside(&link);
        let _ = fs::remove_file(&beside);
        let made = std::os::unix::fs::symlink(format!("{up}blobs/{name}"), &beside)
            // Where there are no symbolic links, a second name or a copy of the file serves.
            .or_else(|_| fs::hard_link(&blob, &beside))
            .or_else(|_| fs::copy(&blob, &beside).map(drop))
            .and_then(|()| fs::rename(&beside, &link));
        made.map_err(|error| cannot_write(&link, &error))
    }

    /// Holds a blob for this process alone; `wait` is called where another one holds it.
    pub(crate) fn lock(&self, name: &str, wait: impl FnOnce()) -> Result<File> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{name}.lock"));
        make_folder_of(&path)?;
        let failed = |error: io::Error| cannot_write(&path, &error);
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                wait();
                file.lock().map_err(failed)?;
            }
            // A file system without locks: what is written is checked, so the worst is to fetch it twice.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(file)
    }
}

/// A hidden name beside a path, of this process and this call.
fn beside(path: &Path) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let (process, call) = (std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{process}.{call}.tmp"))
}

/// Makes the folder that a path lies in.
pub(crate) fn make_folder_of(path: &Path) -> Result<()> {
    match path.parent() {
        None => Ok(()),
        Some(folder) => fs::create_dir_all(folder).map_err(|error| cannot_write(folder, &error)),
    }
}

/// Why a path of the cache could not be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::machine(
            format!("cannot write '{path}': no space is left on the disk"),
            "free some, or set HF_HOME to a folder on another disk; what came so far is kept and gone on with",
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Error::input(
            format!("cannot write '{path}': {error}"),
            "set HF_HOME to a folder your user may write to",
        ),
        _ => Error::machine(
            format!("cannot write '{path}': {error}"),
            "check the disk, or set HF_HOME to a folder on another one",
        ),
    }
}
