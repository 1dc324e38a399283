//! Paths in a recipe: where a relative one is looked for.
//!
//! A relative path of something that is read (model, data, adapter, prompts) means the file beside the
//! recipe if there is one, else the file under the current folder. In a `--set` flag it means the
//! current folder alone, as in any command. Paths come out absolute, so that the recipe as resolved,
//! which lies in the run folder, means the same files from anywhere. Names of the hub (`owner/name`,
//! `datasets/owner/name`) are taken as such only where there is no file of that name.

use super::setting::{Setting, quote};
use super::source::{Kind, Place, Value};
use super::table::At;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The folders that relative paths are looked for in.
pub(super) struct Folders {
    /// The recipe as the user named it, for messages.
    pub(super) recipe_name: String,
    /// Where the recipe lies.
    recipe: PathBuf,
    /// Where the program was started.
    current: PathBuf,
    /// Whether a path at which there is nothing is an error.
    pub(super) must_exist: bool,
}

impl Folders {
    pub(super) fn new(recipe: &Path, must_exist: bool) -> Result<Self> {
        let current = std::env::current_dir().map_err(|error| {
            Error::machine(
                format!("cannot tell the current folder: {error}"),
                "change into a folder that exists",
            )
        })?;
        let folder = current.join(recipe.parent().unwrap_or(Path::new("")));
        if let Some(path) = [&current, &folder].into_iter().find(|path| path.to_str().is_none()) {
            // Its paths could not be written into the resolved recipe.
            return Err(Error::input(
                format!("the path {} is not UTF-8", path.display()),
                "rename the folder",
            ));
        }
        Ok(Folders {
            recipe_name: recipe.display().to_string(),
            recipe: folder,
            current,
            must_exist,
        })
    }

    /// A path of something that will be written, which is always under the current folder.
    pub(super) fn output(&self, path: &str) -> PathBuf {
        self.current.join(path)
    }

    /// The places a path of something to be read is looked for at, in that order.
    pub(super) fn candidates(&self, path: &str, place: &Place) -> Vec<PathBuf> {
        let mut candidates = vec![self.recipe.join(path), self.current.join(path)];
        if matches!(place, Place::Flag(_)) {
            candidates.remove(0);
        }
        candidates.dedup(); // an absolute path, or a recipe in the current folder
        candidates
    }
}

/// The error of a path that was found nowhere.
pub(super) fn missing(at: &At, value: &Value, candidates: &[PathBuf], also: &str) -> Error {
    let looked: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    at.wrong_with(value, "does not exist", format!("looked for {}{also}", looked.join(" and ")))
}

impl Setting for PathBuf {
    fn expects() -> String {
        "a path".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        let text = match &value.kind {
            Kind::String(text) if text.is_empty() => return Err(at.wrong(value, "is empty")),
            Kind::String(text) => text,
            _ => return Err(at.wrong_type(value)),
        };
        let candidates = folders.candidates(text, &value.place);
        match candidates.iter().find(|path| path.exists()) {
            Some(path) => Ok(path.clone()),
            // The name of a data set on the hub stays one: it is the only relative path that comes out.
            None if hub::Repository::dataset(text).is_some() => Ok(PathBuf::from(text)),
            None if folders.must_exist => Err(missing(at, value, &candidates, "")),
            None => Ok(folders.current.join(text)),
        }
    }

    fn write(&self) -> Option<String> {
        self.to_str().map(quote)
    }
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelPath {
    /// A folder in the form of Hugging Face: `config.json`, safetensors, tokenizer.
    Folder(PathBuf),
    /// A repository of the hub, `owner/name` or `owner/name@revision`.
    Hub(String),
}

impl Setting for ModelPath {
    fn expects() -> String {
        "a folder or a hub id".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        let Kind::String(text) = &value.kind else { return Err(at.wrong_type(value)) };
        let candidates = folders.candidates(text, &value.place);
        let exists = candidates.iter().any(|path| path.exists());
        if !exists && hub::Repository::model(text).is_some() {
            return Ok(ModelPath::Hub(text.clone()));
        }
        if !exists && folders.must_exist {
            return Err(missing(at, value, &candidates, "; a hub id has the form owner/name"));
        }
        PathBuf::read(at, value, folders).map(ModelPath::Folder)
    }

    fn write(&self) -> Option<String> {
        match self {
            ModelPath::Folder(folder) => folder.write(),
            ModelPath::Hub(id) => Some(quote(id)),
        }
    }
}
