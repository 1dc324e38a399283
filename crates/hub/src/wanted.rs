//! Which files of a repository are fetched: those that are data, and of these what Prospect reads.

use crate::error::{Error, Result};
use crate::listing::File;
use crate::repository::Repository;

/// Endings of files that run what their author wrote when they are read.
const PICKLES: [&str; 6] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle"];

/// The files of a model: its weights in safetensors, and what lies beside them as JSON, text, template or tokenizer.
pub(crate) fn of_model<'a>(repository: &Repository, files: &'a [File]) -> Result<Vec<&'a File>> {
    let wanted: Vec<&File> = files.iter().filter(|file| is_model_file(&file.path)).collect();
    if wanted.iter().any(|file| ending(&file.path) == "safetensors") {
        return Ok(wanted);
    }
    let pickle = files.iter().find(|file| PICKLES.contains(&ending(&file.path)));
    Err(match pickle {
        Some(pickle) => Error::input(
            format!("'{repository}' has its weights as a pickle alone ({})", pickle.path),
            "a pickle is a program and never fetched; look for a revision with safetensors \
             (owner/name@refs/pr/1), or convert it with `save_pretrained` and give the folder",
        ),
        None => Error::input(
            format!("'{repository}' has no safetensors"),
            "take the repository of the model itself; GGUF and ONNX files cannot be trained",
        ),
    })
}

/// The files of a model but its weights. Their index is left out with them: it says that they are there.
pub(crate) fn of_configuration<'a>(
    repository: &Repository,
    files: &'a [File],
) -> Result<Vec<&'a File>> {
    let weights = |path: &str| ending(path) == "safetensors" || path.ends_with(INDEX);
    let mut wanted = of_model(repository, files)?;
    wanted.retain(|file| !weights(&file.path));
    Ok(wanted)
}

/// What the name of an index ends with.
const INDEX: &str = ".safetensors.index.json";

/// Weights by the names that Hugging Face gives them: a repository may hold them a second time under others.
fn is_model_file(path: &str) -> bool {
    if path == "additional_chat_templates/tool_use.jinja" {
        return true;
    }
    if path.contains('/') {
        return false;
    }
    match ending(path) {
        "safetensors" => path.starts_with("model") || path.starts_with("adapter_model"),
        "json" | "txt" | "jinja" | "model" => true,
        _ => false,
    }
}

/// The rows of a data set: all Parquet and JSONL files, or those at or under `within`; of several splits the ones
/// that `splits` names.
pub(crate) fn of_dataset<'a>(
    repository: &Repository,
    files: &'a [File],
    within: Option<&str>,
    splits: &[&str],
) -> Result<Vec<&'a File>> {
    let rows = |file: &&File| matches!(ending(&file.path), "parquet" | "jsonl");
    let all: Vec<&File> = files.iter().filter(rows).collect();
    if let Some(within) = within {
        let folder = format!("{within}/");
        let there = |file: &&File| file.path == within || file.path.starts_with(&folder);
        let found: Vec<&File> = all.into_iter().filter(there).collect();
        return match found.is_empty() {
            false => Ok(found),
            true => Err(Error::input(
                format!("'{repository}' has no Parquet or JSONL file at '{within}'"),
                names(files),
            )),
        };
    }
    let named: Vec<&File> = all.iter().copied().filter(|file| is_of(&file.path, splits)).collect();
    match (all.as_slice(), named.is_empty()) {
        ([], _) => Err(Error::input(
            format!("'{repository}' has neither Parquet nor JSONL files"),
            format!(
                "the hub converts most data sets: try datasets/{}@refs/convert/parquet",
                repository.id
            ),
        )),
        (_, false) => Ok(named),
        // One file needs no name.
        ([_], true) => Ok(all),
        (_, true) => Err(Error::input(
            format!(
                "'{repository}' has {} files and none is named {}",
                all.len(),
                splits.join(" or ")
            ),
            names(files),
        )),
    }
}

/// Whether a word of the path is one of `splits`: `data/train-00000-of-00002.parquet` is of `train`.
fn is_of(path: &str, splits: &[&str]) -> bool {
    path.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| splits.contains(&word))
}

fn names(files: &[File]) -> String {
    let rows = files.iter().filter(|file| matches!(ending(&file.path), "parquet" | "jsonl"));
    let mut names: Vec<&str> = rows.map(|file| file.path.as_str()).collect();
    let more = names.len().saturating_sub(6);
    names.truncate(6);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("write the file's path behind the name; there are {}{more}", names.join(", "))
}

/// The letters behind a path's last dot.
pub(crate) fn ending(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, ending)| ending)
}
