//! Names of the hub in a recipe or a flag: fetched into the cache that Python shares, before anything else is done,
//! and from there on a folder like any other. Its name is the commit, so what a run is checked by says which it was.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use ::hub::error::Fault;
use ::hub::{Event, Hub, Repository};
use ::train::error::{Error, Result};
use ::train::recipe::sources::{DataPath, Source};
use ::train::recipe::{ModelPath, Recipe};
use indicatif::{ProgressBar, ProgressStyle};
use models::config::{Stored, stored_quantization};

use crate::args::RecipeArguments;
use crate::terminal::say;
use crate::words::plain;

/// Words for held-out data in the paths of a data set.
const HELD_OUT: [&str; 4] = ["test", "validation", "eval", "dev"];

/// A recipe with everything it names on this machine.
pub(crate) fn recipe(arguments: &RecipeArguments) -> Result<Recipe> {
    fetched(Recipe::read(&arguments.recipe, &arguments.set)?)
}

/// The same recipe, names of the hub replaced by what they lead to.
fn fetched(recipe: Recipe) -> Result<Recipe> {
    let model = model(&recipe.model.path)?;
    with_rows(recipe, model)
}

/// The same for a plan: of a model on the hub its configuration and tokenizer alone, unless its tensors have to be asked
/// which of them are quantized.
pub(crate) fn fetched_to_plan(recipe: Recipe) -> Result<Recipe> {
    let name = match &recipe.model.path {
        ModelPath::Folder(_) => None,
        ModelPath::Hub(name) => Repository::model(name).filter(|_| !Path::new(name).exists()),
    };
    let folder = match name {
        Some(repository) => {
            let folder = with_hub(|hub, events| hub.configuration(&repository, events))?;
            match stored_quantization(&folder)? {
                Stored::InPart => model(&recipe.model.path)?,
                Stored::Dense | Stored::Throughout(_) => folder,
            }
        }
        None => model(&recipe.model.path)?,
    };
    with_rows(recipe, folder)
}

fn with_rows(mut recipe: Recipe, model: PathBuf) -> Result<Recipe> {
    recipe.model.path = ModelPath::Folder(model);
    recipe.data.train = rows(recipe.data.train, &["train"])?;
    recipe.data.eval = rows(recipe.data.eval, &HELD_OUT)?;
    Ok(recipe)
}

/// The folder of a recipe's model.
pub(crate) fn model(path: &ModelPath) -> Result<PathBuf> {
    match path {
        ModelPath::Folder(folder) => Ok(folder.clone()),
        ModelPath::Hub(name) => folder(Path::new(name)),
    }
}

/// The folder that a flag means: the one of that name, or else the model of the hub.
pub(crate) fn folder(path: &Path) -> Result<PathBuf> {
    let name = path.to_str().filter(|_| !path.exists());
    match name.and_then(Repository::model) {
        None => Ok(path.to_path_buf()),
        Some(repository) => with_hub(|hub, events| hub.model(&repository, events)),
    }
}

/// Files of rows, data sets of the hub replaced by theirs.
fn rows(sources: Vec<Source>, splits: &[&str]) -> Result<Vec<Source>> {
    let mut all = Vec::new();
    for source in sources {
        let mut files = Vec::new();
        for path in source.files {
            let name = path.0.to_str().filter(|_| !path.finds());
            match name.and_then(Repository::dataset) {
                None => files.push(path),
                Some((repository, within)) => {
                    let fetched =
                        with_hub(|hub, events| hub.dataset(&repository, within, splits, events))?;
                    files.extend(fetched.into_iter().map(DataPath));
                }
            }
        }
        all.push(Source { files, ..source });
    }
    Ok(all)
}

fn with_hub<T>(
    fetch: impl FnOnce(&Hub, &mut dyn FnMut(Event<'_>)) -> ::hub::error::Result<T>,
) -> Result<T> {
    let mut shown = Shown { bar: None, before: 0 };
    let result = Hub::of_environment().and_then(|hub| fetch(&hub, &mut |event| shown.tell(&event)));
    if let Some(bar) = shown.bar {
        bar.finish_and_clear();
    }
    result.map_err(|error| match error.fault {
        Fault::Input => Error::input(error.message, error.hint),
        Fault::Machine => Error::machine(error.message, error.hint),
    })
}

/// What is seen of a download: a bar on a terminal, a line for each file elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    /// Bytes of the files before this one.
    before: u64,
}

impl Shown {
    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Begin { repository, commit, files, bytes } => {
                let size = ::train::fit::bytes(*bytes);
                self.line(&format!(
                    "fetching {repository} ({}): {files} files, {size}",
                    &commit[..7]
                ));
                if std::io::stderr().is_terminal() {
                    let style = ProgressStyle::with_template(
                        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
                    );
                    let bar = ProgressBar::new(*bytes);
                    self.bar = Some(style.map_or(bar.clone(), |style| bar.with_style(style)));
                }
            }
            Event::Progress { path, done, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(plain(path));
                    bar.set_position(self.before + done);
                }
            }
            Event::Fetched { path } => match &self.bar {
                Some(bar) => self.before = bar.position(),
                None => self.line(&format!("fetched {path}")),
            },
            Event::Waiting { path } => {
                self.line(&format!("another program fetches {path}: waiting for it"));
            }
            Event::Pause { why, pause } => {
                self.line(&format!("{why}; again in {} s", pause.as_secs_f32().ceil()));
            }
            Event::Older { repository, why } => {
                self.line(&format!("note: {why}; {repository} is taken from the cache, as it was"));
            }
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(&plain(text))),
            None => say(&plain(text)),
        }
    }
}
