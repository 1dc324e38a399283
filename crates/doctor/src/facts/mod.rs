//! Everything the doctor knows about a machine comes through the trait [`Machine`], so that a test, an image of
//! another machine and the machine at hand are diagnosed by the same code.
//!
//! [`local::Local`] is the machine at hand. [`described::Described`] takes its files from a folder and the rest
//! from a description: that is `--root DIR --gpu NAME --driver VERSION`, and the fixtures of the tests.

pub mod described;
pub mod files;
pub mod local;
mod native;
mod nvml;

use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// A file open for reading at any place.
pub trait ReadAt {
    /// Its length in bytes; 0 for files of /proc, which have none.
    fn size(&self) -> u64;
    /// Reads into `buffer` from `offset` on; returns how many bytes came, 0 at the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What a directory entry or a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link (in listings alone: a path is followed).
    Link,
    /// A pipe, socket or device: never opened.
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, with replacement characters where it is not UTF-8.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// What it is, links followed.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: u64,
}

/// A process that holds memory of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, where /proc tells.
    pub name: String,
    /// The GPU memory it holds, in MiB.
    pub memory_mib: u64,
}

/// One GPU as the driver tells it. An absent value is one the driver does not give for this card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// The marketing name, such as `NVIDIA GeForce RTX 3090`.
    pub name: String,
    /// Compute capability, such as `8.6`.
    pub compute: String,
    /// All its memory, in MiB.
    pub memory_total_mib: u64,
    /// The memory taken, in MiB.
    pub memory_used_mib: u64,
    /// Who holds it.
    pub processes: Vec<Process>,
    /// The power limit in force, in watts.
    pub power_limit_w: Option<f64>,
    /// The power limit the card came with, in watts.
    pub power_default_w: Option<f64>,
    /// Why the clocks are held back now: `thermal`, `power-brake`, `hardware`.
    pub throttle: Vec<String>,
    /// Temperature in degrees Celsius.
    pub temperature: Option<u32>,
    /// Temperature of its memory, where the card tells it (HBM; not GDDR6X).
    pub memory_temperature: Option<u32>,
    /// The memory's temperature at which the driver slows it down.
    pub memory_temperature_limit: Option<u32>,
    /// Whether the driver stays loaded while nobody uses the card.
    pub persistence: Option<bool>,
    /// PCIe lanes in use.
    pub pcie_width: Option<u32>,
    /// PCIe lanes that card and slot could use.
    pub pcie_max_width: Option<u32>,
    /// PCIe generation in use (low when idle, which is normal).
    pub pcie_generation: Option<u32>,
    /// PCIe generation that card and slot could use.
    pub pcie_max_generation: Option<u32>,
    /// Memory errors that ECC could not correct.
    pub ecc_uncorrected: Option<u64>,
    /// `default`, `exclusive` or `prohibited`.
    pub compute_mode: String,
    /// Whether a display runs on it.
    pub display: bool,
    /// Whether each other GPU, in order, can be read directly; empty where unknown.
    pub peers: Vec<bool>,
}

/// What the NVIDIA management library said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nvidia {
    /// The driver's version.
    pub driver: Option<String>,
    /// The newest CUDA version the driver runs.
    pub cuda: Option<String>,
    /// Why there is no answer.
    pub error: Option<String>,
    /// The cards.
    pub gpus: Vec<Gpu>,
}

/// What libcuda said; it is what CUDA programs really go through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cuda {
    /// The CUDA version libcuda gives.
    pub version: Option<String>,
    /// How many devices it shows (after `CUDA_VISIBLE_DEVICES`).
    pub devices: Option<u32>,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// What another program printed.
#[derive(Clone, Debug, Default)]
pub struct Ran {
    /// Whether it exited with 0.
    pub success: bool,
    /// Its standard output.
    pub output: String,
    /// Its standard error.
    pub error: String,
}

/// The door to a machine.
pub trait Machine {
    /// Opens a regular file.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>>;
    /// Lists a folder, sorted by name.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;
    /// What a path leads to.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Where a symbolic link points.
    fn link(&self, path: &Path) -> io::Result<PathBuf>;
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The folder the command was started in.
    fn working_folder(&self) -> Option<PathBuf>;
    /// Bytes that can still be written where `path` lies, in its nearest existing folder.
    fn space(&self, path: &Path) -> Option<u64>;
    /// Whether we may write at `path`, or in its nearest existing folder.
    fn writable(&self, path: &Path) -> Option<bool>;
    /// What NVML says.
    fn nvidia(&self) -> Nvidia;
    /// What libcuda says.
    fn cuda(&self) -> Cuda;
    /// The kernel's log, or as much of it as we may read.
    fn kernel_log(&self) -> Option<String>;
    /// Number of processors.
    fn processors(&self) -> usize;
    /// Runs another program (`uv`, `pip`) with some input; only what the user asked for by a flag comes here.
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<Ran>;
    /// Writes a new file, never over one that exists; only `stack mend --apply` does, for its way back.
    fn save(&self, path: &Path, text: &str) -> io::Result<()>;
}

/// Reads a text file up to `limit` bytes; what is not UTF-8 is replaced.
pub fn read_text(machine: &dyn Machine, path: &Path, limit: usize) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&read_bytes(machine, path, limit)?).into_owned())
}

/// Reads a file up to `limit` bytes, in growing pieces: no file decides how much memory is taken.
pub fn read_bytes(machine: &dyn Machine, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let file = machine.open(path)?;
    let mut bytes = Vec::new();
    let mut piece = [0u8; 16 << 10];
    while bytes.len() < limit {
        let want = piece.len().min(limit - bytes.len());
        let got = file.read_at(bytes.len() as u64, &mut piece[..want])?;
        if got == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..got]);
    }
    Ok(bytes)
}

/// Whether a path leads to something.
pub fn exists(machine: &dyn Machine, path: &Path) -> bool {
    machine.stat(path).is_ok()
}

/// Whether a path leads to a folder.
pub fn is_folder(machine: &dyn Machine, path: &Path) -> bool {
    machine.stat(path).is_ok_and(|s| s.kind == Kind::Folder)
}

/// The names in a folder; none where it cannot be read.
pub fn names(machine: &dyn Machine, folder: &Path) -> Vec<String> {
    machine.list(folder).map(|all| all.into_iter().map(|e| e.name).collect()).unwrap_or_default()
}
