//! What the fuzz targets share: a reader by its name, in a folder that lives as long as the process.

pub mod readers;

use std::sync::OnceLock;

use readers::READERS;

/// Gives a reader a file. What breaks a promise panics.
pub fn read(name: &str, bytes: &[u8]) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        // libFuzzer's hook ends the process at every panic, also at those of libraries that a reader catches and
        // makes a sentence of. One that a reader lets out still ends it.
        drop(std::panic::take_hook());
        tempfile::tempdir().expect("a temporary folder")
    });
    let reader = READERS.iter().find(|reader| reader.name == name).expect("a reader of this name");
    (reader.read)(bytes, folder.path());
}
