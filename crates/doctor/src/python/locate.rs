//! Finding the environment meant by `--python PATH`, or the active one, and the folders it imports from.
//!
//! PEP 405 (`pyvenv.cfg`), PEP 370 (user site), the `site` module's documentation, conda's `conda-meta`.

use super::{Environment, Manager, Origin, Site};
use crate::error::{Error, Result};
use crate::facts::{Machine, exists, is_folder, names, read_text};
use pep440_rs::Version;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Finds the environment of a path: a folder, an interpreter, a project with `.venv`, a conda prefix.
pub fn given(machine: &dyn Machine, path: &Path) -> Result<Environment> {
    let path = match (path.is_absolute(), machine.working_folder()) {
        (false, Some(folder)) => folder.join(path),
        _ => path.to_path_buf(),
    };
    let about = machine.stat(&path).map_err(|error| {
        Error::input(
            format!("no Python environment at '{}': {error}", path.display()),
            "give the folder of a virtual or conda environment, its interpreter, or a project with .venv",
        )
    })?;
    if about.kind != crate::facts::Kind::Folder {
        // An interpreter: bin/python of its prefix. Its link is not followed, or a venv would become its base.
        if let Some(prefix) = path.parent().and_then(Path::parent)
            && let Some(found) = at(machine, prefix)
        {
            return Ok(found);
        }
    }
    let places = [path.clone(), path.join(".venv"), path.join("venv"), path.join("env")];
    places.iter().find_map(|place| at(machine, place)).ok_or_else(|| {
        Error::input(
            format!("'{}' holds no Python environment", path.display()),
            "looked for pyvenv.cfg, conda-meta, lib/python3.*/site-packages and .venv in it",
        )
    })
}

/// Finds the active environment, if there is one.
pub fn active(machine: &dyn Machine) -> Option<Environment> {
    let variables = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .iter()
        .filter_map(|name| machine.variable(name))
        .map(PathBuf::from);
    let here = machine.working_folder().map(|f| f.join(".venv"));
    variables.chain(here).find_map(|prefix| at(machine, &prefix))
}

/// Finds the environment of another machine's tree, where people put them in images.
pub fn in_image(machine: &dyn Machine) -> Option<Environment> {
    let usual = [
        "/opt/venv",
        "/venv",
        "/app/.venv",
        "/workspace/.venv",
        "/opt/conda",
        "/root/miniconda3",
        "/usr/local",
        "/usr",
    ];
    let homes = names(machine, Path::new("/home"))
        .into_iter()
        .map(|n| PathBuf::from("/home").join(n).join(".venv"));
    let places = usual.iter().map(PathBuf::from).chain(homes);
    let found: Vec<Environment> = places.filter_map(|p| at(machine, &p)).collect();
    let has_torch =
        |e: &Environment| e.sites.iter().any(|s| exists(machine, &s.folder.join("torch")));
    found.iter().find(|e| has_torch(e)).or(found.first()).cloned()
}

/// The environment whose prefix this is.
fn at(machine: &dyn Machine, prefix: &Path) -> Option<Environment> {
    let settings = prefix.join("pyvenv.cfg");
    let venv = read_text(machine, &settings, 64 << 10).ok();
    let conda = is_folder(machine, &prefix.join("conda-meta"));
    let own = own_sites(machine, prefix);
    // A folder of packages by itself (`pip install --target`) is an environment too.
    let bare = own.is_empty() && names(machine, prefix).iter().any(|n| n.ends_with(".dist-info"));
    if venv.is_none() && !conda && own.is_empty() && !bare {
        return None;
    }
    let value = |key: &str| -> Option<String> {
        venv.as_deref()?.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim().eq_ignore_ascii_case(key)).then(|| value.trim().to_string())
        })
    };
    let manager = match (&venv, conda) {
        (Some(_), _) if value("uv").is_some() => Manager::Uv,
        (Some(_), _) => Manager::Venv,
        (None, true) => Manager::Conda,
        (None, false) => Manager::System,
    };
    let mut environment = Environment {
        prefix: prefix.into(),
        manager,
        python: None,
        interpreter: ["bin/python", "bin/python3"]
            .iter()
            .map(|n| prefix.join(n))
            .find(|p| exists(machine, p)),
        sites: Vec::new(),
        conda: Vec::new(),
        project: (prefix.file_name().is_some_and(|n| n == ".venv"))
            .then(|| prefix.parent().map(Path::to_path_buf))
            .flatten(),
    };
    if conda {
        environment.conda = conda_packages(machine, prefix);
    }
    let written = value("version_info")
        .or_else(|| value("version"))
        .map(|v| (v, settings.display().to_string()));
    let by_conda =
        environment.conda.iter().find(|c| c.0 == "python").map(|c| (c.1.clone(), c.2.clone()));
    let by_folder = own.first().and_then(|site| {
        let folder = site.parent()?;
        let digits = folder.file_name()?.to_str()?.strip_prefix("python")?.to_string();
        Some((digits, folder.display().to_string()))
    });
    environment.python = written.or(by_conda).or(by_folder).and_then(|(text, path)| {
        // uv writes 3.12.4.final.0 in old versions: the first three numbers are the version.
        let short: Vec<&str> = text.split('.').take(3).collect();
        Some((Version::from_str(&short.join(".")).ok()?, path))
    });
    environment.sites = sites(
        machine,
        &environment,
        own,
        bare,
        value("home"),
        value("include-system-site-packages"),
    );
    Some(environment)
}

fn own_sites(machine: &dyn Machine, prefix: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for lib in ["lib", "lib64", "local/lib"] {
        for name in
            names(machine, &prefix.join(lib)).into_iter().filter(|n| n.starts_with("python3"))
        {
            for packages in ["site-packages", "dist-packages"] {
                let site = prefix.join(lib).join(&name).join(packages);
                // lib64 is a link to lib nearly everywhere: the same folder counts once.
                let twin = prefix.join("lib").join(&name).join(packages);
                let linked = lib == "lib64"
                    && machine.link(&prefix.join("lib64")).is_ok()
                    && found.contains(&twin);
                if !linked && is_folder(machine, &site) {
                    found.push(site);
                }
            }
        }
    }
    let debian = prefix.join("lib/python3/dist-packages");
    if is_folder(machine, &debian) && !found.contains(&debian) {
        found.push(debian);
    }
    found
}

fn sites(
    machine: &dyn Machine,
    environment: &Environment,
    own: Vec<PathBuf>,
    bare: bool,
    home: Option<String>,
    shared: Option<String>,
) -> Vec<Site> {
    let shares = shared.is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let isolated = matches!(environment.manager, Manager::Venv | Manager::Uv) && !shares;
    let mut sites = Vec::new();
    let mut add = |folder: PathBuf, origin: Origin| {
        let site = Site { folder, origin };
        if is_folder(machine, &site.folder) && !sites.contains(&site) {
            sites.push(site);
        }
    };
    if let Some(path) = machine.variable("PYTHONPATH") {
        path.split(':')
            .filter(|p| p.starts_with('/'))
            .for_each(|p| add(p.into(), Origin::PythonPath));
    }
    let user = machine.variable("PYTHONNOUSERSITE").is_none_or(|v| v.is_empty());
    if let (false, true, Some(home), Some((python, _))) =
        (isolated, user, machine.variable("HOME"), &environment.python)
    {
        let release = python.release();
        if let [major, minor, ..] = *release {
            add(
                PathBuf::from(home).join(format!(".local/lib/python{major}.{minor}/site-packages")),
                Origin::User,
            );
        }
    }
    if bare {
        add(environment.prefix.clone(), Origin::Own);
    }
    own.into_iter().for_each(|folder| add(folder, Origin::Own));
    if let (true, Some(base)) = (shares, home.as_deref().and_then(|h| Path::new(h).parent())) {
        own_sites(machine, base).into_iter().for_each(|folder| add(folder, Origin::Base));
    }
    sites
}

/// `conda-meta/NAME-VERSION-BUILD.json`: the file names alone tell name and version.
fn conda_packages(machine: &dyn Machine, prefix: &Path) -> Vec<(String, String, String)> {
    let folder = prefix.join("conda-meta");
    let files = names(machine, &folder).into_iter().filter(|n| n.ends_with(".json"));
    files
        .filter_map(|file| {
            let mut parts = file.strip_suffix(".json")?.rsplitn(3, '-');
            let (_build, version, name) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name.to_string(), version.to_string(), folder.join(&file).display().to_string()))
        })
        .collect()
}
