//! Every key of a recipe in one list, and the reference page made of it.

use super::Head;
use super::adapter::Adapter;
use super::data::Data;
use super::generate::{Desirable, Generate};
use super::model::Model;
use super::objective::Objective;
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use super::sources::Source;
use super::table::{Key, Table};
use super::training::Train;

/// A table of a recipe with its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOfKeys {
    /// The name between the brackets, `""` for the keys at the top.
    pub path: &'static str,
    /// What the table is about.
    pub doc: &'static str,
    /// Its keys, in the order they are written in.
    pub keys: Vec<Key>,
}

/// All tables of a recipe, in the order they are written in.
pub fn tables() -> Vec<TableOfKeys> {
    fn of<T: Table>() -> TableOfKeys {
        TableOfKeys { path: T::PATH, doc: T::DOC, keys: T::keys() }
    }
    vec![
        of::<Head>(),
        of::<Model>(),
        of::<Adapter>(),
        of::<Data>(),
        of::<Source>(),
        of::<Objective>(),
        of::<Optimizer>(),
        of::<Schedule>(),
        of::<Train>(),
        of::<Generate>(),
        of::<Desirable>(),
    ]
}

/// The reference page `docs/recipes.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "<!-- Made by `cargo xtask docs` from crates/train/src/recipe; edit the doc comments there. -->\n\n\
         # Recipes\n\n\
         A recipe is a TOML file that says what a run does: `prospect train RECIPE`. Every key is here. A key that is\n\
         not, a value of another type or an impossible value is an error with file, line and a hint.\n\n\
         `--set table.key=value` overrides a key, for example `--set optimizer.learning_rate=1e-5`; names and paths need\n\
         no quotes. A flag for `train.max_steps` replaces the file's `train.epochs`, and the other way round, and so do\n\
         `schedule.warmup_steps` and `schedule.warmup_ratio`.\n\n\
         A relative path of something that is read means the file beside the recipe if there is one, else the file under\n\
         the current folder; in a flag, the current folder alone. `output` is under the current folder.\n\n\
         Defaults are those of TRL 1.16 and transformers 5.23 where the key is theirs, and say so where they are not.\n",
    );
    for table in tables() {
        let heading = match table.path {
            "" => "At the top".to_owned(),
            path => format!("[{path}]"),
        };
        page += &format!(
            "\n## {heading}\n\n{}\n\n| key | value | default | |\n|---|---|---|---|\n",
            one_line(table.doc)
        );
        for key in &table.keys {
            let default = match (&key.default, key.required) {
                (Some(default), _) => format!("`{default}`"),
                (None, true) => "must be written".to_owned(),
                (None, false) => "—".to_owned(),
            };
            let cells = [key.expects.as_str(), default.as_str(), &one_line(key.doc)]
                .map(|cell| cell.replace('|', "\\|"));
            page += &format!("| `{}` | {} |\n", key.name, cells.join(" | "));
        }
    }
    page
}

/// A doc comment as one line.
fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
