//! Which room may depend on which, read from the manifests.

use super::Report;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The allowed edges, development dependencies included. `cli` puts all rooms together.
const EDGES: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("objectives", &[]),
    ("data", &[]),
    ("hub", &[]),
    ("models", &["engine", "data"]),
    ("train", &["models", "engine", "objectives", "data", "hub"]),
    ("planner", &["train", "models", "engine"]),
    ("doctor", &["engine"]),
    ("web", &["train", "planner", "doctor"]),
    (
        "cli",
        &["engine", "objectives", "data", "hub", "models", "train", "planner", "doctor", "web"],
    ),
];

/// Every crate depends only on the rooms it may.
pub(super) fn edges(root: &Path) -> Report {
    let mut report = Report::default();
    let Ok(entries) = std::fs::read_dir(root.join("crates")) else { return report };
    let mut rooms: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    rooms.sort();
    for room in rooms {
        let file = format!("crates/{room}/Cargo.toml");
        let Ok(text) = std::fs::read_to_string(root.join(&file)) else { continue };
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == room) else {
            report.finding(
                file,
                1,
                "the room is not on the map",
                "give it its edges in xtask/src/tidy/edges.rs",
            );
            continue;
        };
        match DeTable::parse(&text) {
            Ok(manifest) => {
                for (line, dependency) in dependencies(manifest.get_ref(), &text) {
                    let is_room = EDGES.iter().any(|(name, _)| *name == dependency);
                    if is_room && !allowed.contains(&dependency.as_str()) {
                        let may = if allowed.is_empty() {
                            "no other room".to_owned()
                        } else {
                            allowed.join(", ")
                        };
                        let problem = format!("{room} depends on {dependency}");
                        report.finding(&file, line, problem, format!("{room} may depend on {may}"));
                    }
                }
            }
            Err(error) => {
                report.finding(file, 1, format!("no valid TOML: {}", error.message()), "mend it")
            }
        }
    }
    report
}

/// The dependencies of a manifest of every kind and for every target, by the name of the room, with their lines.
fn dependencies(manifest: &DeTable<'_>, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (key, value) in manifest.iter() {
        let DeValue::Table(table) = value.get_ref() else { continue };
        if key.get_ref().ends_with("dependencies") {
            for (name, value) in table.iter() {
                let package =
                    value.get_ref().get("package").and_then(|package| package.get_ref().as_str());
                let name = package.unwrap_or(name.get_ref().as_ref());
                let room = match name {
                    "prospect" => "cli",
                    name => name.strip_prefix("prospect-").unwrap_or(name),
                };
                found.push((1 + text[..value.span().start].matches('\n').count(), room.to_owned()));
            }
        } else if key.get_ref() == "target" {
            for target in table.values() {
                if let DeValue::Table(target) = target.get_ref() {
                    found.extend(dependencies(target, text));
                }
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::found;
    use super::*;

    #[test]
    fn forbidden_edges_of_every_kind_are_found() {
        let files = [
            (
                "crates/models/Cargo.toml",
                "[dependencies]\nengine.workspace = true\ntrain.workspace = true\nserde = \"1\"\n",
            ),
            (
                "crates/data/Cargo.toml",
                "[dependencies]\n[dev-dependencies]\nx = { package = \"prospect-engine\", path = \"\" }\n",
            ),
            (
                "crates/engine/Cargo.toml",
                "[target.'cfg(unix)'.build-dependencies]\ndata.workspace = true\n",
            ),
            ("crates/train/Cargo.toml", "[dependencies]\nobjectives = { workspace = true }\n"),
            ("crates/attic/Cargo.toml", "[package]\n"),
        ];
        let expected = [
            "crates/attic/Cargo.toml:1",
            "crates/data/Cargo.toml:3",
            "crates/engine/Cargo.toml:2",
            "crates/models/Cargo.toml:3",
        ];
        assert_eq!(found(edges, &files), expected);
    }
}
