//! The sources of `[data]`: files, folders and patterns, each alone or as a table with a form, columns and a weight.

use std::path::{Path, PathBuf};

use data::places::{self, Purpose};
use data::records::formats::{Format, TARGETS};
use data::{Origin, Reading, records};

use super::paths::{Folders, missing};
use super::setting::{Setting, any_of, quote, read_choice};
use super::source::{Kind, Value};
use super::table::{ABOVE_0, At, Table, table};
use crate::error::{Error, Result};
use crate::recipe::hints;

table! {
    /// `[[data.train]]` and `[[data.eval]]`: a source of its own, where the data is more than files of one form.
    pub struct Source["data.train"] {
        /// Files, folders and patterns, as in `[data]`.
        pub files: Vec<DataPath>;
        /// The form of its rows, in place of that of `[data]`.
        pub form: Option<FormName>;
        /// Its columns, in place of those of `[data]`.
        pub columns: Option<Columns>;
        /// How its texts are put together, in place of what `[data]` says.
        pub formats: Option<Formats>;
        /// Its share of an epoch: `0.7` beside `0.3` is 70 %, and so is `7` beside `3`. Either every source of
        /// `train` has a weight or none has; without weights every example comes once in an epoch. With weights an
        /// epoch has as many examples as all sources together, and of each exactly its share: a source that gives
        /// more than it has repeats itself, and one that gives less goes on in the next epoch where it stopped, so
        /// that nothing comes twice before all else came once. Which examples, and where in the epoch, is drawn from
        /// `seed`; thumbs up and down stay spread over the batches. Not for `eval`, and not with
        /// `order = "sequential"`.
        pub weight: Option<f64>, ABOVE_0;
    }
}

/// A source may be written as one path.
impl Setting for Source {
    fn expects() -> String {
        "a path".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::Table(entries) => Table::read(entries, folders),
            _ => Ok(Source::of(DataPath::read(at, value, folders)?)),
        }
    }

    fn write(&self) -> Option<String> {
        if let (true, [path]) = (self.is_plain(), self.files.as_slice()) {
            return path.write();
        }
        let keys: Vec<String> =
            Table::write(self).iter().map(|(key, value)| format!("{key} = {value}")).collect();
        Some(format!("{{ {} }}", keys.join(", ")))
    }
}

impl Source {
    /// One path and nothing else.
    pub fn of(path: DataPath) -> Source {
        Source { files: vec![path], form: None, columns: None, formats: None, weight: None }
    }

    /// Whether it says nothing but its files.
    fn is_plain(&self) -> bool {
        self.form.is_none()
            && self.columns.is_none()
            && self.formats.is_none()
            && self.weight.is_none()
    }
}

/// The origins that sources are; what they do not say of form, columns and formats is said by those given. Paths that
/// stand beside one another and say nothing else are one origin, whose rows all have one form.
pub(super) fn origins(
    sources: &[Source],
    form: Option<FormName>,
    columns: Option<&Columns>,
    formats: Option<&Formats>,
    purpose: Purpose,
) -> Result<Vec<Origin>> {
    let mut origins: Vec<Origin> = Vec::new();
    let mut last_plain = false;
    for source in sources {
        let paths: Vec<PathBuf> = source.files.iter().map(|path| path.0.clone()).collect();
        let files = places::expand(&paths, purpose)?;
        let plain = source.is_plain();
        match origins.last_mut() {
            Some(last) if plain && last_plain => last.files.extend(files),
            _ => origins.push(Origin {
                files,
                reading: source.form.or(form).map_or(Reading::Auto, |form| form.0),
                columns: data::Columns {
                    names: source
                        .columns
                        .as_ref()
                        .or(columns)
                        .map_or(Vec::new(), |it| it.0.clone()),
                    formats: source
                        .formats
                        .as_ref()
                        .or(formats)
                        .map_or(Vec::new(), |it| it.0.clone()),
                },
                weight: source.weight,
            }),
        }
        last_plain = plain;
    }
    Ok(origins)
}

/// What makes a path a pattern.
const PATTERN: [char; 3] = ['*', '?', '['];

/// A file, a folder or a pattern of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPath(pub PathBuf);

impl DataPath {
    /// Whether there is such a file or folder, or a file that the pattern fits.
    pub fn finds(&self) -> bool {
        let pattern = self.0.to_str().is_some_and(|text| text.contains(PATTERN));
        let expands = || places::expand(std::slice::from_ref(&self.0), Purpose::Training).is_ok();
        self.0.exists() || pattern && expands()
    }
}

impl Setting for DataPath {
    fn expects() -> String {
        "a path".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        if let Kind::String(text) = &value.kind
            && text.contains(PATTERN)
        {
            let candidates = folders.candidates(text, &value.place);
            let mut paths = candidates.iter().map(|path| DataPath(path.clone()));
            return match paths.find(DataPath::finds) {
                Some(path) => Ok(path),
                None if folders.must_exist => Err(missing(at, value, &candidates, "")),
                None => Ok(DataPath(folders.output(text))),
            };
        }
        PathBuf::read(at, value, folders).map(DataPath)
    }

    fn write(&self) -> Option<String> {
        self.0.write()
    }
}

/// The name of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormName(pub Reading);

impl Setting for FormName {
    fn expects() -> String {
        any_of(&Reading::ALL.map(|(name, _)| name))
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        let name = read_choice(at, value, &Reading::ALL.map(|(name, _)| name))?;
        let found = Reading::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, reading)| FormName(*reading)).ok_or_else(|| at.wrong_type(value))
    }

    fn write(&self) -> Option<String> {
        Some(quote(self.0.name()))
    }
}

/// Which columns of a file are meant by the names of the forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(pub Vec<(String, String)>);

impl Setting for Columns {
    fn expects() -> String {
        "a table such as { prompt = \"question\" }".to_owned()
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        let Kind::Table(entries) = &value.kind else { return Err(at.wrong_type(value)) };
        let known = records::reading::KNOWN;
        let mut names = Vec::new();
        for entry in entries {
            if !known.contains(&entry.key.as_str()) {
                let hint = match hints::nearest(&entry.key, &known) {
                    Some(near) => {
                        format!("did you mean '{near}'? The column stands behind the name")
                    }
                    None => format!(
                        "columns = {{ NAME = \"COLUMN\" }}, where a name is one of {}",
                        known.join(", ")
                    ),
                };
                return Err(Error::input(
                    format!("no form has the name '{}' in columns, {}", entry.key, entry.place),
                    hint,
                ));
            }
            match &entry.value.kind {
                Kind::String(column) if !column.is_empty() => {
                    names.push((entry.key.clone(), column.clone()));
                }
                _ => return Err(at.wrong(&entry.value, "is no name of a column")),
            }
        }
        match names.is_empty() {
            true => Err(at.wrong(value, "names no column")),
            false => Ok(Columns(names)),
        }
    }

    fn write(&self) -> Option<String> {
        let names = self.0.iter().map(|(name, column)| format!("{name} = {}", quote(column)));
        Some(format!("{{ {} }}", names.collect::<Vec<_>>().join(", ")))
    }
}

/// How texts are put together from columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formats(pub Vec<(String, Format)>);

impl Setting for Formats {
    fn expects() -> String {
        "a table such as { prompt = \"Q: {prompt}\\nA:\" }".to_owned()
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        let Kind::Table(entries) = &value.kind else { return Err(at.wrong_type(value)) };
        let mut formats = Vec::new();
        for entry in entries {
            let wrong = |what: &str| {
                Error::input(
                    format!("formats.{} {what}, {}", entry.key, entry.place),
                    format!(
                        "formats = {{ TEXT = \"... {{NAME}} ...\" }}: a text is one of {}, a name one of {}; a brace itself is {{{{ or }}}}",
                        TARGETS.join(", "),
                        records::reading::KNOWN.join(", ")
                    ),
                )
            };
            if !TARGETS.contains(&entry.key.as_str()) {
                return Err(wrong("is no text that is learnt from"));
            }
            let Kind::String(text) = &entry.value.kind else { return Err(wrong("is no string")) };
            formats.push((entry.key.clone(), Format::read(text).map_err(|why| wrong(&why))?));
        }
        match formats.is_empty() {
            true => Err(at.wrong(value, "writes no text")),
            false => Ok(Formats(formats)),
        }
    }

    fn write(&self) -> Option<String> {
        let each = self.0.iter().map(|(name, format)| format!("{name} = {}", quote(format.text())));
        Some(format!("{{ {} }}", each.collect::<Vec<_>>().join(", ")))
    }
}

/// Where tokens are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFolder {
    /// In this folder.
    At(PathBuf),
    /// Nowhere.
    Off,
}

impl Setting for CacheFolder {
    fn expects() -> String {
        "a path or false".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::Boolean(false) => Ok(CacheFolder::Off),
            Kind::String(text) if text.is_empty() => Err(at.wrong(value, "is empty")),
            Kind::String(text) => Ok(CacheFolder::At(folders.output(text))),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        match self {
            CacheFolder::At(folder) => folder.write(),
            CacheFolder::Off => Some("false".to_owned()),
        }
    }
}

/// The folder of tokens of a recipe that names none: below the user's cache.
pub(super) fn default_cache() -> Option<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    cache.is_absolute().then(|| cache.join(Path::new("prospect/tokens")))
}
