//! The run folder: what is in it, and whose it is.
//!
//! `recipe.toml` (as resolved), `run.json` (policy and fingerprints), `metrics.jsonl`, `bad-batches.jsonl`,
//! `checkpoint-<step>/`, `adapter/` or `model/`, `answers-before.json`, `summary.json`, `report.html`.

mod log;
mod unchanged;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use data::files;

use crate::checksum;
use crate::error::{Error, Result};
use crate::event::{Judgement, Summary};
use crate::recipe::Recipe;

pub use unchanged::{RunFile, fingerprints};

/// A run folder that this process alone writes to.
pub struct Folder {
    path: PathBuf,
    /// Held locked while the run lasts.
    _lock: File,
    /// Whether the folder itself is new: it goes again if no run begins in it.
    new: bool,
}

/// Gives a recipe that names no output its run folder: for a new run the first name that is free, to resume the
/// last that holds a run.
pub fn settle(mut recipe: Recipe, resume: bool) -> Recipe {
    if recipe.names_output {
        return recipe;
    }
    recipe.names_output = true;
    let first = recipe.output.clone();
    let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut names = std::iter::once(first.clone())
        .chain((2..).map(|number| first.with_file_name(format!("{name}-{number}"))));
    if resume {
        let last = names.take_while(|path| path.exists()).filter(|path| holds_run(path)).last();
        recipe.output = last.unwrap_or(first);
    } else if let Some(free) = names.find(|path| !path.exists() || is_free(path)) {
        recipe.output = free;
    }
    recipe
}

fn holds_run(path: &Path) -> bool {
    path.join("recipe.toml").exists()
}

/// Whether a folder holds nothing but what a run leaves that ended before it began.
fn is_free(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                name == LOCK || name == START || is_leftover(&name.to_string_lossy())
            })
        })
    })
}

/// Whether a file was being written when its program was killed: nobody else writes hidden names that end so.
fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

const LOCK: &str = ".lock";
/// What a resumed run must find unchanged: [`RunFile`].
pub(crate) const START: &str = "run.json";

impl Folder {
    /// Makes a new run folder, or opens that of the run to go on with.
    pub fn open(recipe: &Recipe, resume: bool) -> Result<Folder> {
        let path = recipe.output.clone();
        check(recipe, resume)?;
        let new = !path.exists();
        fs::create_dir_all(&path).map_err(|error| {
            Error::machine(
                format!("cannot create output '{}': {error}", path.display()),
                "choose a folder your user may write to, by --set output=...",
            )
        })?;
        let lock = lock(&path)?;
        for folder in [path.clone(), path.join("adapter"), path.join("model")] {
            remove_leftovers(&folder);
        }
        Ok(Folder { path, _lock: lock, new })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the recipe as resolved and what a resumed run must find unchanged.
    pub fn write_start(&self, recipe: &Recipe, run: &RunFile) -> Result<()> {
        checksum::write_sealed(&self.path.join(START), run)?;
        let text = recipe.to_toml();
        files::write_atomically(&self.path.join("recipe.toml"), |writer| {
            writer.write_all(text.as_bytes())
        })?;
        Ok(())
    }

    /// How the run ended, if it did: the summary is what is written last.
    pub fn finished(&self) -> Option<(Summary, Option<Judgement>)> {
        let read = |name: &str| fs::read_to_string(self.path.join(name)).ok();
        let summary = serde_json::from_str(&read("summary.json")?).ok()?;
        let judgement = read("answers.json").and_then(|text| serde_json::from_str(&text).ok());
        let there = ["adapter", "model"].iter().any(|name| self.path.join(name).is_dir());
        there.then_some((summary, judgement))
    }
}

/// An error if a new run may not be made in the recipe's folder, or there is none to go on with. Nothing is written.
pub fn check(recipe: &Recipe, resume: bool) -> Result<()> {
    let path = &recipe.output;
    let exists = holds_run(path);
    if exists && !resume {
        return Err(Error::input(
            format!("output '{}' holds a run already", path.display()),
            "go on with it by --resume, or choose another place by --set output=...",
        ));
    }
    if !exists && resume {
        return Err(Error::input(
            format!("output '{}' holds no run to resume", path.display()),
            "start it without --resume",
        ));
    }
    if !exists && path.is_dir() && !is_free(path) {
        return Err(Error::input(
            format!("output '{}' is a folder with other files in it", path.display()),
            "choose an empty or new folder by --set output=...",
        ));
    }
    Ok(())
}

/// Reads what the run to go on with was started with.
pub fn read_start(output: &Path) -> Result<RunFile> {
    let path = output.join(START);
    checksum::read_sealed(&path).map_err(|error| {
        Error::input(
            format!("'{}' is damaged: {error}", path.display()),
            "start the run anew in another folder by --set output=...",
        )
    })
}

impl Drop for Folder {
    fn drop(&mut self) {
        if holds_run(&self.path) {
            return;
        }
        remove_leftovers(&self.path);
        for name in [START, LOCK] {
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.new {
            let _ = fs::remove_dir(&self.path); // stays if something else is in it
        }
    }
}

/// Makes the lock file and locks it, or says who has it.
fn lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK);
    loop {
        let lock = File::create(&lock_path).map_err(|error| {
            Error::machine(
                format!("cannot write into output '{}': {error}", path.display()),
                "choose a folder your user may write to, on a disk with space left",
            )
        })?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::input(
                format!("output '{}' is being written by another run", path.display()),
                "wait for it to end, or choose another place by --set output=...",
            ));
        }
        // A run that ended between the two calls took its lock file with it: then this lock is on nothing.
        let same =
            |there: &fs::Metadata| lock.metadata().is_ok_and(|here| here.ino() == there.ino());
        match fs::metadata(&lock_path) {
            Ok(there) if !same(&there) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            _ => return Ok(lock),
        }
    }
}

fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_leftover(&entry.file_name().to_string_lossy()) {
            // Space that is not given back harms nothing else.
            let _ = match entry.path().is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_without_an_output_takes_the_next_free_name_and_resumes_the_last_run() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("model")).unwrap();
        fs::write(path("data.jsonl"), "").unwrap();
        fs::write(
            path("quick.toml"),
            "[model]\npath = \"model\"\n[data]\ntrain = \"data.jsonl\"\n",
        )
        .unwrap();
        let mut recipe = Recipe::read(&path("quick.toml"), &[]).unwrap();
        assert!(recipe.output.ends_with("runs/quick"));
        recipe.output = path("runs/quick");
        let settled = |resume| settle(recipe.clone(), resume).output;
        assert_eq!((settled(false), settled(true)), (path("runs/quick"), path("runs/quick")));
        for (name, file) in
            [("quick", "recipe.toml"), ("quick-2", "recipe.toml"), ("quick-3", ".lock")]
        {
            fs::create_dir_all(path("runs").join(name)).unwrap();
            fs::write(path("runs").join(name).join(file), "").unwrap();
        }
        assert_eq!((settled(false), settled(true)), (path("runs/quick-3"), path("runs/quick-2")));
        recipe.names_output = true;
        assert_eq!(settle(recipe.clone(), false).output, path("runs/quick"), "as it is written");
    }
}
