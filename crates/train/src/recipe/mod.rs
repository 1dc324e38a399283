//! Recipes: what a run does, as written and validated.
//!
//! A recipe is TOML (version 1.0, toml.io). Each table is a room below, declared once: the fields are
//! the keys, their doc comments the reference page. [`Recipe::read`] gives every key a value, refuses
//! what it does not know, and says in which line; [`Recipe::to_toml`] writes the recipe as resolved.
//!
//! ```text
//! source     TOML with places, --set          hints      what a wrong key was meant to be
//! setting    the types of values              reference  all keys, and their page
//! table      the declaration of a table       paths      where relative paths are looked for
//! ```

pub mod model;

pub mod adapter;

pub mod data;

pub mod objective;

pub mod optimizer;

pub mod schedule;

pub mod training;

pub mod generate;

pub mod reference;

mod hints;
mod paths;
mod setting;
mod source;
pub mod sources;
mod table;
#[cfg(test)]
mod tests;

pub use paths::ModelPath;
pub use setting::Bytes;
pub use table::Key;

use crate::error::{Error, Result};
use adapter::Adapter;
use data::Data;
use generate::Generate;
use model::{Model, Quantization};
use objective::{Objective, ObjectiveName};
use optimizer::Optimizer;
use paths::Folders;
use schedule::Schedule;
use source::{Entry, Kind, Tree, find};
use std::io::Read;
use std::path::{Path, PathBuf};
use table::{AT_LEAST_0, Table, table};
use training::Train;

/// A recipe with a value for every key.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The run folder, absolute.
    pub output: PathBuf,
    /// Whether the recipe names it; else a new run takes the next free name.
    pub names_output: bool,
    /// The seed of everything random.
    pub seed: u64,
    /// The model that learns.
    pub model: Model,
    /// The adapter that is trained; none in full fine-tuning.
    pub adapter: Option<Adapter>,
    /// The feedback to learn from.
    pub data: Data,
    /// What is minimized.
    pub objective: Objective,
    /// How gradients move the weights.
    pub optimizer: Optimizer,
    /// How the learning rate runs over the steps.
    pub schedule: Schedule,
    /// How long, in what portions, on what machine.
    pub train: Train,
    /// Answers before and after; none if the recipe does not ask for them.
    pub generate: Option<Generate>,
}

table! {
    /// Before the first table.
    struct Head[""] {
        /// The run folder, which gets the resolved recipe, metrics, checkpoints, adapter and report.
        /// If it exists, only `--resume` may write into it. Unless written, it is `runs/` and the name of
        /// the recipe, with `-2`, `-3` and so on behind it where that holds a run already; `--resume` then
        /// goes on with the last of them.
        pub output: Option<String>;
        /// The seed of everything random: adapter initialization, order of the data, dropout, sampling.
        /// The same seed on the same machine gives the same bytes.
        pub seed: u64 = 42, AT_LEAST_0;
    }
}

/// The longest recipe: a hundred times one with a comment for every key.
const LONGEST: u64 = 256 << 10;

impl Recipe {
    /// Reads and validates the recipe at `path`, with `--set` flags laid over it (`table.key=value`).
    pub fn read(path: &Path, overrides: &[String]) -> Result<Recipe> {
        Self::read_with(path, overrides, true)
    }

    /// As [`Recipe::read`], but what the recipe names (model, data, adapter, prompts) need not exist: a
    /// plan can
    /// be made before the data is there.
    pub fn read_without_files(path: &Path, overrides: &[String]) -> Result<Recipe> {
        Self::read_with(path, overrides, false)
    }

    /// The recipe that a text holds, for plans of what is not on the disk.
    pub fn of_text(text: &str) -> Result<Recipe> {
        let path = Path::new("recipe.toml");
        let folders = Folders::new(path, false)?;
        Self::from_tree(&Tree::parse(&folders.recipe_name, text)?, &folders, path)
    }

    fn read_with(path: &Path, overrides: &[String], must_exist: bool) -> Result<Recipe> {
        let folders = Folders::new(path, must_exist)?;
        let unreadable = |why: String| {
            Error::input(
                format!("cannot read the recipe {}: {why}", path.display()),
                "give the path of a TOML file, such as recipes/quickstart.toml",
            )
        };
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
        read.map_err(|error| unreadable(error.to_string()))?;
        if text.len() as u64 > LONGEST {
            return Err(unreadable(format!("it has more than {LONGEST} bytes")));
        }
        let mut tree = Tree::parse(&folders.recipe_name, &text)?;
        for flag in overrides {
            tree.set(flag)?;
        }
        Self::from_tree(&tree, &folders, path)
    }

    fn from_tree(tree: &Tree, folders: &Folders, path: &Path) -> Result<Recipe> {
        refuse_unknown_at_top(&tree.entries)?;
        let head = Head::read(&tree.head(), folders)?;
        let mut recipe = Recipe {
            names_output: head.output.is_some(),
            output: folders.output(&head.output.unwrap_or_else(|| default_output(path))),
            seed: head.seed,
            model: Model::read(tree.table("model"), folders)?,
            adapter: read_optional(tree, folders)?,
            data: Data::read(tree.table("data"), folders)?,
            objective: Objective::read(tree.table("objective"), folders)?,
            optimizer: Optimizer::read(tree.table("optimizer"), folders)?,
            schedule: Schedule::read(tree.table("schedule"), folders)?,
            train: Train::read(tree.table("train"), folders)?,
            generate: read_optional(tree, folders)?,
        };
        recipe.objective.resolve(tree)?;
        recipe.data.check()?;
        recipe.schedule.resolve(tree)?;
        recipe.train.resolve(&recipe.objective, tree)?;
        match &mut recipe.adapter {
            Some(adapter) => adapter.fill(),
            None => recipe.check_full_fine_tuning(tree)?,
        }
        if recipe.objective.name == ObjectiveName::Sft
            && tree.given("optimizer", "learning_rate").is_none()
        {
            recipe.optimizer.learning_rate = 2e-5; // as TRL's SFTConfig
        }
        Ok(recipe)
    }

    /// An error if the weights are to be trained and held in 4 or 8 bits.
    fn check_full_fine_tuning(&self, tree: &Tree) -> Result<()> {
        if self.model.quantization == Quantization::None {
            return Ok(());
        }
        let bits = if self.model.quantization == Quantization::Int8 { 8 } else { 4 };
        let place = tree.given("model", "quantization").map(|entry| format!(", {}", entry.place));
        Err(Error::input(
            format!(
                "[model] quantization = \"{}\" and no [adapter]: {bits}-bit weights cannot be trained{}",
                self.model.quantization.as_str(),
                place.unwrap_or_default()
            ),
            "add an [adapter] table, or write quantization = \"none\"",
        ))
    }

    /// The recipe as resolved, every default filled in and every path absolute; it reads back the same.
    pub fn to_toml(&self) -> String {
        let head = Head { output: self.output.to_str().map(str::to_owned), seed: self.seed };
        let tables = [
            ("", Some(head.write())),
            (Model::PATH, Some(self.model.write())),
            (Adapter::PATH, self.adapter.as_ref().map(Table::write)),
            (Data::PATH, Some(self.data.write())),
            (Objective::PATH, Some(self.objective.write_used())),
            (Optimizer::PATH, Some(self.optimizer.write())),
            (Schedule::PATH, Some(self.schedule.write())),
            (Train::PATH, Some(self.train.write())),
            (Generate::PATH, self.generate.as_ref().map(Table::write)),
        ];
        let mut text = String::from("# The recipe as resolved: every default filled in.\n");
        for (path, values) in tables {
            let Some(values) = values else { continue };
            if !path.is_empty() {
                text += &format!("\n[{path}]\n");
            }
            for (key, value) in values {
                text += &format!("{key} = {value}\n");
            }
        }
        text
    }
}

/// Reads a table that a recipe may do without.
fn read_optional<T: Table>(tree: &Tree, folders: &Folders) -> Result<Option<T>> {
    find(&tree.entries, T::PATH).map(|_| T::read(tree.table(T::PATH), folders)).transpose()
}

/// `runs/` and the name of the recipe.
fn default_output(path: &Path) -> String {
    format!("runs/{}", path.file_stem().unwrap_or_default().to_string_lossy())
}

/// An error if something at the top is neither a table of recipes nor a key of the top.
fn refuse_unknown_at_top(entries: &[Entry]) -> Result<()> {
    let keys: Vec<&str> = Head::keys().iter().map(|key| key.name).collect();
    let tables: Vec<&str> = reference::tables()
        .iter()
        .map(|table| table.path)
        .filter(|path| !path.is_empty() && !path.contains('.'))
        .collect();
    for Entry { key, value, place } in entries {
        let is_table = matches!(value.kind, Kind::Table(_));
        if tables.contains(&key.as_str()) {
            if !is_table {
                return Err(Error::input(
                    format!(
                        "[{key}] is a table, but {key} = {} is {}, {place}",
                        value.text,
                        value.kind.name()
                    ),
                    format!("write [{key}] in a line of its own, its keys below"),
                ));
            }
        } else if is_table {
            let hint = match hints::for_unknown_table(key, &tables) {
                Some(near) => format!("did you mean [{near}]?"),
                None => format!("the tables are {}", tables.join(", ")),
            };
            return Err(Error::input(format!("unknown table [{key}], {place}"), hint));
        } else if !keys.contains(&key.as_str()) {
            return Err(Error::input(
                format!("unknown key '{key}' at the top, {place}"),
                hints::for_unknown_key("", &keys, key),
            ));
        }
    }
    Ok(())
}
