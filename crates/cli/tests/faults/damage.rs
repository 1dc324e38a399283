//! Files are cut short or a bit of them flips: the model's, the data's, a checkpoint's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Dice, Disturbed, TRAIN, all, ended_with_words, share};

/// Cuts a file at a random place, or flips a random bit of it; says what it did.
fn damage(path: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(path).unwrap();
    let at = dice.below(bytes.len());
    let what = if dice.below(2) == 0 {
        bytes.truncate(at);
        format!("{} cut at {at}", path.display())
    } else {
        let bit = dice.below(8);
        bytes[at] ^= 1 << bit;
        format!("{} with bit {bit} of byte {at} flipped", path.display())
    };
    fs::write(path, bytes).unwrap();
    what
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A run that was stopped half way.
fn half_way() -> Disturbed {
    let disturbed = Disturbed::new();
    disturbed.place.well(TRAIN);
    for name in ["summary.json", "adapter", "answers.json"] {
        let path = disturbed.place.path("run").join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    disturbed
}

#[test]
fn a_damaged_checkpoint_is_passed_over_to_the_same_bytes() {
    let jobs: Vec<u64> = (0..share(8, 100)).map(|i| i as u64).collect();
    all("damaged checkpoints", &jobs, |seed| {
        let mut dice = Dice(*seed);
        let disturbed = half_way();
        let mut what = String::new();
        for step in [24, 21] {
            let all = files(&disturbed.place.path(&format!("run/checkpoint-{step}")));
            what += &damage(&all[dice.below(all.len())], &mut dice);
            what += "; ";
        }
        disturbed.go_on(&what)
    });
}

#[test]
fn a_damaged_model_or_data_file_is_refused_when_going_on_and_mended_it_goes_on() {
    let names = [
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "feedback.jsonl",
        "held-out.jsonl",
        "prompts.jsonl",
    ];
    let jobs: Vec<u64> = (0..share(7, 100)).map(|i| i as u64).collect();
    all("damaged model and data files, going on", &jobs, |seed| {
        let mut dice = Dice(*seed);
        let disturbed = half_way();
        let path = disturbed.place.path(names[*seed as usize % names.len()]);
        let whole = fs::read(&path).unwrap();
        let what = damage(&path, &mut dice);
        let came = disturbed.place.run(&format!("{TRAIN} --resume"));
        if came.code != Some(2) || !came.stderr.contains("\n  hint: ") {
            return Err(format!("{what}: going on ended with {:?}\n{}", came.code, came.stderr));
        }
        fs::write(&path, whole).unwrap();
        disturbed.go_on(&what)
    });
}

/// Puts something else in the place of a random value.
fn change(json: &mut Value, dice: &mut Dice) -> String {
    let children = match json {
        Value::Array(list) => list.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    // The deeper, the likelier to be changed.
    if children > 0 && dice.below(8) > 0 {
        let at = dice.below(children);
        return match json {
            Value::Array(list) => format!("/{at}{}", change(&mut list[at], dice)),
            Value::Object(fields) => {
                let (name, value) = fields.iter_mut().nth(at).unwrap();
                format!("/{name}{}", change(value, dice))
            }
            _ => String::new(),
        };
    }
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(3),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(-1e-320),
        json!(0.5),
        json!(""),
        json!("x"),
        json!("\u{0}\u{202e}"),
        json!("a".repeat(100_000)),
        json!([]),
        json!({}),
        json!([[1, 2, 3]]),
        json!({"type": "x"}),
    ];
    let other = others[dice.below(others.len())].clone();
    let text = other.to_string().chars().take(20).collect::<String>();
    *json = other;
    format!(" = {text}")
}

#[test]
fn a_changed_value_anywhere_ends_in_words_or_is_harmless_at_the_start() {
    let names = [
        "model/config.json",
        "model/generation_config.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "model/model.safetensors",
        "feedback.jsonl",
        "prompts.jsonl",
    ];
    let jobs: Vec<u64> = (0..share(28, 1400)).map(|i| i as u64).collect();
    all("changed values", &jobs, |seed| {
        let mut dice = Dice(5000 + *seed);
        let disturbed = Disturbed::new();
        let name = names[*seed as usize % names.len()];
        let path = disturbed.place.path(name);
        let bytes = fs::read(&path).unwrap();
        let what;
        let changed = if name.ends_with(".jsonl") {
            let mut lines: Vec<String> =
                String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
            let at = dice.below(lines.len());
            let mut row: Value = serde_json::from_str(&lines[at]).unwrap();
            what = format!("{name}:{}{}", at + 1, change(&mut row, &mut dice));
            lines[at] = row.to_string();
            lines.join("\n").into_bytes()
        } else {
            // Of weights the header: a length of eight bytes, then JSON.
            let length = match name.ends_with(".safetensors") {
                true => u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize,
                false => bytes.len(),
            };
            let start = if length == bytes.len() { 0 } else { 8 };
            let mut json: Value = serde_json::from_slice(&bytes[start..start + length]).unwrap();
            what = format!("{name}{}", change(&mut json, &mut dice));
            let json = json.to_string();
            let head = if start == 0 { Vec::new() } else { json.len().to_le_bytes().to_vec() };
            [&head, json.as_bytes(), &bytes[start + length..]].concat()
        };
        fs::write(&path, changed).unwrap();
        let came = disturbed.place.confined(
            "train recipe.toml --set train.max_steps=2",
            &[],
            3 << 20,
            Duration::from_secs(60),
        )?;
        match came.code {
            Some(0) => Ok(()),
            Some(1 | 2)
                if came.stderr.contains("\n  hint: ")
                    && !came.stderr.contains("Prospect failed where it should not") =>
            {
                Ok(())
            }
            code => Err(format!("{what}: ended with {code:?}\n{}", came.stderr)),
        }
    });
}

#[test]
fn a_damaged_model_or_data_file_ends_in_words_or_is_harmless_at_the_start() {
    let names = [
        "model/model.safetensors",
        "model/config.json",
        "model/generation_config.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
        "feedback.jsonl",
        "prompts.jsonl",
        "recipe.toml",
    ];
    let jobs: Vec<u64> = (0..share(24, 400)).map(|i| i as u64).collect();
    all("damaged model and data files, at the start", &jobs, |seed| {
        let mut dice = Dice(1000 + *seed);
        let disturbed = Disturbed::new();
        let what = damage(&disturbed.place.path(names[*seed as usize % names.len()]), &mut dice);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prospect"));
        command.args("train recipe.toml --set train.max_steps=2".split(' '));
        command.env("CUDA_VISIBLE_DEVICES", "");
        let output = command.current_dir(disturbed.place.path(".")).output().unwrap();
        ended_with_words(&what, &output)
    });
}
