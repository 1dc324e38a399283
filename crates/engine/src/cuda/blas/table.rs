//! The table of measured choices: which algorithm computes which product, as `prospect tune` found it.
//!
//! An algorithm is opaque and valid for one version of cuBLASLt on one GPU, so a table is for one [`Scope`], which its
//! name and its head say. It is text, in this order, with the SHA-256 of all lines before in the last:
//!
//! ```text
//! prospect tuned products 1
//! gpu NVIDIA H100 80GB HBM3
//! multiprocessors 132
//! cublaslt 13.4.1
//! workspace 33554432
//! layout rows m k strides(left right out) out set|add alignment candidate us(first chosen) algorithm
//! forward 4096 4096 4096 4096 4096 4096 bf16 set 16 3 812.31 790.12 (64 bytes as 128 hexadecimal digits)
//! sha256 (64 hexadecimal digits)
//! ```
//!
//! A table that is not for this scope, or not what was written, is passed over with a reason: the heuristic chooses
//! then. The algorithms are handed to a library that believes them, so not a bit of them may differ.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::functions::Algorithm;
use super::key::Key;
use crate::cuda::gemm::Layout;

const FORMAT: &str = "prospect tuned products 1";
const COLUMNS: &str = "layout rows m k strides(left right out) out set|add alignment candidate us(first chosen) algorithm";
/// The last line's first word.
const SUM: &str = "sha256 ";
/// The longest table that is read: some twenty thousand shapes.
const LONGEST: u64 = 4 << 20;

/// What the algorithms of a table are valid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The GPU as NVIDIA names it.
    pub(crate) gpu: String,
    /// Its multiprocessors: a part of a GPU has fewer.
    pub(crate) multiprocessors: u32,
    /// The version of cuBLASLt.
    pub(crate) version: (usize, usize, usize),
    /// The workspace that algorithms may use.
    pub(crate) workspace: usize,
}

impl Scope {
    /// The name of its table's file.
    pub(crate) fn file_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let (major, minor, patch) = self.version;
        let gpu: String = self.gpu.chars().map(plain).collect();
        format!("{gpu}_cublaslt-{major}.{minor}.{patch}.txt")
    }

    /// The lines after the first.
    fn head(&self) -> [String; 5] {
        let (major, minor, patch) = self.version;
        let gpu: String = self.gpu.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        [
            format!("gpu {gpu}"),
            format!("multiprocessors {}", self.multiprocessors),
            format!("cublaslt {major}.{minor}.{patch}"),
            format!("workspace {}", self.workspace),
            COLUMNS.to_owned(),
        ]
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The product.
    pub(crate) key: Key,
    /// The algorithm's place among the heuristic's answers, from 0.
    pub(crate) candidate: usize,
    /// Microseconds of the heuristic's first answer.
    pub(crate) first: f64,
    /// Microseconds of this one.
    pub(crate) chosen: f64,
    /// What computes it.
    pub(crate) algorithm: Algorithm,
}

/// What was found where a table may be.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// A table for this scope.
    Table {
        /// The algorithm of each product.
        choices: HashMap<Key, Algorithm>,
        /// The first digits of the table's checksum.
        hash: String,
    },
    /// A file that cannot be used, and why.
    PassedOver(String),
}

/// Looks for the table of `scope` at `path`.
pub(crate) fn find(path: &Path, scope: &Scope) -> Found {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
        Err(error) => return Found::PassedOver(format!("it cannot be read: {error}")),
    };
    match parse(&bytes, scope) {
        Ok((choices, hash)) => {
            let choices = choices.iter().map(|choice| (choice.key, choice.algorithm)).collect();
            Found::Table { choices, hash }
        }
        Err(reason) => Found::PassedOver(reason),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: opening a pipe waits for its other end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LONGEST {
        true => Err(io::Error::other(format!("it has more than {LONGEST} bytes"))),
        false => Ok(bytes),
    }
}

/// A table as text.
pub(super) fn written(scope: &Scope, choices: &[Choice]) -> String {
    let mut text = format!("{FORMAT}\n{}\n", scope.head().join("\n"));
    for Choice { key, candidate, first, chosen, algorithm } in choices {
        let [left, right, out] = key.strides;
        let algorithm: String = algorithm.0.iter().map(|word| format!("{word:016x}")).collect();
        let _ = writeln!(
            text,
            "{} {} {} {} {left} {right} {out} {} {} {} {candidate} {first:.2} {chosen:.2} {algorithm}",
            key.layout.name(),
            key.rows,
            key.m,
            key.k,
            if key.wide { "f32" } else { "bf16" },
            if key.add { "add" } else { "set" },
            if key.aligned { 16 } else { 2 },
        );
    }
    let sum = hex(&Sha256::digest(&text));
    let _ = writeln!(text, "{SUM}{sum}");
    text
}

/// The choices of a table and its hash, or why it cannot be used.
pub(super) fn parse(bytes: &[u8], scope: &Scope) -> Result<(Vec<Choice>, String), String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    if text.lines().next() != Some(FORMAT) {
        return Err(format!("its first line is not '{FORMAT}'"));
    }
    let end = text.trim_end_matches('\n').rfind('\n').map_or(0, |end| end + 1);
    let (body, last) = text.split_at(end);
    let Some(sum) = last.strip_prefix(SUM).and_then(|rest| rest.strip_suffix('\n')) else {
        return Err("it is cut off: its last line is no checksum".to_owned());
    };
    if sum != hex(&Sha256::digest(body)) {
        return Err("it is not what was written: its checksum differs".to_owned());
    }
    let mut lines = body.lines().enumerate().skip(1);
    for wanted in scope.head() {
        let (_, line) = lines.next().unwrap_or_default();
        if line != wanted {
            return Err(format!("it is for '{}', this is '{wanted}'", shown(line)));
        }
    }
    let mut choices: Vec<Choice> = Vec::new();
    let mut seen = HashSet::new();
    for (number, line) in lines {
        let choice = choice(line)
            .ok_or_else(|| format!("line {} is no choice: '{}'", number + 1, shown(line)))?;
        if !seen.insert(choice.key) {
            return Err(format!("line {} chooses a second time", number + 1));
        }
        choices.push(choice);
    }
    Ok((choices, sum[..8].to_owned()))
}

/// The choice of a line.
fn choice(line: &str) -> Option<Choice> {
    let words: Vec<&str> = line.split(' ').collect();
    let [layout, sizes @ .., out, add, alignment, candidate, first, chosen, algorithm] = &words[..]
    else {
        return None;
    };
    let sizes: Option<Vec<usize>> = sizes.iter().map(|word| word.parse().ok()).collect();
    let [rows, m, k, left, right, of_out] = sizes?[..] else { return None };
    let either = |word: &str, [yes, no]: [&str; 2]| match word {
        word if word == yes => Some(true),
        word if word == no => Some(false),
        _ => None,
    };
    let time = |word: &str| word.parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
    Some(Choice {
        key: Key {
            layout: Layout::ALL.into_iter().find(|known| known.name() == *layout)?,
            rows,
            m,
            k,
            strides: [left, right, of_out],
            wide: either(out, ["f32", "bf16"])?,
            add: either(add, ["add", "set"])?,
            aligned: either(alignment, ["16", "2"])?,
        },
        candidate: candidate.parse().ok()?,
        first: time(first)?,
        chosen: time(chosen)?,
        algorithm: self::algorithm(algorithm)?,
    })
}

/// An algorithm of its 128 digits.
fn algorithm(digits: &str) -> Option<Algorithm> {
    if digits.len() != 128 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut words = [0; 8];
    for (i, word) in words.iter_mut().enumerate() {
        *word = u64::from_str_radix(&digits[16 * i..16 * (i + 1)], 16).ok()?;
    }
    Some(Algorithm(words))
}

/// Writes a table over the one there is, whole or not at all: beside it, flushed, renamed. Another table of the same
/// scope is kept beside it under a name with its hash, which is given back: a run that began with it can only be gone
/// on with by it.
pub(crate) fn write(path: &Path, scope: &Scope, choices: &[Choice]) -> io::Result<Option<PathBuf>> {
    let text = written(scope, choices);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension(format!("{}.tmp", std::process::id()));
    let placed = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let kept = match read(path).map(|old| (parse(&old, scope), old)) {
            Ok((Ok((_, hash)), old)) if old != text.as_bytes() => {
                let kept = path.with_extension(format!("{hash}.txt"));
                fs::rename(path, &kept)?;
                Some(kept)
            }
            _ => None,
        };
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()?;
        Ok(kept)
    })();
    if placed.is_err() {
        let _ = fs::remove_file(&beside);
    }
    placed
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of a stranger's file, bounded and without what moves a cursor.
fn shown(line: &str) -> String {
    line.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
