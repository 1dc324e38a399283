//! A Python environment, read without running Python.

pub mod binaries;
pub mod dist;
pub mod facts;
mod flash_attn;
mod installed;
mod layers;
pub mod locate;
pub mod requirements;
pub mod torch;

use pep440_rs::Version;
use std::path::PathBuf;

/// Who made an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// `python -m venv` and pip.
    Venv,
    /// uv.
    Uv,
    /// conda or one of its kin.
    Conda,
    /// A Python of the system, or one built by hand.
    System,
}

impl Manager {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Manager::Venv => "venv",
            Manager::Uv => "uv venv",
            Manager::Conda => "conda",
            Manager::System => "system Python",
        }
    }
}

/// A Python environment.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its folder.
    pub prefix: PathBuf,
    /// Who made it.
    pub manager: Manager,
    /// Its Python version, and the file that says so.
    pub python: Option<(Version, String)>,
    /// The interpreter, if the environment has one that exists.
    pub interpreter: Option<PathBuf>,
    /// The folders Python imports from, first one first.
    pub sites: Vec<Site>,
    /// The packages conda says it installed.
    pub conda: Vec<(String, String, String)>,
    /// The folder of the project it belongs to (the parent of `.venv`), where it has one.
    pub project: Option<PathBuf>,
}

/// A folder Python imports from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The folder.
    pub folder: PathBuf,
    /// Why Python looks there.
    pub origin: Origin,
}

/// Why Python looks into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `PYTHONPATH`.
    PythonPath,
    /// `~/.local`, before the environment's own.
    User,
    /// The environment's own site-packages.
    Own,
    /// The base interpreter's, through `include-system-site-packages`.
    Base,
}
