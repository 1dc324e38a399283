//! The loader of NVIDIA's libraries. Prospect links none of them: what is there is used, what is not is named.
//!
//! A library is searched in this order: the file or folder an environment variable names (nothing else is tried
//! then), next to the program, Prospect's cache folder, the system's loader path, CUDA toolkits under
//! `/usr/local`, the active conda environment, and the wheels of the active Python (`site-packages/nvidia`). In
//! each place a newer major version comes first. A library of CUDA 13 needs a driver of CUDA 13; older ones run
//! on every driver Prospect supports (minor-version and backward compatibility, NVIDIA's CUDA Compatibility).

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// A library Prospect can use.
pub(crate) struct Wanted {
    /// What people call it.
    pub(crate) name: &'static str,
    /// The start of its file name; the major version follows.
    pub(crate) file: &'static str,
    /// Major versions known to have the functions wanted, newest first.
    pub(crate) majors: &'static [u32],
    /// The environment variable that names it.
    pub(crate) variable: &'static str,
    /// Folders of `site-packages/nvidia` it may be in.
    pub(crate) wheels: &'static [&'static str],
    /// What brings it where it is missing.
    pub(crate) hint: &'static str,
}

/// NVIDIA's matrix products.
pub(crate) const CUBLASLT: Wanted = Wanted {
    name: "cuBLASLt",
    file: "libcublasLt.so",
    majors: &[13, 12],
    variable: "PROSPECT_CUBLASLT",
    wheels: &["cu13", "cublas"],
    hint: "`prospect doctor --fetch cublas` gets it",
};

/// The value of an environment variable by its name.
type Variables = Box<dyn Fn(&str) -> Option<OsString>>;

/// What the search looks at. Tests make their own.
pub(crate) struct Surroundings {
    /// The environment.
    pub(crate) variable: Variables,
    /// The folder of the running program.
    pub(crate) program: Option<PathBuf>,
    /// `/`.
    pub(crate) root: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn here() -> Surroundings {
        let program = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_path_buf));
        Surroundings {
            variable: Box::new(|name| std::env::var_os(name).filter(|value| !value.is_empty())),
            program,
            root: PathBuf::from("/"),
        }
    }

    fn folder(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).map(PathBuf::from)
    }
}

/// Prospect's folder for what it keeps between runs, `$XDG_CACHE_HOME/prospect` or `~/.cache/prospect`.
pub(crate) fn cache(around: &Surroundings) -> Option<PathBuf> {
    let base = around.folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let base = base.or_else(|| around.folder("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("prospect"))
}

/// A place a library may be in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file, named by the user.
    File(PathBuf),
    /// A folder.
    Folder(PathBuf),
    /// Where the system's loader looks by itself: `LD_LIBRARY_PATH`, its cache and its built-in folders.
    LoaderPath,
}

/// The places `wanted` is looked for, in order.
pub(crate) fn places(wanted: &Wanted, around: &Surroundings) -> Vec<Place> {
    if let Some(named) = around.folder(wanted.variable) {
        return vec![if named.is_dir() { Place::Folder(named) } else { Place::File(named) }];
    }
    let mut places = Vec::new();
    places.extend(around.program.clone().map(Place::Folder));
    places.extend(cache(around).map(|cache| Place::Folder(cache.join("lib"))));
    places.push(Place::LoaderPath);
    let mut toolkits = folders_named(&around.root.join("usr/local"), "cuda");
    toolkits.sort_by_key(|path| (path.file_name().is_some_and(|n| n != "cuda"), version_of(path)));
    places.extend(toolkits.into_iter().map(|path| Place::Folder(path.join("lib64"))));
    if let Some(conda) = around.folder("CONDA_PREFIX") {
        places.push(Place::Folder(conda.join("lib")));
        places.push(Place::Folder(conda.join("targets/x86_64-linux/lib")));
    }
    for packages in site_packages(around) {
        let wheels = wanted.wheels.iter().map(|w| packages.join("nvidia").join(w).join("lib"));
        places.extend(wheels.filter(|path| path.is_dir()).map(Place::Folder));
    }
    let mut kept: Vec<Place> = Vec::new();
    for place in places {
        if !kept.contains(&place) {
            kept.push(place);
        }
    }
    kept
}

/// Folders in `parent` whose names start with `name`, in the order of their names.
fn folders_named(parent: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The digits of `cuda-12.8`, such that newer versions sort first.
fn version_of(path: &Path) -> std::cmp::Reverse<Vec<u32>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::cmp::Reverse(name.split(['-', '.']).filter_map(|part| part.parse().ok()).collect())
}

/// Where the Python that `python3` would start keeps its packages, then the user's and the system's.
fn site_packages(around: &Surroundings) -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| around.folder(name)).collect();
    let path = (around.variable)("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).find(|folder| folder.join("python3").is_file());
    prefixes.extend(first.and_then(|bin| bin.parent().map(Path::to_path_buf)));
    prefixes.extend(around.folder("HOME").map(|home| home.join(".local")));
    prefixes.push(around.root.join("usr/local"));
    prefixes.push(around.root.join("usr"));
    let libraries =
        prefixes.iter().flat_map(|prefix| folders_named(&prefix.join("lib"), "python3"));
    libraries
        .flat_map(|python| [python.join("site-packages"), python.join("dist-packages")])
        .filter(|path| path.is_dir())
        .collect()
}

/// Why a library could not be used: every place looked at, and what was wrong there.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    name: &'static str,
    variable: &'static str,
    hint: &'static str,
    looked: Vec<(String, String)>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not found; looked in", self.name)?;
        for (place, reason) in &self.looked {
            write!(f, "\n  {place}: {reason}")?;
        }
        write!(f, "\n  hint: {}, or set {} to the file", self.hint, self.variable)
    }
}

/// Loads `wanted` from the first place where it is and `accept` takes it. `driver` is the major CUDA version
/// the driver knows. Returns what `accept` made of it and where it was.
pub(crate) fn load<T>(
    wanted: &Wanted,
    driver: u32,
    around: &Surroundings,
    accept: impl Fn(libloading::Library) -> Result<T, String>,
) -> Result<(T, PathBuf), Missing> {
    let mut looked = Vec::new();
    for place in places(wanted, around) {
        let files: Vec<PathBuf> = match &place {
            Place::File(path) => vec![path.clone()],
            Place::Folder(folder) => names(wanted, driver).map(|name| folder.join(name)).collect(),
            Place::LoaderPath => names(wanted, driver).map(PathBuf::from).collect(),
        };
        let mut reason = None;
        for file in files {
            if place != Place::LoaderPath && !file.is_file() {
                continue;
            }
            match open(&file).and_then(&accept) {
                Ok(accepted) => return Ok((accepted, mapped(&file).unwrap_or(file))),
                Err(text) => reason = Some(text),
            }
        }
        let names: Vec<String> = names(wanted, driver).collect();
        looked.push(match place {
            Place::File(path) => {
                (path.display().to_string(), reason.unwrap_or_else(|| "no such file".to_owned()))
            }
            Place::Folder(path) => (
                path.display().to_string(),
                reason.unwrap_or_else(|| format!("no {}", names.join(", no "))),
            ),
            Place::LoaderPath => {
                ("the loader path".to_owned(), reason.unwrap_or_else(|| "not there".to_owned()))
            }
        });
    }
    Err(Missing { name: wanted.name, variable: wanted.variable, hint: wanted.hint, looked })
}

/// The file names to try under a driver, newest first.
fn names(wanted: &Wanted, driver: u32) -> impl Iterator<Item = String> {
    let (file, majors) = (wanted.file, wanted.majors);
    let usable = majors.iter().filter(move |major| **major < 13 || driver >= **major);
    usable.map(move |major| format!("{file}.{major}"))
}

fn open(path: &Path) -> Result<libloading::Library, String> {
    // SAFETY: loading runs the library's initializers; NVIDIA's libraries are meant to be loaded so, and the user
    // chose the places.
    #[allow(unsafe_code)]
    let opened = unsafe { libloading::Library::new(path) };
    opened.map_err(|error| {
        // The loader's own words are in the source.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })
}

/// The file behind a name the loader resolved, as the process's memory map tells it.
fn mapped(name: &Path) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let wanted = name.file_name()?.to_string_lossy().into_owned();
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| &line[start..]));
    // The loader follows `libcublasLt.so.13` to a file that may have a longer version in its name.
    let matches = |path: &&str| {
        Path::new(path).file_name().is_some_and(|n| n.to_string_lossy().starts_with(&wanted))
    };
    paths.into_iter().find(matches).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A folder tree that is gone when dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[&str]) -> Tree {
            let root = std::env::temp_dir().join(format!("prospect-{name}-{}", std::process::id()));
            for file in files {
                let path = root.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "not a library").unwrap();
            }
            Tree(root)
        }

        fn around(&self, variables: &[(&str, &str)]) -> Surroundings {
            let values: HashMap<String, OsString> = variables
                .iter()
                .map(|(name, path)| ((*name).to_owned(), self.0.join(path).into_os_string()))
                .collect();
            Surroundings {
                variable: Box::new(move |name| values.get(name).cloned()),
                program: Some(self.0.join("program")),
                root: self.0.clone(),
            }
        }

        fn looked(&self, places: &[Place]) -> Vec<String> {
            let relative =
                |path: &PathBuf| path.strip_prefix(&self.0).unwrap().display().to_string();
            let name = |place: &Place| match place {
                Place::File(path) | Place::Folder(path) => relative(path),
                Place::LoaderPath => "loader".to_owned(),
            };
            places.iter().map(name).collect()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn places_are_searched_in_the_order_the_module_promises() {
        let tree = Tree::new(
            "order",
            &[
                "usr/local/cuda-12.4/lib64/x",
                "usr/local/cuda-13.0/lib64/x",
                "usr/local/cuda/lib64/x",
                "venv/lib/python3.12/site-packages/nvidia/cu13/lib/x",
                "venv/lib/python3.12/site-packages/nvidia/cublas/lib/x",
                "venv/bin/python3",
                "usr/lib/python3/dist-packages/nvidia/cublas/lib/x",
            ],
        );
        let around = tree.around(&[
            ("XDG_CACHE_HOME", "cache"),
            ("CONDA_PREFIX", "conda"),
            ("VIRTUAL_ENV", "venv"),
            ("PATH", "venv/bin"),
        ]);
        assert_eq!(
            tree.looked(&places(&CUBLASLT, &around)),
            [
                "program",
                "cache/prospect/lib",
                "loader",
                "usr/local/cuda/lib64",
                "usr/local/cuda-13.0/lib64",
                "usr/local/cuda-12.4/lib64",
                "conda/lib",
                "conda/targets/x86_64-linux/lib",
                "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                "venv/lib/python3.12/site-packages/nvidia/cublas/lib",
                "usr/lib/python3/dist-packages/nvidia/cublas/lib",
            ]
        );
    }

    #[test]
    fn a_named_library_is_the_only_one_tried_and_a_broken_one_is_no_panic() {
        let tree = Tree::new("named", &["mine/libcublasLt.so.12"]);
        let around = tree.around(&[("PROSPECT_CUBLASLT", "mine/libcublasLt.so.12")]);
        assert_eq!(tree.looked(&places(&CUBLASLT, &around)), ["mine/libcublasLt.so.12"]);
        let around = tree.around(&[("PROSPECT_CUBLASLT", "mine")]);
        let missing = load(&CUBLASLT, 12, &around, Ok).expect_err("a text file was loaded");
        let text = missing.to_string();
        assert_eq!(missing.looked.len(), 1, "{text}");
        assert!(text.contains("named") && text.contains("PROSPECT_CUBLASLT"), "{text}");
        assert!(!text.contains("no libcublasLt.so"), "{text}");
    }

    #[test]
    fn version_13_needs_a_driver_of_version_13() {
        let names = |driver| names(&CUBLASLT, driver).collect::<Vec<_>>();
        assert_eq!(names(12), ["libcublasLt.so.12"]);
        assert_eq!(names(13), ["libcublasLt.so.13", "libcublasLt.so.12"]);
    }
}
