//! Which versions of a package take which versions of the others: computed from the index, releases with equal
//! requirements in one row.

use super::builds;
use super::index::{Index, Release};
use crate::error::{Error, Result};
use crate::python::dist::normal;
use crate::python::requirements::plain;
use serde::Deserialize;

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// The column heads.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// What the numbers mean, behind a table that people read.
    pub notes: Vec<String>,
}

/// How a table is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns of text.
    #[default]
    Text,
    /// Comma-separated values.
    Csv,
    /// A Markdown table.
    Markdown,
}

const COLUMNS: &[&str] = &[
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "peft",
    "bitsandbytes",
    "unsloth-zoo",
    "xformers",
    "tokenizers",
    "huggingface-hub",
];

/// What `imports` is computed from: made by `data/make_imports.py` from the wheels.
const IMPORTS: &str = include_str!("../../data/imports.json");

#[derive(Deserialize)]
struct Imports {
    date: String,
    transformers: Vec<String>,
    rows: Vec<ImportsOf>,
}

#[derive(Deserialize)]
struct ImportsOf {
    package: String,
    version: String,
    /// By release of transformers.
    missing: Vec<Vec<String>>,
}

/// How many names a release of trl or peft imports from transformers that a release of that lacks.
fn imports() -> Matrix {
    let Ok(all) = serde_json::from_str::<Imports>(IMPORTS) else { return Matrix::default() };
    let mut rows: Vec<(String, Vec<String>, String, String)> = Vec::new();
    // Package, first and last of neighbouring releases, and what both lack of the newest transformers.
    let mut names: Vec<(String, String, String, String)> = Vec::new();
    for ImportsOf { package, version, missing } in all.rows {
        let count = |lacks: &Vec<String>| match lacks.len() {
            0 => ".".to_string(),
            n => n.to_string(),
        };
        let cells: Vec<String> = missing.iter().map(count).collect();
        if let Some(lacks) = missing.last().filter(|lacks| !lacks.is_empty()) {
            let lacks = lacks.join(", ");
            match names.last_mut() {
                Some((name, _, last, same)) if *name == package && *same == lacks => {
                    last.clone_from(&version);
                }
                _ => names.push((package.clone(), version.clone(), version.clone(), lacks)),
            }
        }
        match rows.last_mut() {
            Some((name, have, _, last)) if *name == package && *have == cells => *last = version,
            _ => rows.push((package, cells, version.clone(), version)),
        }
    }
    let span = |first: String, last: String| {
        if first == last { first } else { format!("{first} .. {last}") }
    };
    let rows = rows.into_iter().map(|(package, cells, first, last)| {
        std::iter::once(format!("{package} {}", span(first, last))).chain(cells).collect()
    });
    let newest = all.transformers.last().cloned().unwrap_or_default();
    let mut notes = vec![
        format!("Names imported from transformers, at the top of a file and unconditionally, that the release lacks; computed from the wheels on {}.", all.date),
        "A number says that something in the package fails to import, not that the package does: a file may be imported late or never.".into(),
    ];
    notes.extend(names.into_iter().map(|(package, first, last, lacks)| {
        format!("{package} {} under {newest} lacks {lacks}", span(first, last))
    }));
    let head = std::iter::once("imports".to_string()).chain(all.transformers).collect();
    Matrix { head, rows: rows.collect(), notes }
}

/// flash-attn's prebuilt wheels, which no metadata names.
fn flash_attn() -> Matrix {
    let head = ["flash-attn", "torch", "CUDA tag", "python", "glibc"].map(String::from).to_vec();
    let rows = builds::FLASH_WHEELS.iter().map(|wheels| {
        let torch: Vec<String> = wheels.torch.iter().map(|minor| format!("2.{minor}")).collect();
        let python = format!("3.{} .. 3.{}", wheels.python.start(), wheels.python.end());
        vec![
            wheels.version.to_string(),
            torch.join(" "),
            format!("cu{}", wheels.cuda),
            python,
            wheels.glibc.to_string(),
        ]
    });
    let notes = vec![
        "Of the prebuilt wheels on GitHub, the one taken for each torch; PyPI has sources alone.".into(),
        "A name: flash_attn-VERSION+CUDAtorchX.Ycxx11abi{TRUE,FALSE}-cp312-cp312-linux_x86_64.whl; TRUE from torch 2.7 on.".into(),
        "No wheel fits torch 2.9 and newer here, or CUDA 13. A build needs nvcc, ninja and about 9 GB of memory a job (MAX_JOBS); torch's own attention (SDPA) has FlashAttention-2 since 2.2.".into(),
    ];
    Matrix { head, rows: rows.collect(), notes }
}

/// The matrix of a package; `imports` is that of the imports between wheels, which metadata do not tell.
pub fn matrix(index: &Index, name: &str) -> Result<Matrix> {
    let name = normal(name);
    match name.as_str() {
        "imports" => return Ok(imports()),
        "flash-attn" => return Ok(flash_attn()),
        _ => {}
    }
    if !index.has(&name) {
        let names: Vec<&str> = index.names().collect();
        return Err(Error::input(
            format!("no matrix of '{name}'"),
            format!("the index knows imports, {}", names.join(", ")),
        ));
    }
    let releases = index.releases(&name);
    let columns: Vec<&str> = COLUMNS
        .iter()
        .copied()
        .filter(|c| *c != name && releases.iter().any(|r| cell(r, c) != "any"))
        .collect();
    let mut rows: Vec<(Vec<String>, &Release, &Release)> = Vec::new();
    for release in releases {
        let python =
            release.python.as_ref().map_or(String::new(), |p| p.to_string().replace(' ', ""));
        let mut cells = vec![python];
        cells.extend(columns.iter().map(|c| cell(release, c)));
        match rows.last_mut() {
            Some((have, _, last)) if *have == cells => *last = release,
            _ => rows.push((cells, release, release)),
        }
    }
    let mut head = vec![name, "python".to_string()];
    head.extend(columns.iter().map(|c| c.to_string()));
    let rows = rows.into_iter().map(|(cells, first, last)| {
        let versions = match first.version == last.version {
            true => first.version.to_string(),
            false => format!("{} .. {}", first.version, last.version),
        };
        std::iter::once(versions).chain(cells).collect()
    });
    Ok(Matrix { head, rows: rows.collect(), notes: Vec::new() })
}

/// What a release asks of another package: without an extra, or else `(extra)`.
fn cell(release: &Release, other: &str) -> String {
    let ours = release.needs();
    let about: Vec<_> = ours.iter().filter(|n| normal(n.name.as_ref()) == other).collect();
    let bare = |text: String| match text.strip_prefix(other) {
        Some("") | None => "any version".to_string(),
        Some(rest) => rest.to_string(),
    };
    let base: Vec<String> = about
        .iter()
        .filter(|n| !n.to_string().contains("extra =="))
        .map(|n| bare(plain(n)))
        .collect();
    if !base.is_empty() {
        let mut base = base;
        base.dedup();
        return base.join(" and ");
    }
    let mut extra: Vec<String> = about.iter().map(|n| bare(plain(n))).collect();
    extra.sort();
    extra.dedup();
    match extra.len() {
        0 => "any".into(),
        1 => format!("{} (extra)", extra[0]),
        n => format!("{n} extras differ"),
    }
}

impl Matrix {
    /// Writes the table.
    pub fn write(&self, format: Format) -> String {
        let lines = std::iter::once(&self.head).chain(&self.rows);
        match format {
            Format::Csv => {
                let quote =
                    |c: &String| if c.contains(',') { format!("\"{c}\"") } else { c.clone() };
                lines
                    .map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\n")
                    .collect()
            }
            Format::Markdown => {
                let rule = format!("|{}\n", "---|".repeat(self.head.len()));
                let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
                let notes = self.notes.iter().map(|note| format!("\n{note}\n"));
                line(&self.head)
                    + &rule
                    + &self.rows.iter().map(line).collect::<String>()
                    + &notes.collect::<String>()
            }
            Format::Text => {
                let width =
                    |i: usize| lines.clone().map(|row| row[i].chars().count()).max().unwrap_or(0);
                let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
                let line = |row: &Vec<String>| {
                    let cells =
                        row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
                    cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
                };
                let gap = if self.notes.is_empty() { "" } else { "\n" };
                let notes = self.notes.iter().map(|note| format!("{note}\n"));
                lines.map(line).collect::<String>() + gap + &notes.collect::<String>()
            }
        }
    }
}
