//! Recipes read in a folder of their own, with a model, data and prompts beside them.

mod bad_keys;
mod bad_values;
mod flags;
mod reference;
mod resolved;
mod sources;

use super::Recipe;
use crate::error::Result;
use std::path::PathBuf;
use tempfile::TempDir;

/// A folder with everything a recipe may name.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["model", "start"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["feedback.jsonl", "more.jsonl", "held-out.jsonl", "prompts.jsonl"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, recipe: &str, flags: &[&str]) -> Result<Recipe> {
        let path = self.path("recipe.toml");
        std::fs::write(&path, recipe).unwrap();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Recipe::read(&path, &flags)
    }

    /// The message of a recipe that cannot be read, without the folder.
    fn error(&self, recipe: &str, flags: &[&str]) -> String {
        let folder = format!("{}/", self.folder.path().display());
        let current = format!("{}/", std::env::current_dir().unwrap().display());
        match self.read(recipe, flags) {
            Ok(recipe) => panic!("the recipe was accepted:\n{}", recipe.to_toml()),
            Err(error) => error.to_string().replace(&folder, "").replace(&current, "HERE/"),
        }
    }
}

/// The shortest recipe there is; further lines go into its last table, `[data]`, or below it.
const SHORTEST: &str = "[model]\npath = \"model\"\n[data]\ntrain = \"feedback.jsonl\"\n";
