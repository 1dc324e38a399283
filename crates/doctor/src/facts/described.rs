//! A machine told in words: its files lie in a folder, its cards and driver come from a description.

use super::files::Files;
use super::{Cuda, Entry, Gpu, Machine, Nvidia, Ran, ReadAt, Stat};
use crate::cards::CARDS;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What cannot be read from files. The key names are those of `machine.toml` in the fixtures.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Description {
    /// Driver and cards.
    pub nvidia: Nvidia,
    /// What libcuda says; told from `nvidia` where absent.
    pub cuda: Option<Cuda>,
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// The folder the command was started in, inside the tree.
    pub working_folder: Option<PathBuf>,
    /// Free space everywhere, in GiB.
    pub space_gib: Option<u64>,
    /// Folders that cannot be written.
    pub unwritable: Vec<PathBuf>,
    /// The kernel's log.
    pub kernel_log: Option<String>,
    /// Number of processors.
    pub processors: Option<usize>,
}

/// A described machine.
#[derive(Clone, Debug)]
pub struct Described {
    files: Files,
    about: Description,
    /// Whether the files are this machine's, whose own driver must not speak beside the supposed one.
    supposed: bool,
}

impl Described {
    /// A machine whose files lie under `root`.
    pub fn new(root: PathBuf, about: Description) -> Described {
        Described { files: Files::under(root), about, supposed: false }
    }

    /// The same description over this machine's own files: `--gpu` and `--driver` without `--root`.
    pub fn over_local(about: Description) -> Described {
        Described { files: Files::local(), about, supposed: true }
    }

    fn hides(&self, path: &Path) -> io::Result<()> {
        let driver = [
            "/proc/driver/nvidia",
            "/sys/module/nvidia",
            "/sys/module/nouveau",
            "/sys/bus/pci",
            "/dev",
        ];
        match self.supposed && driver.iter().any(|p| path.starts_with(p)) {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "another driver is supposed")),
            false => Ok(()),
        }
    }
}

/// The card a person named.
pub fn card(name: &str) -> Result<Gpu> {
    let plain = |s: &str| {
        s.to_lowercase().replace("nvidia", "").replace("geforce", "").replace([' ', '-'], "")
    };
    let asked = plain(name);
    let found = CARDS.iter().find(|c| plain(c.name) == asked).ok_or_else(|| {
        let known: Vec<&str> = CARDS.iter().map(|c| c.name).collect();
        Error::input(
            format!("unknown GPU '{name}' in --gpu"),
            format!("known are: {}", known.join(", ")),
        )
    })?;
    let make = if found.name.starts_with("RTX ") && !found.name.contains("A6000") {
        "GeForce "
    } else {
        ""
    };
    Ok(Gpu {
        name: format!("NVIDIA {make}{}", found.name),
        compute: found.compute.into(),
        memory_total_mib: found.memory_mib,
        power_limit_w: Some(found.watts),
        power_default_w: Some(found.watts),
        compute_mode: "default".into(),
        ..Gpu::default()
    })
}

/// The newest CUDA version a Linux driver runs, by its branch: the toolkit driver of each CUDA release
/// (CUDA release notes, table "CUDA Toolkit and Corresponding Driver Versions").
pub fn newest_cuda(driver: &str) -> Option<&'static str> {
    const TOOLKIT: &[(u32, &str)] = &[
        (595, "13.2"),
        (590, "13.1"),
        (580, "13.0"),
        (575, "12.9"),
        (570, "12.8"),
        (560, "12.6"),
        (555, "12.5"),
        (550, "12.4"),
        (545, "12.3"),
        (535, "12.2"),
        (530, "12.1"),
        (525, "12.0"),
        (520, "11.8"),
        (515, "11.7"),
        (510, "11.6"),
        (495, "11.5"),
        (470, "11.4"),
        (465, "11.3"),
        (460, "11.2"),
        (455, "11.1"),
        (450, "11.0"),
    ];
    let branch: u32 = driver.split('.').next()?.parse().ok()?;
    TOOLKIT.iter().find(|(least, _)| branch >= *least).map(|(_, cuda)| *cuda)
}

impl Machine for Described {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        self.hides(path)?;
        self.files.open(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        self.hides(folder)?;
        self.files.list(folder)
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.hides(path)?;
        self.files.stat(path)
    }

    fn link(&self, path: &Path) -> io::Result<PathBuf> {
        self.files.link(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.about.variables.get(name).cloned()
    }

    fn working_folder(&self) -> Option<PathBuf> {
        self.about.working_folder.clone()
    }

    fn space(&self, _path: &Path) -> Option<u64> {
        self.about.space_gib.map(|gib| gib << 30)
    }

    fn writable(&self, path: &Path) -> Option<bool> {
        Some(!self.about.unwritable.iter().any(|p| path.starts_with(p)))
    }

    fn nvidia(&self) -> Nvidia {
        let mut nvidia = self.about.nvidia.clone();
        if nvidia.cuda.is_none() {
            nvidia.cuda = nvidia.driver.as_deref().and_then(newest_cuda).map(String::from);
        }
        nvidia
    }

    fn cuda(&self) -> Cuda {
        self.about.cuda.clone().unwrap_or_else(|| {
            let nvidia = self.nvidia();
            let error = nvidia.error.or_else(|| {
                nvidia.driver.is_none().then(|| "libcuda.so.1 is not there".to_string())
            });
            Cuda { version: nvidia.cuda, devices: u32::try_from(nvidia.gpus.len()).ok(), error }
        })
    }

    fn kernel_log(&self) -> Option<String> {
        self.about.kernel_log.clone()
    }

    fn processors(&self) -> usize {
        self.about.processors.unwrap_or(8)
    }

    fn run(&self, program: &str, _arguments: &[&str], _input: &str) -> io::Result<Ran> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("'{program}' is not run on a described machine"),
        ))
    }

    fn save(&self, path: &Path, _text: &str) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("'{}' is not written on a described machine", path.display()),
        ))
    }
}
