//! Makes everything the quickstart needs: a language, a tokenizer, a tiny model that speaks it in two manners, and
//! feedback that prefers one.
//!
//! ```text
//! target/quickstart/corpus.jsonl     what the model is pretrained on           made here
//! target/quickstart/untrained/       the model before                          made here
//! target/quickstart/pretrained/      the run of recipes/quickstart-pretrain    made by `prospect train`
//! assets/quickstart/model/           its result                                made here, with --pretrain
//! assets/quickstart/feedback.jsonl   rated answers                             made here
//! assets/quickstart/pairs.jsonl      the better and the worse of two answers   made here
//! assets/quickstart/prompts.jsonl    questions the model has never seen        made here
//! ```

mod corpus;
mod dice;
mod language;
mod model;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The seed of all of it.
const SEED: u64 = 240_201_306;

const PRETRAIN: &str = "recipes/quickstart-pretrain.toml";

/// Writes the data and the untrained model; with `--pretrain` trains it and keeps the result.
pub(crate) fn run(root: &Path, options: &[&str]) -> Result<(), String> {
    let pretrain = match options {
        [] => false,
        ["--pretrain"] => true,
        _ => return Err("usage: cargo xtask quickstart [--pretrain]".to_owned()),
    };
    let (work, assets) = (root.join("target/quickstart"), root.join("assets/quickstart"));
    let corpus = corpus::Corpus::new(SEED);
    println!("{} topics, {} questions", corpus.topics.len(), corpus.questions);

    write_rows(&work.join("corpus.jsonl"), &corpus.pretraining)?;
    write_rows(&assets.join("feedback.jsonl"), &corpus.feedback)?;
    write_rows(&assets.join("pairs.jsonl"), &corpus.pairs)?;
    write_rows(&assets.join("prompts.jsonl"), &corpus.prompts)?;

    let tokenizer = tokenizer::train(&corpus.texts)?;
    let untrained = work.join("untrained");
    model::write_untrained(&untrained, SEED)?;
    for folder in [&untrained, &assets.join("model")] {
        std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
        tokenizer::write(&tokenizer, folder)?;
    }
    println!("a model of {} weights", model::parameters());

    let trained = work.join("pretrained");
    if !pretrain {
        println!("cargo xtask quickstart --pretrain   trains it as well: {PRETRAIN}");
        return Ok(());
    }
    if trained.exists() {
        std::fs::remove_dir_all(&trained).map_err(|error| unwritable(&trained, &error))?;
    }
    let status = Command::new(crate::cargo())
        .args(["run", "--release", "--package", "prospect", "--", "train", PRETRAIN])
        .current_dir(root)
        .status()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !status.success() {
        return Err("pretraining failed".to_owned());
    }
    model::keep(&trained.join("model"), &assets.join("model"))
}

fn write_rows(path: &Path, rows: &[Value]) -> Result<(), String> {
    println!("{:6} rows in {}", rows.len(), path.display());
    write_bytes(path, self::rows(rows).as_bytes())
}

/// Rows as JSONL.
fn rows(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn write_json(path: &Path, value: &Value) -> Result<(), String> {
    write_bytes(path, format!("{value:#}\n").as_bytes())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    std::fs::write(path, bytes).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}
