//! What may stand under `train` and `eval` of `[data]`.

use data::Reading;
use expect_test::{Expect, expect};

use super::Place;

/// The lines of `[data]` that a recipe with these lines is resolved to, or what is wrong with it.
fn check(lines: &str, expected: Expect) {
    let place = Place::new();
    for name in ["folder/a.jsonl", "folder/b.csv"] {
        std::fs::create_dir_all(place.path("folder")).unwrap();
        std::fs::write(place.path(name), "").unwrap();
    }
    let recipe = format!("[model]\npath = \"model\"\n[data]\n{lines}\n");
    let shown = match place.read(&recipe, &[]) {
        Err(error) => error.to_string(),
        Ok(recipe) => {
            let origins = recipe.data.origins().unwrap();
            let mut shown = String::new();
            for origin in origins {
                let files: Vec<String> =
                    origin.files.iter().map(|it| it.display().to_string()).collect();
                let columns: Vec<String> =
                    origin.columns.names.iter().map(|(a, b)| format!("{a}={b}")).collect();
                shown += &format!("{} {}", origin.reading.name(), files.join(" "));
                shown += &format!(" {} {:?}\n", columns.join(","), origin.weight);
            }
            let text = recipe.to_toml();
            let again = place.read(&text, &[]).unwrap();
            assert_eq!(again.data, recipe.data);
            let lines = text.lines().skip_while(|line| *line != "[data]").skip(1);
            let lines =
                lines.take_while(|line| line.starts_with("train") || line.starts_with("eval"));
            shown + &lines.collect::<Vec<_>>().join("\n")
        }
    };
    let folder = format!("{}/", place.folder.path().display());
    expected.assert_eq(&shown.replace(&folder, ""));
}

#[test]
fn sources_are_paths_folders_patterns_and_tables() {
    check("train = \"feedback.jsonl\"", expect![""]);
    check("train = [\"feedback.jsonl\", \"folder\"]\nform = \"unpaired\"", expect![""]);
    check("train = \"folder/*.jsonl\"", expect![""]);
    check(
        "columns = { prompt = \"q\" }\n[[data.train]]\nfiles = [\"feedback.jsonl\", \"folder/a.jsonl\"]\nweight = 3\n\
         [[data.train]]\nfiles = \"folder/b.csv\"\nform = \"chatml.intel\"\ncolumns = { question = \"ask\" }\nweight = 0.5",
        expect![""],
    );
    check(
        "train = [\"feedback.jsonl\", { files = \"folder\", form = \"alpaca\" }, \"feedback.jsonl\"]",
        expect![""],
    );
}

#[test]
fn sources_that_mean_nothing_are_refused() {
    check("train = \"folder/*.parquet\"", expect![""]);
    check("train = 7", expect![""]);
    check("[[data.train]]\nfile = \"feedback.jsonl\"", expect![""]);
    check("[[data.train]]\nweight = 1", expect![""]);
    check("[[data.train]]\nfiles = \"feedback.jsonl\"\nweight = 0", expect![""]);
    check("train = [\"feedback.jsonl\", { files = \"folder\", weight = 1 }]", expect![""]);
    check("train = { files = \"folder\", weight = 1 }\norder = \"sequential\"", expect![""]);
    check("train = \"folder\"\neval = { files = \"folder\", weight = 1 }", expect![""]);
    check("train = \"folder\"\nform = \"share_gpt\"", expect![""]);
    check("train = \"folder\"\ncolumns = { promt = \"q\" }", expect![""]);
    check("train = \"folder\"\ncolumns = { prompt = 1 }", expect![""]);
    check("train = \"folder\"\ncolumns = {}", expect![""]);
    check("train = \"folder\"\ncache = true", expect![""]);
}

#[test]
fn a_flag_takes_the_place_of_all_sources() {
    let place = Place::new();
    let recipe = "[model]\npath = \"model\"\n[[data.train]]\nfiles = \"feedback.jsonl\"\nform = \"alpaca\"\n";
    let path = place.path("feedback.jsonl").display().to_string();
    let recipe = place.read(recipe, &[&format!("data.train={path}")]).unwrap();
    let origins = recipe.data.origins().unwrap();
    assert_eq!((origins.len(), origins[0].reading), (1, Reading::Auto));
}
