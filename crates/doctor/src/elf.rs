//! The few parts of an ELF file that tell whether a library loads here: what it needs, which symbols it leaves
//! to others, which GLIBC it asks for, and where its GPU code lies.
//!
//! System V ABI, chapters "Object Files" and "Program Loading"; GNU hash as in glibc's `dl-lookup.c`. 64-bit
//! little-endian files alone (x86_64, aarch64). Only headers and the dynamic tables are read, symbol lookups go
//! through the hash table: a library of a gigabyte costs a few kilobytes. The crate `object` reads the same
//! structures, but takes whole tables into memory, in sizes the file names itself.

use crate::facts::ReadAt;
use std::collections::BTreeSet;

/// An ELF file, opened.
pub struct Elf<'a> {
    file: &'a dyn ReadAt,
    loads: Vec<Load>,
    dynamic: Dynamic,
    sections: (u64, u64, u64), // offset, count, index of the names
}

struct Load {
    address: u64,
    offset: u64,
    size: u64,
}

#[derive(Default)]
struct Dynamic {
    needed: Vec<u64>,
    soname: Option<u64>,
    strings: u64,
    symbols: u64,
    gnu_hash: u64,
    version_needs: u64,
    version_need_count: u64,
}

/// Why a file was not understood; a short phrase for the report.
pub type Malformed = &'static str;

/// Symbol tables of extensions hold some thousand undefined symbols; more is not believed.
const MOST_SYMBOLS: u64 = 200_000;
const LONGEST_NAME: usize = 8 << 10;
/// No file is larger; sums of a place and a 32-bit index cannot overflow below it.
const LARGEST: u64 = 1 << 60;

fn bytes<const N: usize>(file: &dyn ReadAt, offset: u64) -> Result<[u8; N], Malformed> {
    let mut buffer = [0u8; N];
    let mut have = 0;
    while have < N {
        let at = offset.checked_add(have as u64).ok_or("an offset beyond the file")?;
        match file.read_at(at, &mut buffer[have..]) {
            Ok(0) => return Err("truncated"),
            Ok(n) => have += n,
            Err(_) => return Err("unreadable"),
        }
    }
    Ok(buffer)
}

fn u16_at(b: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([b[at], b[at + 1]]))
}

fn u32_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u32_at(b, at) | u32_at(b, at + 4) << 32
}

impl<'a> Elf<'a> {
    /// Reads the headers.
    pub fn open(file: &'a dyn ReadAt) -> Result<Elf<'a>, Malformed> {
        let head: [u8; 64] = bytes(file, 0)?;
        if head[..4] != *b"\x7fELF" {
            return Err("not an ELF file");
        }
        if head[4] != 2 || head[5] != 1 {
            return Err("not a 64-bit little-endian ELF file");
        }
        let (program, program_count) = (u64_at(&head, 32), u16_at(&head, 56));
        if u16_at(&head, 54) != 56 && program_count > 0 {
            return Err("program headers of another size");
        }
        let mut loads = Vec::new();
        let mut dynamic_at = None;
        for index in 0..program_count.min(256) {
            let at = program.checked_add(index * 56).ok_or("program headers beyond the file")?;
            let header: [u8; 56] = bytes(file, at)?;
            let (offset, address, size) =
                (u64_at(&header, 8), u64_at(&header, 16), u64_at(&header, 32));
            match u32_at(&header, 0) {
                1 => loads.push(Load { address, offset, size }),
                2 => dynamic_at = Some((offset, size)),
                _ => {}
            }
        }
        let mut elf = Elf {
            file,
            loads,
            dynamic: Dynamic::default(),
            sections: (
                u64_at(&head, 40),
                if u16_at(&head, 58) == 64 { u16_at(&head, 60) } else { 0 },
                u16_at(&head, 62),
            ),
        };
        if let Some((offset, size)) = dynamic_at {
            elf.read_dynamic(offset, size)?;
        }
        Ok(elf)
    }

    fn read_dynamic(&mut self, offset: u64, size: u64) -> Result<(), Malformed> {
        for index in 0..(size / 16).min(4096) {
            let at = offset.checked_add(index * 16).ok_or("a dynamic section beyond the file")?;
            let entry: [u8; 16] = bytes(self.file, at)?;
            let value = u64_at(&entry, 8);
            match u64_at(&entry, 0) {
                0 => break,
                1 => self.dynamic.needed.push(value),
                5 => self.dynamic.strings = value,
                6 => self.dynamic.symbols = value,
                14 => self.dynamic.soname = Some(value),
                0x6fff_fef5 => self.dynamic.gnu_hash = value,
                0x6fff_fffe => self.dynamic.version_needs = value,
                0x6fff_ffff => self.dynamic.version_need_count = value,
                _ => {}
            }
        }
        Ok(())
    }

    fn place(&self, address: u64) -> Result<u64, Malformed> {
        self.loads
            .iter()
            .find(|l| address >= l.address && address - l.address < l.size)
            .and_then(|l| l.offset.checked_add(address - l.address))
            .filter(|at| *at < LARGEST)
            .ok_or("an address outside every segment")
    }

    fn string(&self, place: u64) -> Result<String, Malformed> {
        let mut text = Vec::new();
        let mut piece = [0u8; 128];
        while text.len() < LONGEST_NAME {
            let at = place.checked_add(text.len() as u64).ok_or("a name beyond the file")?;
            let got = self.file.read_at(at, &mut piece).map_err(|_| "unreadable")?;
            if got == 0 {
                return Err("a name without an end");
            }
            match piece[..got].iter().position(|b| *b == 0) {
                Some(end) => {
                    text.extend_from_slice(&piece[..end]);
                    return Ok(String::from_utf8_lossy(&text).into_owned());
                }
                None => text.extend_from_slice(&piece[..got]),
            }
        }
        Err("a name without an end")
    }

    fn dynamic_string(&self, offset: u64) -> Result<String, Malformed> {
        let table = self.place(self.dynamic.strings)?;
        self.string(table.checked_add(offset).ok_or("a name beyond the file")?)
    }

    /// The libraries it asks the loader for (`DT_NEEDED`).
    pub fn needed(&self) -> Result<Vec<String>, Malformed> {
        self.dynamic.needed.iter().map(|n| self.dynamic_string(*n)).collect()
    }

    /// Its own name (`DT_SONAME`).
    pub fn soname(&self) -> Option<String> {
        self.dynamic.soname.and_then(|n| self.dynamic_string(n).ok())
    }

    /// The symbol versions it asks for, such as `GLIBC_2.32` or `GLIBCXX_3.4.29`.
    pub fn version_needs(&self) -> Result<BTreeSet<String>, Malformed> {
        let mut versions = BTreeSet::new();
        if self.dynamic.version_need_count == 0 {
            return Ok(versions);
        }
        let mut at = self.place(self.dynamic.version_needs)?;
        for _ in 0..self.dynamic.version_need_count.min(256) {
            let need: [u8; 16] = bytes(self.file, at)?;
            let mut aux_at = at.checked_add(u32_at(&need, 8)).ok_or("a version beyond the file")?;
            for _ in 0..u16_at(&need, 2).min(256) {
                let aux: [u8; 16] = bytes(self.file, aux_at)?;
                versions.insert(self.dynamic_string(u32_at(&aux, 8))?);
                match u32_at(&aux, 12) {
                    0 => break,
                    next => aux_at = aux_at.checked_add(next).ok_or("a version beyond the file")?,
                }
            }
            match u32_at(&need, 12) {
                0 => break,
                next => at = at.checked_add(next).ok_or("a version beyond the file")?,
            }
        }
        Ok(versions)
    }

    /// The symbols it leaves to other libraries: those before the first hashed one (weak ones are left out, the
    /// loader forgives them). None where it has no GNU hash table.
    pub fn undefined(&self) -> Result<Option<Vec<String>>, Malformed> {
        if self.dynamic.gnu_hash == 0 {
            return Ok(None);
        }
        let hash: [u8; 16] = bytes(self.file, self.place(self.dynamic.gnu_hash)?)?;
        let table = self.place(self.dynamic.symbols)?;
        let mut names = Vec::new();
        for index in 1..u32_at(&hash, 4).min(MOST_SYMBOLS) {
            let at = table.checked_add(index * 24).ok_or("a symbol beyond the file")?;
            let symbol: [u8; 24] = bytes(self.file, at)?;
            let (global, undefined) = (symbol[4] >> 4 == 1, u16_at(&symbol, 6) == 0);
            if global && undefined {
                names.push(self.dynamic_string(u32_at(&symbol, 0))?);
            }
        }
        Ok(Some(names))
    }

    /// Whether it defines a symbol, asked of its GNU hash table. None where it has none.
    pub fn defines(&self, name: &str) -> Result<Option<bool>, Malformed> {
        if self.dynamic.gnu_hash == 0 {
            return Ok(None);
        }
        let place = self.place(self.dynamic.gnu_hash)?;
        let head: [u8; 16] = bytes(self.file, place)?;
        let (buckets, first, words) = (u32_at(&head, 0), u32_at(&head, 4), u32_at(&head, 8));
        if buckets == 0 {
            return Ok(Some(false));
        }
        let hash = name.bytes().fold(5381u32, |h, b| h.wrapping_mul(33).wrapping_add(u32::from(b)));
        let bucket_table = place + 16 + words * 8;
        let bucket: [u8; 4] = bytes(self.file, bucket_table + u64::from(hash) % buckets * 4)?;
        let start = u32_at(&bucket, 0);
        if start < first {
            return Ok(Some(false));
        }
        let symbols = self.place(self.dynamic.symbols)?;
        for index in start..start + MOST_SYMBOLS {
            let chain: [u8; 4] =
                bytes(self.file, bucket_table + buckets * 4 + (index - first) * 4)?;
            let value = u32_at(&chain, 0) as u32;
            if value | 1 == hash | 1 {
                let symbol: [u8; 24] = bytes(self.file, symbols + index * 24)?;
                if u16_at(&symbol, 6) != 0 && self.dynamic_string(u32_at(&symbol, 0))? == name {
                    return Ok(Some(true));
                }
            }
            if value & 1 == 1 {
                return Ok(Some(false));
            }
        }
        Err("a hash chain without an end")
    }

    /// Where a section lies: offset and size.
    pub fn section(&self, name: &str) -> Result<Option<(u64, u64)>, Malformed> {
        let (table, count, names) = self.sections;
        if count == 0 {
            return Ok(None);
        }
        let header = |index: u64| -> Result<[u8; 64], Malformed> {
            bytes(self.file, table.checked_add(index * 64).ok_or("sections beyond the file")?)
        };
        let text = u64_at(&header(names)?, 24);
        for index in 0..count.min(1024) {
            let section = header(index)?;
            let at =
                text.checked_add(u32_at(&section, 0)).ok_or("a section's name beyond the file")?;
            if u32_at(&section, 4) != 0 && self.string(at)? == name {
                return Ok(Some((u64_at(&section, 24), u64_at(&section, 32))));
            }
        }
        Ok(None)
    }
}

/// The GPU code of a library: compute capabilities with finished code (`sm_86` is 86) and with PTX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuCode {
    /// Finished code, one number per architecture.
    pub cubins: BTreeSet<u32>,
    /// PTX, which a driver can compile for any later architecture.
    pub ptx: BTreeSet<u32>,
}

impl GpuCode {
    /// Whether it runs on a card of compute capability `major.minor`: finished code of the same major and no
    /// higher minor, or PTX of no higher capability (CUDA programming guide, "Binary and PTX Compatibility").
    pub fn runs_on(&self, major: u32, minor: u32) -> bool {
        self.cubins.iter().any(|sm| sm / 10 == major && sm % 10 <= minor)
            || self.ptx.iter().any(|sm| *sm <= major * 10 + minor)
    }
}

/// Reads the architectures in `.nv_fatbin`: containers of magic 0xBA55ED50 `{u32 magic, u16 version, u16 header,
/// u64 size}`, each with entries `{u16 kind (1 PTX, 2 ELF), u16, u32 header, u64 size, .., u32 sm at 28}`.
///
/// A library has one container per source file, nearly all with the same list: the first 1,024 tell.
pub fn gpu_code(file: &dyn ReadAt, (offset, size): (u64, u64)) -> Result<GpuCode, Malformed> {
    let end =
        offset.checked_add(size).filter(|e| *e < LARGEST).ok_or("GPU code beyond the file")?;
    let mut found = GpuCode::default();
    let mut at = offset;
    for _ in 0..1024 {
        if at + 16 > end {
            break;
        }
        let head: [u8; 16] = bytes(file, at)?;
        if u32_at(&head, 0) != 0xBA55_ED50 {
            // Containers are aligned with zeros between them; anything else ends what we understand.
            if head[..8] == [0; 8] && at + 8 < end {
                at += 8;
                continue;
            }
            break;
        }
        let stop = (at + u16_at(&head, 6))
            .checked_add(u64_at(&head, 8))
            .filter(|s| *s < LARGEST)
            .ok_or("GPU code beyond the file")?;
        let mut entry_at = at + u16_at(&head, 6);
        for _ in 0..64 {
            if entry_at + 32 > stop.min(end) {
                break;
            }
            let entry: [u8; 32] = bytes(file, entry_at)?;
            let sm = u32_at(&entry, 28) as u32;
            match u16_at(&entry, 0) {
                1 => found.ptx.insert(sm),
                2 => found.cubins.insert(sm),
                _ => break,
            };
            entry_at = entry_at
                .checked_add(u32_at(&entry, 4).max(32))
                .and_then(|a| a.checked_add(u64_at(&entry, 8)))
                .ok_or("GPU code beyond the file")?;
        }
        at = stop.div_ceil(8) * 8;
    }
    Ok(found)
}
