//! What may stand under `train` and `eval` of `[data]`.

use data::Reading;

use super::Place;

/// The sources that these lines of `[data]` mean, how they are written in the recipe as resolved, or what is wrong with
/// them: all of these words.
fn check(lines: &str, expected: &[&str]) {
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
    let shown = shown.replace(&folder, "");
    for part in expected {
        assert!(shown.contains(part), "{lines}\n\ngives\n\n{shown}\n\nwithout\n\n{part}");
    }
}

#[test]
fn sources_are_paths_folders_patterns_and_tables() {
    check(
        "train = \"feedback.jsonl\"",
        &["auto feedback.jsonl  None\n", "train = [\"feedback.jsonl\"]"],
    );
    check(
        "train = [\"feedback.jsonl\", \"folder\"]\nform = \"unpaired\"",
        &[
            "unpaired feedback.jsonl folder/a.jsonl folder/b.csv  None\n",
            "train = [\"feedback.jsonl\", \"folder\"]",
        ],
    );
    check(
        "train = \"folder/*.jsonl\"",
        &["auto folder/a.jsonl  None\n", "train = [\"folder/*.jsonl\"]"],
    );
    check(
        "columns = { prompt = \"q\" }\n[[data.train]]\nfiles = [\"feedback.jsonl\", \"folder/a.jsonl\"]\nweight = 3\n\
         [[data.train]]\nfiles = \"folder/b.csv\"\nform = \"chatml.intel\"\ncolumns = { question = \"ask\" }\nweight = 0.5",
        &[
            "auto feedback.jsonl folder/a.jsonl prompt=q Some(3.0)\n",
            "chatml.intel folder/b.csv question=ask Some(0.5)\n",
            "{ files = [\"folder/b.csv\"], form = \"chatml.intel\", columns = { question = \"ask\" }, weight = 0.5 }",
        ],
    );
    check(
        "train = { files = \"folder/b.csv\", form = \"user_defined\", columns = { prompt = \"ask\" }, \
         formats = { prompt = \"Q: {prompt}\\nA:\" } }",
        &[
            "user_defined folder/b.csv prompt=ask None\n",
            r#"form = "user_defined", columns = { prompt = "ask" }, formats = { prompt = "Q: {prompt}\nA:" } }"#,
        ],
    );
    check(
        "train = [\"feedback.jsonl\", { files = \"folder\", form = \"alpaca\" }, \"feedback.jsonl\"]",
        &[
            "auto feedback.jsonl  None\nalpaca folder/a.jsonl folder/b.csv  None\nauto feedback.jsonl  None\n",
        ],
    );
}

#[test]
fn sources_that_mean_nothing_are_refused() {
    check("train = \"folder/*.parquet\"", &["does not exist", "hint: looked for"]);
    check(
        "train = 7",
        &["[data] train = 7 is an integer", "hint: write a path or a list of paths"],
    );
    check(
        "[[data.train]]\nfile = \"a\"",
        &["unknown key 'file' in [data.train]", "did you mean 'files'?"],
    );
    check("[[data.train]]\nweight = 1", &["'files' is missing in [data.train]"]);
    check(
        "[[data.train]]\nfiles = \"feedback.jsonl\"\nweight = 0",
        &["weight = 0 is out of range"],
    );
    check(
        "train = [\"feedback.jsonl\", { files = \"folder\", weight = 1 }]",
        &["has no weight, but others have"],
    );
    check(
        "train = { files = \"folder\", weight = 1 }\norder = \"sequential\"",
        &["keeps the order of the files"],
    );
    check(
        "train = \"folder\"\neval = { files = \"folder\", weight = 1 }",
        &["eval: the source of 'folder' has a weight"],
    );
    check("train = \"folder\"\nform = \"share_gpt\"", &["did you mean \"sharegpt\"?"]);
    check(
        "train = \"folder\"\ncolumns = { promt = \"q\" }",
        &["no form has the name 'promt'", "did you mean 'prompt'?"],
    );
    check("train = \"folder\"\ncolumns = { prompt = 1 }", &["is no name of a column"]);
    check("train = \"folder\"\ncolumns = {}", &["names no column"]);
    check(
        "train = \"folder\"\nformats = { prompt = \"{ask}\" }",
        &["formats.prompt names {ask}, which no form has", "a text is one of prompt, completion"],
    );
    check(
        "train = \"folder\"\nformats = { label = \"{prompt}\" }",
        &["formats.label is no text that is learnt from"],
    );
    check("train = \"folder\"\nformats = { prompt = 3 }", &["formats.prompt is no string"]);
    check("train = \"folder\"\nformats = {}", &["writes no text"]);
    check("train = \"folder\"\ncache = true", &["is a boolean", "a path or false"]);
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
