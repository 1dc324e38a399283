//! One file, known by its length and SHA-256, into a part file that a later call goes on with.

use super::Wheel;
use super::index::Source;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Requests in a row that bring nothing before we give up.
const MOST_FAILURES: u32 = 4;

/// Loads the wheel into `part` and checks it. What was there of an earlier call is kept as far as it goes.
pub(super) fn download(
    wheel: &Wheel,
    part: &Path,
    source: &Source,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<File> {
    let failed = |what: &str, error: &io::Error| {
        Error::machine(
            format!("cannot {what} '{}': {error}", part.display()),
            "make room or the folder writable; what was loaded so far is kept",
        )
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(part)
        .map_err(|error| failed("open", &error))?;
    if file.try_lock().is_err() {
        return Err(Error::machine(
            format!("'{}' is being loaded by another prospect", part.display()),
            "wait for it",
        ));
    }
    let mut have = file.metadata().map_err(|error| failed("read", &error))?.len();
    if have > wheel.bytes {
        file.set_len(0).map_err(|error| failed("empty", &error))?;
        have = 0;
    }
    if have < wheel.bytes {
        let address = source.address(wheel)?;
        let mut failures = 0;
        while have < wheel.bytes {
            let before = have;
            let ended = request(&mut file, &mut have, &address, wheel, source, progress);
            let why = match ended {
                Ok(()) => "the answer ended early".to_string(),
                Err(Ended::Disk(error)) => return Err(failed("write", &error)),
                Err(Ended::Stopped) => {
                    return Err(Error::machine(
                        format!(
                            "stopped at {} of {} MB",
                            have / 1_000_000,
                            wheel.bytes / 1_000_000
                        ),
                        "the same command goes on from there",
                    ));
                }
                Err(Ended::Refused(why)) => return Err(source.unreachable(&address, &why, wheel)),
                Err(Ended::Network(why)) => why,
            };
            failures = if have > before { 0 } else { failures + 1 };
            if failures >= MOST_FAILURES {
                return Err(source.unreachable(&address, &why, wheel));
            }
        }
    }
    file.sync_all().map_err(|error| failed("write", &error))?;
    let sum = sum(&mut file).map_err(|error| failed("read", &error))?;
    if sum != wheel.sha256 {
        let _ = file.set_len(0); // nothing of it can be trusted
        return Err(Error::machine(
            format!("{} has SHA-256 {sum}, expected {}", wheel.file, wheel.sha256),
            "the index or something on the way changed it: it was deleted; try again, or another index",
        ));
    }
    Ok(file)
}

enum Ended {
    /// Worth another request.
    Network(String),
    /// Not worth one.
    Refused(String),
    Disk(io::Error),
    Stopped,
}

/// One request for what is missing, written behind what is there.
fn request(
    file: &mut File,
    have: &mut u64,
    address: &str,
    wheel: &Wheel,
    source: &Source,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> std::result::Result<(), Ended> {
    let range = format!("bytes={have}-");
    // Compression would make ranges meaningless.
    let mut headers = vec![("Accept-Encoding", "identity")];
    if *have > 0 {
        headers.push(("Range", range.as_str()));
    }
    let answer = source.get(address, &headers).map_err(|e| Ended::Network(e.to_string()))?;
    match answer.status().as_u16() {
        206 => {
            let told = answer.headers().get("content-range").and_then(|v| v.to_str().ok());
            let start =
                told.and_then(|t| t.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            if start != Some(*have) {
                return Err(Ended::Refused(format!(
                    "answered the range '{}' to a request from byte {have} on",
                    told.unwrap_or("none")
                )));
            }
        }
        // A server that knows no ranges, or whose file is another one, sends it from its start.
        200 | 416 => {
            *have = 0;
            file.set_len(0).map_err(Ended::Disk)?;
            if answer.status().as_u16() == 416 {
                return Err(Ended::Network("HTTP status 416".into()));
            }
        }
        status @ (429 | 500..=599) => return Err(Ended::Network(format!("HTTP status {status}"))),
        status => return Err(Ended::Refused(format!("HTTP status {status}"))),
    }
    file.seek(SeekFrom::Start(*have)).map_err(Ended::Disk)?;
    let mut reader = answer.into_body().into_reader();
    let mut piece = vec![0u8; 256 << 10];
    loop {
        let got = reader.read(&mut piece).map_err(|error| Ended::Network(error.to_string()))?;
        if got == 0 {
            return Ok(());
        }
        if *have + got as u64 > wheel.bytes {
            *have = 0;
            file.set_len(0).map_err(Ended::Disk)?;
            return Err(Ended::Refused(format!(
                "sends more than the {} bytes of the wheel",
                wheel.bytes
            )));
        }
        file.write_all(&piece[..got]).map_err(Ended::Disk)?;
        *have += got as u64;
        if !progress(*have, wheel.bytes) {
            return Err(Ended::Stopped);
        }
    }
}

fn sum(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            got => hash.update(&piece[..got]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
