//! The one memory map: files read without copying them.

use std::fs::File;
use std::io;
use std::path::Path;

/// The bytes of a file, mapped to be read.
pub struct Mapped {
    // A file of no bytes cannot be mapped.
    map: Option<memmap2::Mmap>,
}

impl Mapped {
    /// Maps `path`.
    pub fn open(path: &Path) -> io::Result<Mapped> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Mapped { map: None });
        }
        // SAFETY: a file that another program shortens while it is mapped would fault; that cannot be excluded by
        // any reader of memory maps. Model files are written once, and Prospect replaces files by renaming.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Mapped { map: Some(map) })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
