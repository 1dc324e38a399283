//! Which versions of a package take which versions of the others: computed from the index, releases with equal
//! requirements in one row.

use super::index::{Index, Release};
use crate::error::{Error, Result};
use crate::python::dist::normal;
use crate::python::requirements::plain;

/// A table.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The column heads.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
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

/// The matrix of a package.
pub fn matrix(index: &Index, name: &str) -> Result<Matrix> {
    let name = normal(name);
    if !index.has(&name) {
        let names: Vec<&str> = index.names().collect();
        return Err(Error::input(
            format!("no matrix of '{name}'"),
            format!("the index knows {}", names.join(", ")),
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
    Ok(Matrix { head, rows: rows.collect() })
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
                line(&self.head) + &rule + &self.rows.iter().map(line).collect::<String>()
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
                lines.map(line).collect()
            }
        }
    }
}
