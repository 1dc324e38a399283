//! The hostile inputs of fixtures/hostile: each is an error in exact words with the right exit code, and leaves
//! every file as it was.
//!
//! A case is a name, what is done to a sound place, the command, and what it must come to:
//!
//! ```text
//! ### a name
//! replace "recipe.toml" "r = 4" "r = four"
//! $ train recipe.toml
//! exit 2
//! error: ...
//! ```
//!
//! What is done stands in a line as a word and JSON values; [`Case::prepare`] has the words. `UPDATE_EXPECT=1` writes
//! what the program says now, and the diff shows it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::place::Place;

/// Address space of the program, in KiB: more than it needs by far, less than an unchecked number asks for.
const MEMORY_KIB: usize = 3 << 20;
/// What no case takes.
const TIME: Duration = Duration::from_secs(30);
/// A message is for people: no line of one is longer.
const LINE: usize = 500;

/// One hostile input.
struct Case {
    name: String,
    /// What is done to the place, in lines.
    steps: Vec<String>,
    command: String,
    /// `exit N` and what is said.
    expected: String,
    /// Whether the run begins and is ended by what it meets: then it leaves its folder.
    begins: bool,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/hostile")
}

/// The words at the head of a file, and its cases.
fn parse(text: &str) -> (String, Vec<Case>) {
    let mut parts = text.split("### ");
    let head = parts.next().unwrap_or_default().to_owned();
    let case = |part: &str| {
        let (name, rest) = part.split_once('\n').unwrap_or((part, ""));
        let (steps, rest) = rest.split_once("$ ").unwrap_or((rest, ""));
        let (command, expected) = rest.split_once('\n').unwrap_or((rest, ""));
        let mut steps: Vec<String> = steps.lines().map(str::to_owned).collect();
        let begins = steps.iter().any(|step| step == "begins");
        steps.retain(|step| step != "begins");
        Case {
            name: name.to_owned(),
            steps,
            command: command.to_owned(),
            expected: expected.trim_end().to_owned(),
            begins,
        }
    };
    (head, parts.map(case).collect())
}

fn written(head: &str, cases: &[Case]) -> String {
    let mut text = head.to_owned();
    for Case { name, steps, command, expected, begins } in cases {
        let mut lines: Vec<&str> = steps.iter().map(String::as_str).collect();
        if *begins {
            lines.push("begins");
        }
        let steps: String = lines.iter().map(|step| format!("{step}\n")).collect();
        text += &format!("### {name}\n{steps}$ {command}\n{expected}\n\n");
    }
    format!("{}\n", text.trim_end())
}

impl Case {
    /// Does what the case says to the place; gives what is set in the environment.
    fn prepare(&self, place: &Place) -> Vec<(String, String)> {
        let mut environment = Vec::new();
        for step in &self.steps {
            let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
            let values: Vec<Value> = serde_json::Deserializer::from_str(rest)
                .into_iter()
                .collect::<Result<_, _>>()
                .unwrap_or_else(|error| panic!("{}: {step}: {error}", self.name));
            let text = |i: usize| {
                values.get(i).and_then(Value::as_str).unwrap_or_else(|| panic!("{step}: {i}"))
            };
            let number = |i: usize| {
                values.get(i).and_then(Value::as_i64).unwrap_or_else(|| panic!("{step}: {i}"))
            };
            let path = place.path(text(0));
            let bytes = || fs::read(&path).unwrap_or_else(|error| panic!("{step}: {error}"));
            let put = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
            // From the end where it is negative.
            let at = |length: usize| match number(1) {
                n if n < 0 => length - n.unsigned_abs() as usize,
                n => n as usize,
            };
            match word {
                "write" => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    put(text(1).as_bytes());
                }
                "append" => put(&[bytes(), text(1).into()].concat()),
                "bytes" => {
                    let hex = text(1).as_bytes().chunks(2);
                    let byte = |pair: &[u8]| {
                        u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                    };
                    put(&hex.map(byte).collect::<Vec<u8>>());
                }
                "replace" => {
                    let old = place.read(text(0));
                    assert!(old.contains(text(1)), "{}: {step}: is not there", self.name);
                    put(old.replacen(text(1), text(2), 1).as_bytes());
                }
                "repeat" => {
                    let middle = text(2).repeat(number(3) as usize);
                    put(format!("{}{middle}{}", text(1), text(4)).as_bytes());
                }
                "cut" => {
                    let old = bytes();
                    put(&old[..at(old.len())]);
                }
                "flip" => {
                    let mut changed = bytes();
                    let at = at(changed.len());
                    changed[at] ^= 1;
                    put(&changed);
                }
                "json" => {
                    let mut json: Value = serde_json::from_slice(&bytes()).unwrap();
                    change(&mut json, text(1), values.get(2));
                    put(json.to_string().as_bytes());
                }
                "header" => {
                    put(&with_header(&bytes(), |json| change(json, text(1), values.get(2))))
                }
                "data" => {
                    // Every element of a safetensors file becomes these four bytes.
                    let old = bytes();
                    let start = 8 + header_length(&old);
                    let element = (number(1) as u32).to_le_bytes();
                    put(&[&old[..start], &element.repeat((old.len() - start) / 4)].concat());
                }
                "remove" if path.is_dir() => fs::remove_dir_all(&path).unwrap(),
                "remove" => fs::remove_file(&path).unwrap(),
                "folder" => fs::create_dir_all(&path).unwrap(),
                "copy" if path.is_dir() => place.copy(&path, text(1)),
                "copy" => drop(fs::copy(&path, place.path(text(1))).unwrap()),
                "link" => std::os::unix::fs::symlink(text(1), &path).unwrap(),
                "env" => environment.push((text(0).to_owned(), text(1).to_owned())),
                "run" => drop(place.well(text(0))),
                _ => panic!("{}: no such word: {step}", self.name),
            }
        }
        environment
    }

    /// What the program comes to, in the words of `expected`; or what it must never do.
    fn come(&self) -> Result<String, String> {
        let place = Place::new();
        place.write("chat.jsonl", CHAT);
        let environment = self.prepare(&place);
        let before = tree(&place.path("."));
        let came = place.confined(&self.command, &environment, MEMORY_KIB, TIME)?;
        let said = place.tidy(&came.stderr);
        let mut words =
            format!("exit {}", came.code.map_or("by a signal".into(), |c| c.to_string()));
        let mut within = false;
        for line in said.lines() {
            within = ["error:", "warning:"].iter().any(|word| line.starts_with(word))
                || (within && line.starts_with("  "));
            if within {
                words += &format!("\n{line}");
            }
        }
        let fault = |what: String| Err(format!("{what}\n{words}"));
        match came.code {
            Some(0..=2) => {}
            _ => return fault(format!("it crashed\n{said}")),
        }
        if said.contains("Prospect failed where it should not") || said.contains("panicked") {
            return fault("it panicked".to_owned());
        }
        if came.code != Some(0) && !words.contains("\nerror: ") && !said.contains("Usage: ") {
            return fault(format!("it says nothing\n{said}"));
        }
        if let Some(line) = words.lines().find(|line| line.chars().count() > LINE) {
            return fault(format!("a line of {} characters", line.chars().count()));
        }
        if said.contains("SECRET") {
            return fault("it tells a secret".to_owned());
        }
        let after = tree(&place.path("."));
        if came.code != Some(0) && !self.begins && after != before {
            let changed: Vec<&String> = after
                .iter()
                .filter(|(name, sum)| before.get(*name) != Some(sum))
                .map(|(name, _)| name)
                .chain(before.keys().filter(|name| !after.contains_key(*name)))
                .collect();
            return fault(format!("files changed: {changed:?}"));
        }
        if let Some(name) = after.keys().find(|name| name.ends_with(".tmp")) {
            return fault(format!("{name} is left half-written"));
        }
        Ok(words)
    }
}

/// Conversations, for cases about templates.
const CHAT: &str = r#"{"prompt": [{"role": "user", "content": "w1 w2"}], "completion": [{"role": "assistant", "content": "w5 w6"}], "label": true}
{"prompt": [{"role": "user", "content": "w3"}], "completion": [{"role": "assistant", "content": "w4"}], "label": false}
"#;

/// Sets what a JSON pointer names, or removes it where there is no value.
fn change(json: &mut Value, pointer: &str, value: Option<&Value>) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/").replace("~0", "~");
    match (json.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")), value) {
        (Value::Object(fields), Some(value)) => drop(fields.insert(key, value.clone())),
        (Value::Object(fields), None) => drop(fields.remove(&key)),
        (Value::Array(list), Some(value)) => list[key.parse::<usize>().unwrap()] = value.clone(),
        (other, _) => panic!("{pointer} is in {other}"),
    }
}

fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// A safetensors file (8 bytes of length, a JSON header, the data) with another header.
pub(crate) fn with_header(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let length = header_length(bytes);
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    change(&mut header);
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat()
}

/// Every file below a folder with its content, links as where they lead.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().display().to_string();
            let kind = entry.file_type().unwrap();
            if kind.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap();
                found.insert(name, target.as_os_str().as_bytes().to_vec());
            } else if kind.is_dir() {
                found.insert(name, Vec::new());
                folders.push(entry.path());
            } else if kind.is_file() {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

#[test]
fn hostile_inputs_are_errors_in_the_expected_words_and_change_nothing() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
    files.sort();
    let only = std::env::var("HOSTILE").unwrap_or_default(); // a part of a name, to look at one
    let (mut count, mut wrong) = (0, Vec::new());
    for path in files {
        let (head, mut cases) = parse(&fs::read_to_string(&path).unwrap());
        let results: Vec<Mutex<Option<Result<String, String>>>> =
            cases.iter().map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if !case.name.contains(&only) {
                            continue;
                        }
                        let at = cases.iter().position(|other| std::ptr::eq(other, case)).unwrap();
                        *results[at].lock().unwrap() = Some(case.come());
                    }
                });
            }
        });
        for (case, result) in cases.iter_mut().zip(results) {
            let Some(result) = result.into_inner().unwrap() else { continue };
            count += 1;
            match result {
                Ok(words) if words == case.expected => {}
                Ok(words) if update => case.expected = words,
                Ok(words) => wrong.push(format!(
                    "{}: {}\n--- expected\n{}\n--- came\n{words}\n",
                    path.display(),
                    case.name,
                    case.expected
                )),
                Err(fault) => {
                    wrong.push(format!("{}: {}\n{fault}\n", path.display(), case.name));
                }
            }
        }
        if update {
            fs::write(&path, written(&head, &cases)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 150 || !only.is_empty(), "{count} cases");
    println!("hostile inputs: {count} injected, {count} survived");
}
