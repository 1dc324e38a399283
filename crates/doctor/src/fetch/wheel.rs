//! One file out of a wheel, which is a ZIP archive (APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16), stored or
//! deflated. The archive is the one whose hash was checked, and is read as if it were not: every number in it is held
//! against the file's length, and nothing is written beyond what it announces.

use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A central directory is no longer than this; a wheel of a thousand files has 100 KB.
const LARGEST_DIRECTORY: u64 = 8 << 20;
/// No library is larger.
const LARGEST_FILE: u64 = 4 << 30;

struct Entry {
    deflated: bool,
    crc: u32,
    packed: u64,
    size: u64,
    header: u64,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the wheel is not a sound archive: {what}"))
}

/// Writes the first file whose path ends in `/name` to `to`.
pub(super) fn unpack(wheel: &File, name: &str, to: &Path) -> io::Result<()> {
    let length = wheel.metadata()?.len();
    let entry = find(wheel, length, name)?;
    let mut head = [0u8; 30];
    wheel.read_exact_at(&mut head, entry.header)?;
    if head[..4] != *b"PK\x03\x04" {
        return Err(broken("no header where the directory says"));
    }
    let start = entry.header + 30 + u64::from(short(&head, 26)) + u64::from(short(&head, 28));
    if start.checked_add(entry.packed).is_none_or(|end| end > length) {
        return Err(broken("a file reaches beyond its end"));
    }
    let packed = Part { file: wheel, at: start, end: start + entry.packed };
    let mut out = File::create(to)?;
    let (written, crc) = match entry.deflated {
        true => copy(DeflateDecoder::new(packed), &mut out, entry.size)?,
        false => copy(packed, &mut out, entry.size)?,
    };
    if written != entry.size || crc != entry.crc {
        return Err(broken("a file is not what the directory says"));
    }
    out.sync_all()
}

fn find(wheel: &File, length: u64, name: &str) -> io::Result<Entry> {
    // The end record is 22 bytes and a comment of at most 65,535.
    let tail_at = length.saturating_sub(22 + 65_535);
    let mut tail = vec![0u8; (length - tail_at) as usize];
    wheel.read_exact_at(&mut tail, tail_at)?;
    let end = tail.windows(4).rposition(|w| w == b"PK\x05\x06").ok_or(broken("it has no end"))?;
    let end = tail.get(end..end + 22).ok_or(broken("its end is cut"))?;
    let (size, at) = (u64::from(long(end, 12)), u64::from(long(end, 16)));
    if size > LARGEST_DIRECTORY || at + size > length {
        return Err(broken("its directory lies outside of it"));
    }
    let mut directory = vec![0u8; size as usize];
    wheel.read_exact_at(&mut directory, at)?;
    let mut rest = &directory[..];
    while rest.len() >= 46 && rest[..4] == *b"PK\x01\x02" {
        let [names, extra, comment] = [28, 30, 32].map(|at| usize::from(short(rest, at)));
        let path = rest.get(46..46 + names).ok_or(broken("a name is cut"))?;
        let ours = path.strip_suffix(name.as_bytes()).is_some_and(|folder| folder.ends_with(b"/"));
        if ours {
            let method = short(rest, 10);
            let entry = Entry {
                deflated: method == 8,
                crc: long(rest, 16),
                packed: u64::from(long(rest, 20)),
                size: u64::from(long(rest, 24)),
                header: u64::from(long(rest, 42)),
            };
            if !matches!(method, 0 | 8) || entry.size > LARGEST_FILE {
                return Err(broken("a file is packed in a way that is not read here"));
            }
            return Ok(entry);
        }
        rest = rest.get(46 + names + extra + comment..).ok_or(broken("its directory is cut"))?;
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("the wheel has no {name}")))
}

/// Copies at most one byte more than `size`, so that more is seen and not written on.
fn copy(from: impl Read, to: &mut File, size: u64) -> io::Result<(u64, u32)> {
    let (mut from, mut crc) = (from.take(size + 1), flate2::Crc::new());
    let (mut written, mut piece) = (0u64, vec![0u8; 256 << 10]);
    loop {
        match from.read(&mut piece)? {
            0 => return Ok((written, crc.sum())),
            got => {
                crc.update(&piece[..got]);
                to.write_all(&piece[..got])?;
                written += got as u64;
            }
        }
    }
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Bytes of a file from one place to another.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}
