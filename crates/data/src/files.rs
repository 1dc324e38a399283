//! Reading files with errors that name them, and writing them whole or not at all.
//!
//! A file is written beside its final place under a hidden name, flushed to the disk, renamed
//! over the old one, and its folder flushed (POSIX `rename` is atomic within a file system):
//! a reader sees the old file or the new one, also when the machine stops in between.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Opens a regular file: a folder, a device or a pipe is an error.
pub(crate) fn open(path: &Path) -> Result<File> {
    use std::os::unix::fs::FileTypeExt;
    // Asked before it is opened: opening a pipe waits for its other end.
    let kind = fs::metadata(path).map_err(|error| reading(path, &error))?.file_type();
    let (what, hint) = match kind {
        _ if kind.is_file() => return File::open(path).map_err(|error| reading(path, &error)),
        _ if kind.is_dir() => ("a folder", "name a file inside it"),
        _ if kind.is_fifo() => ("a pipe", "write it to a file first: data is read more than once"),
        _ => ("a device", "name a file: a device may have no end"),
    };
    Err(Error::input(format!("cannot read '{}': it is {what}", path.display()), hint))
}

/// The kind of data that a file's name says it holds, in lower case and without what it is compressed by; none if
/// that is no kind of data.
pub(crate) fn kind(path: &Path) -> Option<&'static str> {
    const KINDS: [&str; 10] =
        ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "feather", "ipc", "arrows"];
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = [".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let (_, end) = name.rsplit_once('.')?;
    KINDS.into_iter().find(|kind| *kind == end)
}

/// SHA-256 of a file, read piece by piece.
pub fn sum(path: &Path) -> Result<String> {
    let mut file = open(path)?;
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hex(&digest.finalize())),
            Ok(count) => digest.update(&piece[..count]),
            Err(error) => return Err(reading(path, &error)),
        }
    }
}

/// Bytes of a file and when it was changed last; none if that cannot be told.
pub(crate) fn state(path: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole file as bytes.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    use std::os::unix::fs::FileTypeExt;
    let kind = fs::metadata(path).map_err(|error| reading(path, &error))?.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return Err(Error::input(
            format!("cannot read '{}': it is a device", path.display()),
            "name a file: a device may have no end",
        ));
    }
    fs::read(path).map_err(|error| reading(path, &error))
}

/// The whole file as text; anything but UTF-8 is an error that names the line.
pub fn read_to_string(path: &Path) -> Result<String> {
    into_text(path, read(path)?)
}

/// The bytes of `path` as text.
pub(crate) fn into_text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count() + 1;
        Error::input(
            format!("{}:{line} is not UTF-8 text (byte {valid} of the file)", path.display()),
            "save the file as UTF-8, for example with `iconv -t UTF-8`",
        )
    })
}

/// Writes a file by way of `fill`, atomically: after any error the old content is untouched and
/// nothing is left beside it.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::input(
            format!("'{}' names no file to write", path.display()),
            "give a path that ends in a file name",
        ));
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.tmp", std::process::id()));
    let temporary = Temporary(folder.join(hidden));
    let written = (|| {
        let mut writer = BufWriter::with_capacity(1 << 20, File::create(&temporary.0)?);
        fill(&mut writer)?;
        let file = writer.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        fs::rename(&temporary.0, path)?;
        // The rename itself must survive a power failure.
        sync_folder(folder)
    })();
    written.map_err(|error| cannot_write(path, &error))
}

/// Flushes a folder: what was renamed into it stays there when the power fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => synced(folder.sync_all()),
        Err(_) => Ok(()), // written into, but not to be listed: nothing to flush it by
    }
}

/// What a flush came to. Some file systems have none for a file or folder; there a rename is as durable as
/// they make it.
pub fn synced(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        other => other,
    }
}

/// Writes `value` as indented JSON with a newline at its end, atomically.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write_atomically(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, value).map_err(io::Error::from)?;
        writer.write_all(b"\n")
    })
}

/// The temporary file; removed when dropped, unless it was renamed away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) fn reading(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => Error::input(
            format!("cannot read '{path}': there is no such file"),
            "check the path; it is relative to the folder the program was started in",
        ),
        ErrorKind::IsADirectory => {
            Error::input(format!("cannot read '{path}': it is a folder"), "name a file inside it")
        }
        ErrorKind::PermissionDenied => Error::input(
            format!("cannot read '{path}': permission denied"),
            "give your user the right to read it",
        ),
        _ => Error::machine(
            format!("cannot read '{path}': {error}"),
            "the disk or the network share failed; try again and check its health",
        ),
    }
}

/// Why a file could not be written, and what to do.
pub fn cannot_write(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::machine(
                format!("cannot write '{path}': no space is left on the disk"),
                "free some space and go on with --resume, or choose another output folder; what was there is untouched",
            )
        }
        ErrorKind::NotFound => Error::input(
            format!("cannot write '{path}': its folder does not exist"),
            "create the folder first or choose another one",
        ),
        ErrorKind::ReadOnlyFilesystem => Error::machine(
            format!("cannot write '{path}': the disk became read-only"),
            "a failing disk is mounted so: look at it with dmesg; what was there is untouched",
        ),
        ErrorKind::PermissionDenied => Error::input(
            format!("cannot write '{path}': permission denied"),
            "choose a folder your user may write to",
        ),
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => Error::input(
            format!("cannot write '{path}': a folder and a file are in each other's place"),
            "choose another output path",
        ),
        _ => Error::machine(
            format!("cannot write '{path}': {error}"),
            "check the disk; what was there is untouched",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.json");
        write_json(&path, &[1, 2]).expect("written");
        write_json(&path, &[3]).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "[\n  3\n]\n");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, "old").expect("written");
        let full = |writer: &mut dyn Write| {
            writer.write_all(b"new")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        };
        let error = write_atomically(&path, full).expect_err("must fail");
        assert_eq!(error.fault, crate::Fault::Machine);
        assert!(error.message.ends_with("a.txt': no space is left on the disk"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("read"), "old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_missing_folder_is_named_as_the_users_mistake() {
        let folder = tempfile::tempdir().expect("folder");
        let error = write_json(&folder.path().join("no/a.json"), &1).expect_err("must fail");
        assert_eq!(error.fault, crate::Fault::Input);
        assert!(error.message.ends_with("its folder does not exist"), "{error}");
    }

    #[test]
    fn text_that_is_no_utf8_names_its_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.txt");
        fs::write(&path, b"ok\nbad \xff").expect("written");
        let error = read_to_string(&path).expect_err("must fail");
        assert!(error.message.contains("a.txt:2 is not UTF-8"), "{error}");
    }
}
