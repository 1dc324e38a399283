//! Files of the machine at hand, or of a folder that holds another machine's tree.

use super::{Entry, Kind, ReadAt, Stat};
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// No folder is listed further than this: a package folder of 50,000 files is real, a million entries is not.
const MOST_ENTRIES: usize = 200_000;

/// A tree of files.
#[derive(Clone, Debug)]
pub struct Files {
    root: Option<PathBuf>,
}

struct Open {
    file: fs::File,
    len: u64,
}

impl ReadAt for Open {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

impl Files {
    /// The tree of this machine.
    pub fn local() -> Files {
        Files { root: None }
    }

    /// The tree under `root`, in which absolute paths and links stay.
    pub fn under(root: PathBuf) -> Files {
        Files { root: Some(root) }
    }

    /// Where a path of the tree lies on this machine. Links are followed inside the tree, as `chroot` would.
    pub fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let Some(root) = &self.root else { return Ok(path.to_path_buf()) };
        let mut links = 0;
        let mut todo: Vec<std::ffi::OsString> = parts(path).rev().collect();
        let mut done: Vec<std::ffi::OsString> = Vec::new();
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let mut here = root.clone();
            here.extend(&done);
            here.push(&part);
            match fs::read_link(&here) {
                Ok(target) => {
                    links += 1;
                    if links > 40 {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidInput,
                            "too many levels of symbolic links",
                        ));
                    }
                    if target.is_absolute() {
                        done.clear();
                    }
                    todo.extend(parts(&target).rev().collect::<Vec<_>>());
                }
                Err(_) => done.push(part),
            }
        }
        let mut place = root.clone();
        place.extend(done);
        Ok(place)
    }

    /// Opens a regular file; a pipe or a device is refused before it can hang us.
    pub fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        let place = self.place(path)?;
        let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking()).open(place)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Box::new(Open { len: about.len(), file }))
    }

    /// Lists a folder, sorted by name.
    pub fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.place(folder)?)?.take(MOST_ENTRIES) {
            let Ok(entry) = entry else { break };
            let kind = match entry.file_type() {
                Ok(t) if t.is_file() => Kind::File,
                Ok(t) if t.is_dir() => Kind::Folder,
                Ok(t) if t.is_symlink() => Kind::Link,
                _ => Kind::Other,
            };
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// What a path leads to.
    pub fn stat(&self, path: &Path) -> io::Result<Stat> {
        let about = fs::metadata(self.place(path)?)?;
        let kind = match about.file_type() {
            t if t.is_file() => Kind::File,
            t if t.is_dir() => Kind::Folder,
            _ => Kind::Other,
        };
        Ok(Stat { kind, len: about.len() })
    }

    /// Where a link points, as written in it.
    pub fn link(&self, path: &Path) -> io::Result<PathBuf> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no link"));
        };
        fs::read_link(self.place(parent)?.join(name))
    }
}

/// The flag that keeps `open` from waiting for a pipe's other end.
fn nonblocking() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits() as i32
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = std::ffi::OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_os_string()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .into_iter()
}

/// The nearest existing folder at or above a path.
pub fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().find(|p| !p.as_os_str().is_empty() && p.exists())
}
