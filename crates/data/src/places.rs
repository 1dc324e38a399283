//! Which files are meant by the paths of a recipe: files, folders and patterns.
//!
//! A folder gives all files of data below it, in the order of their paths, as the hub's snapshots and `datasets`'
//! `save_to_disk` have them. Where their names say a split (`train-00000-of-00002.parquet`, `data/test.jsonl`,
//! `validation/...`: the words and places that `datasets` 5.2 knows, `data_files.py`), those of one split are taken,
//! so that nothing is trained on what is to be measured. A pattern has `*`, `?`, `[...]` and `**`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// The words that name a split, with the split they name.
const SPLITS: [(&str, Split); 9] = [
    ("train", Split::Train),
    ("training", Split::Train),
    ("validation", Split::Validation),
    ("valid", Split::Validation),
    ("val", Split::Validation),
    ("dev", Split::Validation),
    ("test", Split::Test),
    ("testing", Split::Test),
    ("eval", Split::Test),
];

/// Files that describe data and are none.
const DESCRIPTIONS: [&str; 4] =
    ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];

/// The most files of a source, and the deepest folder that is looked into.
const MOST: usize = 100_000;
const DEEPEST: usize = 16;

/// What a part of a dataset is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To learn from.
    Train,
    /// To measure with while training.
    Validation,
    /// To measure with at the end.
    Test,
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

/// What files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To learn from.
    Training,
    /// To measure with.
    Measuring,
}

/// Whether a path is a pattern.
pub fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['*', '?', '['])) && !path.exists()
}

/// The files that `paths` mean, in order.
pub fn expand(paths: &[PathBuf], purpose: Purpose) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(of_folder(path, purpose)?);
        } else if is_pattern(path) {
            files.extend(of_pattern(path)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn of_pattern(pattern: &Path) -> Result<Vec<PathBuf>> {
    let shown = pattern.display();
    let wrong = |why: &dyn std::fmt::Display| {
        Error::input(
            format!("'{shown}' is no pattern of paths: {why}"),
            "a pattern has * for any letters, ** for any folders, ? for one letter, [ab] for one of some",
        )
    };
    let text = pattern.to_str().ok_or_else(|| wrong(&"it is not UTF-8"))?;
    // Hidden files are others' business, among them those that are being written.
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let mut found = Vec::new();
    for path in glob::glob_with(text, options).map_err(|error| wrong(&error))? {
        let path = path.map_err(|error| files::reading(error.path(), error.error()))?;
        if path.is_file() {
            found.push(path);
        }
        few(&found, pattern)?;
    }
    if found.is_empty() {
        return Err(Error::input(
            format!("'{shown}' matches no file"),
            "check the pattern: * stands for any letters within a name, ** for any folders",
        ));
    }
    Ok(found)
}

fn few(found: &[PathBuf], place: &Path) -> Result<()> {
    if found.len() <= MOST {
        return Ok(());
    }
    Err(Error::input(
        format!("'{}' has more than {MOST} files", place.display()),
        "name a folder or pattern that holds nothing but the data",
    ))
}

fn of_folder(folder: &Path, purpose: Purpose) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, folder, 0, &mut found)?;
    if found.is_empty() {
        return Err(Error::input(
            format!("there is no file of data in the folder '{}'", folder.display()),
            "data lies in .jsonl, .json, .csv, .tsv, .parquet or .arrow files, compressed (.gz, .zst) or not",
        ));
    }
    let split = |path: &PathBuf| split_of(path.strip_prefix(folder).unwrap_or(path));
    let mut splits: Vec<Split> = Vec::new();
    for split in found.iter().filter_map(split) {
        if !splits.contains(&split) {
            splits.push(split);
        }
    }
    let measured: Vec<Split> = splits.iter().copied().filter(|it| *it != Split::Train).collect();
    let unnamed = found.iter().any(|path| split(path).is_none());
    let chosen = match purpose {
        _ if splits.is_empty() => return Ok(found),
        Purpose::Training if splits.contains(&Split::Train) => Some(Split::Train),
        Purpose::Training if unnamed => None,
        Purpose::Measuring if measured.is_empty() => return Ok(found),
        _ => match measured.as_slice() {
            [one] => Some(*one),
            _ if purpose == Purpose::Training => {
                return Err(several(folder, &splits, "learn from"));
            }
            _ => return Err(several(folder, &splits, "measure with")),
        },
    };
    found.retain(|path| split(path) == chosen);
    Ok(found)
}

fn several(folder: &Path, splits: &[Split], what: &str) -> Error {
    let names: Vec<&str> = splits.iter().map(|split| split.name()).collect();
    Error::input(
        format!(
            "the folder '{}' has the splits {}: which to {what}?",
            folder.display(),
            names.join(", ")
        ),
        format!("name the files, for example \"{}/**/{}*\"", folder.display(), names[0]),
    )
}

/// The files of data below a folder, in the order of their paths. Links to folders are not followed: they may lead
/// anywhere, also back. Links to files are: the hub's snapshots are made of them.
fn walk(top: &Path, folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|error| files::reading(folder, &error))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error: std::io::Error| files::reading(folder, &error))?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '_']) || DESCRIPTIONS.contains(&name.as_ref()) {
            continue;
        }
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|it| it.is_dir());
        if is_folder && depth < DEEPEST {
            walk(top, &path, depth + 1, found)?;
        } else if path.is_file() && files::kind(&path).is_some() {
            found.push(path);
        }
        few(found, top)?;
    }
    Ok(())
}

/// The split that a path within a folder names: by its file, else by the innermost folder that names one.
fn split_of(path: &Path) -> Option<Split> {
    path.iter().rev().find_map(|part| {
        let part = part.to_str()?.to_lowercase();
        let words = part.split(|letter: char| !letter.is_ascii_alphabetic());
        words
            .into_iter()
            .find_map(|word| SPLITS.iter().find(|(name, _)| *name == word).map(|(_, split)| *split))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, "").expect("written");
        }
        folder
    }

    fn check(names: &[&str], given: &str, purpose: Purpose, expected: &str) {
        let folder = folder(names);
        let paths = [folder.path().join(given)];
        let prefix = format!("{}/", folder.path().display());
        let found = match expand(&paths, purpose) {
            Ok(found) => {
                let found: Vec<String> = found
                    .iter()
                    .map(|path| path.display().to_string().replace(&prefix, ""))
                    .collect();
                found.join(" ")
            }
            Err(error) => error.message.replace(&prefix, ""),
        };
        assert_eq!(found, expected, "{names:?} {given}");
    }

    #[test]
    fn a_folder_gives_its_data_in_the_order_of_the_paths() {
        let names =
            ["b.jsonl", "a/2.csv", "a/1.PARQUET", "x.txt", ".h.jsonl", "_m.json", "c.json.gz"];
        let all = "/a/1.PARQUET /a/2.csv /b.jsonl /c.json.gz".replace(" /", " ");
        check(&names, "", Purpose::Training, all.trim_start_matches('/'));
        check(&names, "a", Purpose::Training, "a/1.PARQUET a/2.csv");
        check(&["x.txt"], "a.jsonl", Purpose::Training, "a.jsonl");
        let saved = ["data-00000-of-00001.arrow", "state.json", "dataset_info.json"];
        check(&saved, "", Purpose::Training, "data-00000-of-00001.arrow");
    }

    #[test]
    fn a_folder_with_splits_gives_one_of_them() {
        let hub = [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-0.parquet",
        ];
        check(
            &hub,
            "",
            Purpose::Training,
            "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet",
        );
        check(&hub, "", Purpose::Measuring, "data/test-0.parquet");
        let saved = ["train/data.arrow", "validation/data.arrow", "test/data.arrow"];
        check(&saved, "", Purpose::Training, "train/data.arrow");
        check(&saved, "validation", Purpose::Measuring, "validation/data.arrow");
        check(&["feedback.jsonl", "test.jsonl"], "", Purpose::Training, "feedback.jsonl");
        check(&["feedback.jsonl", "test.jsonl"], "", Purpose::Measuring, "test.jsonl");
        check(
            &["trainer.jsonl", "contest.jsonl"],
            "",
            Purpose::Training,
            "contest.jsonl trainer.jsonl",
        );
        let folder = folder(&saved);
        let error = expand(&[folder.path().into()], Purpose::Measuring).expect_err("must fail");
        assert!(
            error
                .message
                .ends_with("has the splits test, train, validation: which to measure with?")
        );
    }

    #[test]
    fn a_pattern_gives_what_it_matches_and_no_hidden_file() {
        let names = ["a1.jsonl", "a2.jsonl", "b.jsonl", ".a3.jsonl", "in/a4.jsonl"];
        check(&names, "a*.jsonl", Purpose::Training, "a1.jsonl a2.jsonl");
        check(&names, "**/a*.jsonl", Purpose::Training, "a1.jsonl a2.jsonl in/a4.jsonl");
        check(&names, "a[2-9].jsonl", Purpose::Training, "a2.jsonl");
        check(&names, "c*.jsonl", Purpose::Training, "'c*.jsonl' matches no file");
        // A file of that very name is that file.
        check(&["a[2].jsonl", "a2.jsonl"], "a[2].jsonl", Purpose::Training, "a[2].jsonl");
    }

    #[test]
    fn links_to_files_are_followed_and_links_to_folders_are_not() {
        let folder = folder(&["blobs/1", "snapshot/keep.jsonl"]);
        let at = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(at("blobs/1"), at("snapshot/train.jsonl")).expect("link");
        std::os::unix::fs::symlink("/", at("snapshot/all")).expect("link");
        std::os::unix::fs::symlink("/dev/zero", at("snapshot/zero.jsonl")).expect("link");
        let found = expand(&[at("snapshot")], Purpose::Training).expect("files");
        assert_eq!(found, [at("snapshot/train.jsonl")]);
    }
}
