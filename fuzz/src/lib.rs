//! What the fuzz targets share: a reader by its name, in a folder that lives as long as the process.

pub mod readers;

use std::sync::OnceLock;

use readers::READERS;

/// Gives a reader a file. What breaks a promise panics.
pub fn read(name: &str, bytes: &[u8]) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let reader = READERS.iter().find(|reader| reader.name == name).expect("a reader of this name");
    (reader.read)(bytes, folder.path());
}
