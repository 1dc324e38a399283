//! Files that can be told from damaged ones: SHA-256 of what was meant to be written, kept beside it or in it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use data::files;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The key under which a sealed file keeps its own checksum.
const SEAL: &str = "sha256";

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of bytes, in hexadecimal.
pub fn of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file, read piece by piece.
pub fn of_file(path: &Path) -> io::Result<String> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut digest = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(hex(&digest.finalize())),
            count => digest.update(&piece[..count]),
        }
    }
}

/// Writes a file, flushes it, reads it back and gives its checksum. The sum is taken of what was meant, before the
/// disk had it, so that a disk that writes something else is found out.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<String> {
    let mut digest = Sha256::new();
    files::write_atomically(path, |writer| fill(&mut Summing { writer, digest: &mut digest }))?;
    let meant = hex(&digest.finalize());
    let back = of_file(path).map_err(|error| {
        Error::machine(
            format!("cannot read '{}' back: {error}", path.display()),
            "check the disk, then go on with --resume",
        )
    })?;
    if back != meant {
        return Err(Error::machine(
            format!("'{}' does not read back as it was written", path.display()),
            "the disk or its memory is failing: check it, then go on with --resume",
        ));
    }
    Ok(meant)
}

/// Passes on what is written and adds it to a checksum.
struct Summing<'a> {
    writer: &'a mut dyn Write,
    digest: &'a mut Sha256,
}

impl Write for Summing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.digest.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Writes an object as JSON that holds its own checksum.
pub fn write_sealed(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = |error: serde_json::Error| {
        Error::machine(format!("cannot write '{}': {error}", path.display()), "report this")
    };
    let mut value = serde_json::to_value(value).map_err(failed)?;
    let seal = of(value.to_string().as_bytes());
    if let Value::Object(fields) = &mut value {
        fields.insert(SEAL.to_owned(), seal.into());
    }
    let text = serde_json::to_vec_pretty(&value).map_err(failed)?;
    write(path, |writer| {
        writer.write_all(&text)?;
        writer.write_all(b"\n")
    })?;
    Ok(())
}

/// Reads what [`write_sealed`] wrote, or says what is wrong with it.
pub fn read_sealed<T: DeserializeOwned>(path: &Path) -> std::result::Result<T, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut value: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let seal = value.as_object_mut().and_then(|fields| fields.shift_remove(SEAL));
    if seal.is_none_or(|seal| seal != of(value.to_string().as_bytes())) {
        return Err("it is not what was written".to_owned());
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sealed_file_is_read_and_a_flipped_bit_anywhere_in_it_is_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.json");
        let value = json!({"step": 12, "share": 0.1, "names": {"b": 1, "a": [true, null]}});
        write_sealed(&path, &value).unwrap();
        assert_eq!(read_sealed::<Value>(&path), Ok(value.clone()));
        let whole = std::fs::read(&path).unwrap();
        let mut found = 0;
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            // A changed space between two values says the same.
            found += match read_sealed::<Value>(&path) {
                Err(_) => 1,
                Ok(read) => {
                    assert_eq!(read, value);
                    0
                }
            };
        }
        assert!(found > 7 * whole.len(), "{found} of {}", 8 * whole.len());
    }

    #[test]
    fn a_file_is_summed_as_it_was_meant() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a");
        let sum = write(&path, |writer| writer.write_all(b"abc")).unwrap();
        assert_eq!(sum, of(b"abc"));
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
