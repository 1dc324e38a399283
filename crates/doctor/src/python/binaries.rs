//! The bytes layer: the shared objects of the packages that break, against torch, CUDA, glibc and the card.
//!
//! Only packages with compiled code that meets torch or CUDA are opened; of each file only headers and the dynamic
//! tables (see [`crate::elf`]).

use super::Environment;
use super::dist::{Dist, is_shared_object};
use crate::elf::{Elf, GpuCode, gpu_code};
use crate::facts::{Kind, Machine, ReadAt, names};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What one shared object says.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// The file.
    pub path: PathBuf,
    /// The package it belongs to.
    pub package: String,
    /// The libraries it needs.
    pub needed: Vec<String>,
    /// Its undefined symbols that are torch's to define.
    pub of_torch: Vec<String>,
    /// The GPU architectures it has code for.
    pub code: GpuCode,
    /// The newest GLIBC it asks for.
    pub glibc: Option<(u32, u32)>,
    /// Which C++ ABI its calls into torch use: `old` or `cxx11`.
    pub abi: Option<&'static str>,
    /// Why it could not be read.
    pub malformed: Option<&'static str>,
}

/// The folders looked into: top-level names in site-packages that hold extensions to torch, and bitsandbytes.
const EXTENSIONS: &[(&str, &str)] = &[
    ("bitsandbytes", "bitsandbytes"),
    ("xformers", "xformers"),
    ("torchvision", "torchvision"),
    ("torchaudio", "torchaudio"),
    ("torchao", "torchao"),
    ("flash_attn", "flash-attn"),
    ("causal_conv1d", "causal-conv1d"),
    ("mamba_ssm", "mamba-ssm"),
    ("deepspeed", "deepspeed"),
    ("apex", "apex"),
];
/// Extensions whose module lies at the top of site-packages, by the start of its file name.
const TOP_LEVEL: &[(&str, &str)] = &[
    ("flash_attn", "flash-attn"),
    ("causal_conv1d_cuda", "causal-conv1d"),
    ("selective_scan_cuda", "mamba-ssm"),
];
const MOST_FILES: usize = 200;

/// Torch's own libraries.
#[derive(Default)]
pub struct Torch {
    /// The folder `torch/lib`.
    pub folder: PathBuf,
    /// The architectures of all its libraries together.
    pub code: GpuCode,
    /// Which C++ ABI its own interface uses.
    pub abi: Option<&'static str>,
    files: Vec<(PathBuf, Box<dyn ReadAt>)>,
}

/// Opens torch's libraries and reads their GPU code.
pub fn torch(machine: &dyn Machine, site: &Path) -> Torch {
    let mut torch = Torch { folder: site.join("torch/lib"), ..Torch::default() };
    for name in names(machine, &torch.folder) {
        let ours =
            ["libc10", "libtorch", "libshm", "libtorch_python"].iter().any(|p| name.starts_with(p));
        if !ours || !is_shared_object(&name) {
            continue;
        }
        let path = torch.folder.join(&name);
        let Ok(file) = machine.open(&path) else { continue };
        if let Ok(elf) = Elf::open(file.as_ref()) {
            if name.starts_with("libtorch_cuda") {
                let code = elf
                    .section(".nv_fatbin")
                    .ok()
                    .flatten()
                    .and_then(|s| gpu_code(file.as_ref(), s).ok());
                let code = code.unwrap_or_default();
                torch.code.cubins.extend(code.cubins);
                torch.code.ptx.extend(code.ptx);
            }
            if name.starts_with("libc10.") {
                // The constructor of c10::Error takes a std::string: its name tells which one.
                for (abi, symbol) in [("old", OLD_ABI), ("cxx11", NEW_ABI)] {
                    if elf.defines(symbol) == Ok(Some(true)) {
                        torch.abi = Some(abi);
                    }
                }
            }
            torch.files.push((path, file));
        }
    }
    torch
}

const OLD_ABI: &str = "_ZN3c105ErrorC2ENS_14SourceLocationESs";
const NEW_ABI: &str =
    "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";

impl Torch {
    /// The symbols among these that no library of torch defines. None where torch's tables cannot tell.
    pub fn lacks(
        &self,
        symbols: &[String],
        known: &mut BTreeMap<String, bool>,
    ) -> Option<Vec<String>> {
        let elves: Vec<Elf<'_>> =
            self.files.iter().filter_map(|(_, f)| Elf::open(f.as_ref()).ok()).collect();
        if elves.is_empty() || elves.iter().all(|e| e.defines("x") == Ok(None)) {
            return None;
        }
        let mut missing = Vec::new();
        for symbol in symbols {
            let defined = match known.get(symbol) {
                Some(defined) => *defined,
                None => {
                    let defined = elves.iter().any(|e| e.defines(symbol) == Ok(Some(true)));
                    known.insert(symbol.clone(), defined);
                    defined
                }
            };
            if !defined {
                missing.push(symbol.clone());
            }
        }
        Some(missing)
    }
}

/// The extensions of an environment, read.
pub fn extensions(
    machine: &dyn Machine,
    environment: &Environment,
    dists: &[Dist],
) -> Vec<Library> {
    let mut found = Vec::new();
    for site in &environment.sites {
        for (folder, package) in EXTENSIONS {
            if dists.iter().any(|d| d.name == *package) {
                let mut files = Vec::new();
                collect(machine, &site.folder.join(folder), 4, &mut files);
                found.extend(files.into_iter().map(|path| library(machine, path, package)));
            }
        }
        for name in names(machine, &site.folder).iter().filter(|n| is_shared_object(n)) {
            if let Some((_, package)) = TOP_LEVEL.iter().find(|(start, _)| name.starts_with(start))
            {
                found.push(library(machine, site.folder.join(name), package));
            }
        }
    }
    found
}

fn collect(machine: &dyn Machine, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in machine.list(folder).unwrap_or_default() {
        if files.len() >= MOST_FILES {
            return;
        }
        match entry.kind {
            Kind::Folder if depth > 0 => {
                collect(machine, &folder.join(&entry.name), depth - 1, files)
            }
            Kind::File if is_shared_object(&entry.name) => files.push(folder.join(&entry.name)),
            _ => {}
        }
    }
}

/// Reads one shared object.
pub fn library(machine: &dyn Machine, path: PathBuf, package: &str) -> Library {
    let mut library = Library { path, package: package.into(), ..Library::default() };
    if let Err(why) = fill(machine, &mut library) {
        library.malformed = Some(why);
    }
    library
}

fn fill(machine: &dyn Machine, library: &mut Library) -> Result<(), &'static str> {
    let file = machine.open(&library.path).map_err(|_| "unreadable")?;
    let elf = Elf::open(file.as_ref())?;
    library.needed = elf.needed()?;
    let versions = elf.version_needs()?;
    library.glibc = versions.iter().filter_map(|v| two_numbers(v.strip_prefix("GLIBC_")?)).max();
    if let Some(section) = elf.section(".nv_fatbin")? {
        library.code = gpu_code(file.as_ref(), section)?;
    }
    for symbol in elf.undefined()?.unwrap_or_default() {
        let torch = ["_ZN3c10", "_ZNK3c10", "_ZN2at", "_ZNK2at", "_ZN5torch", "_ZNK5torch"];
        if torch.iter().any(|p| symbol.starts_with(p)) {
            library.of_torch.push(symbol);
        }
    }
    library.abi = library.of_torch.iter().find_map(|s| match s.as_str() {
        OLD_ABI => Some("old"),
        NEW_ABI => Some("cxx11"),
        _ => None,
    });
    Ok(())
}

fn two_numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The CUDA versions for which bitsandbytes brought a library: `libbitsandbytes_cuda124.so` is 12.4.
pub fn bitsandbytes_cudas(machine: &dyn Machine, site: &Path) -> BTreeSet<(u32, u32)> {
    let files = names(machine, &site.join("bitsandbytes")).into_iter();
    files
        .filter_map(|name| {
            let digits = name.strip_prefix("libbitsandbytes_cuda")?.strip_suffix(".so")?;
            let digits = digits.strip_suffix("_nocublaslt").unwrap_or(digits);
            let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        })
        .collect()
}
