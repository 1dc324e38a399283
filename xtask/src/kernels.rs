//! From CUDA C++ to PTX: every `.cu` in the engine's op rooms is compiled with NVRTC 12.2, and what comes out is
//! committed beside it, so that nobody who builds or runs Prospect needs a CUDA toolkit.
//!
//! The first line of a PTX file carries the hash of the sources it was made of; a test of the engine compares it. A
//! source that begins with `// variants: NAME=1,2,3` gives a file for each value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// NVRTC, and the headers of bf16. 12.2 is what driver 535 runs.
const PACKAGES: [&str; 2] =
    ["nvidia-cuda-nvrtc-cu12==12.2.140", "nvidia-cuda-runtime-cu12==12.2.140"];

/// Compiles all kernels, or those whose path contains one of the words given.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (wheels, words) = match arguments {
        ["--nvrtc", folder, words @ ..] => (PathBuf::from(folder), words),
        words => (fetch(root)?, words),
    };
    let source = root.join("crates/engine/src");
    let mut compiled = 0;
    for room in folders(&source.join("ops"))? {
        for file in files(&room, "cu")? {
            let path = file.display().to_string();
            if words.is_empty() || words.iter().any(|word| path.contains(word)) {
                compiled += compile(root, &wheels, &source.join("cuda"), &room, &file)?;
            }
        }
    }
    println!("{compiled} files of PTX written");
    Ok(())
}

fn compile(
    root: &Path,
    wheels: &Path,
    shared: &Path,
    room: &Path,
    file: &Path,
) -> Result<usize, String> {
    let text = read(file)?;
    let hash = hash(shared, room, &text)?;
    let variants: Vec<Option<(&str, &str)>> =
        match text.lines().next().and_then(|line| line.strip_prefix("// variants: ")) {
            None => vec![None],
            Some(line) => {
                let (name, values) = line.split_once('=').ok_or("variants: NAME=1,2,3")?;
                values.split(',').map(|value| Some((name, value.trim()))).collect()
            }
        };
    for variant in &variants {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (out, define) = match variant {
            None => (room.join(format!("{stem}.ptx")), None),
            Some((name, value)) => {
                (room.join(format!("{stem}_{value}.ptx")), Some(format!("{name}={value}")))
            }
        };
        let mut python = Command::new("python3");
        python.arg(root.join("xtask/kernels/nvrtc.py")).arg(wheels).arg(file).arg(&out);
        python.arg(shared).arg(room).arg("--").args(define);
        let done = python.output().map_err(|error| format!("python3: {error}"))?;
        if !done.status.success() {
            let said = [done.stdout, done.stderr].concat();
            return Err(format!("{}:\n{}", file.display(), String::from_utf8_lossy(&said)));
        }
        let ptx = format!("// sources {hash}\n{}", read(&out)?);
        fs::write(&out, ptx).map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(variants.len())
}

/// SHA-256 of a source and of every header it may include: those of the room and those that all share.
fn hash(shared: &Path, room: &Path, text: &str) -> Result<String, String> {
    let mut digest = Sha256::new();
    digest.update(text);
    for folder in [shared, room] {
        for header in files(folder, "cuh")? {
            digest.update(read(&header)?);
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The packages, unpacked once into the target folder.
fn fetch(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join("target/nvrtc");
    if folder.join("nvidia/cuda_nvrtc").exists() && folder.join("nvidia/cuda_runtime").exists() {
        return Ok(folder);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder);
    let status = pip.args(PACKAGES).status().map_err(|error| format!("python3: {error}"))?;
    if status.success() {
        return Ok(folder);
    }
    Err(format!(
        "pip could not fetch {}\n  hint: unpack these packages somewhere and give the folder by --nvrtc",
        PACKAGES.join(" and ")
    ))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn listing(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut all: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    all.sort();
    Ok(all)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    Ok(listing(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// The files of a folder with an extension, by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let of = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    Ok(listing(folder)?.into_iter().filter(of).collect())
}
