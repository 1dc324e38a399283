//! Broken inputs: each gives an error that says what is wrong, and none a panic.

use std::path::Path;

use data::template::Moment;
use data::{DataOptions, Dataset, Error, Form, Tokenizer};
use serde_json::{Value, json};

const ROW: &str = r#"{"prompt": "the sky", "completion": " is blue", "label": true}"#;
const CHAT: &str = r#"{"prompt": [{"role": "user", "content": "sky"}], "completion": [{"role": "assistant", "content": "blue"}], "label": true}"#;

/// A sound tokenizer folder, its chat template included.
fn sound() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto/tiny");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("fixture");
    vec![
        ("tokenizer.json".into(), read("tokenizer.json")),
        ("tokenizer_config.json".into(), read("tokenizer_config.json")),
        (
            "chat_template.jinja".into(),
            b"{% for m in messages %}{{ m.role + ' ' + m.content }} {% endfor %}".to_vec(),
        ),
    ]
}

/// Loads data with a tokenizer folder in which `changes` replace files (`None` removes one).
fn load(data: &[u8], max_length: usize, changes: &[(&str, Option<&[u8]>)]) -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("folder");
    for (name, content) in sound() {
        std::fs::write(folder.path().join(name), content).expect("written");
    }
    for (name, content) in changes {
        let path = folder.path().join(name);
        match content {
            Some(content) => std::fs::write(path, content).expect("written"),
            None => std::fs::remove_file(path).expect("removed"),
        }
    }
    let path = folder.path().join("data.jsonl");
    std::fs::write(&path, data).expect("written");
    let tokenizer = Tokenizer::load(folder.path())?;
    let options =
        DataOptions { form: Form::Unpaired, max_length: Some(max_length), now: Moment(0) };
    Dataset::load(&[path], &tokenizer, &options)?;
    Ok(())
}

fn check(name: &str, result: Result<(), Error>, part: &str) {
    let error = result.expect_err(name);
    assert!(error.message.contains(part), "{name}: {error}");
    assert!(!error.hint.is_empty(), "{name} has no hint");
}

#[test]
fn the_sound_inputs_are_sound() {
    load(ROW.as_bytes(), 100, &[]).expect("plain rows");
    load(CHAT.as_bytes(), 100, &[]).expect("conversations");
}

#[test]
fn broken_data_is_an_error() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with = |field: &str| ROW.replace("true}", &format!("true, {field}}}"));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "there is no record"),
        ("only a byte order mark", "\u{feff}".into(), "there is no record"),
        ("not UTF-8", [ROW.as_bytes(), b"\n\xff\xfe"].concat(), "data.jsonl:2 is not UTF-8"),
        ("UTF-16", b"\xff\xfe{\0}\0".to_vec(), "data.jsonl:1 is not UTF-8"),
        ("truncated", ROW.as_bytes()[..30].to_vec(), "EOF while parsing a string"),
        ("zero bytes", vec![0; 100], "malformed JSON at"),
        ("two objects in a line", format!("{ROW}{ROW}").into(), "trailing characters"),
        ("an object over several lines", ROW.replace(", ", ",\n").into(), "malformed JSON"),
        ("NaN", with("\"score\": NaN").into(), "expected value"),
        ("Infinity", with("\"score\": -Infinity").into(), "invalid number"),
        ("a huge number", with("\"score\": 1e99999").into(), "number out of range"),
        ("a lone surrogate", with("\"x\": \"\\ud800\"").into(), "hex escape"),
        ("a raw control character", with("\"x\": \"\u{1}\"").into(), "control character"),
        ("an unknown escape", with("\"x\": \"\\q\"").into(), "invalid escape"),
        ("deep nesting", with(&format!("\"x\": {}", nested(100_000))).into(), "recursion limit"),
        ("a deep array", nested(100_000).into(), "recursion limit"),
        ("an array cut short", format!("[{ROW},").into(), "EOF while parsing"),
        ("a bare word", b"yes".to_vec(), "expected value"),
        ("a huge label", ROW.replace("true", &"9".repeat(500)).into(), "number out of range"),
        ("a label of another type", ROW.replace("true", "{}").into(), "not a boolean"),
        ("single quotes", ROW.replace('"', "'").into(), "key must be a string"),
        ("gzip", b"\x1f\x8b\x08\0".to_vec(), "gzip"),
        (
            "tools nested too deep",
            with(&format!("\"tools\": \"{}\"", nested(1000))).into(),
            "'tools'",
        ),
        (
            "nothing but empty completions",
            ROW.replace(" is blue", "").into(),
            "every completion is empty",
        ),
        (
            "a record without messages",
            CHAT.replace(r#"[{"role": "user", "content": "sky"}]"#, "[]").into(),
            "no message",
        ),
        ("content the template cannot add", CHAT.replace("\"sky\"", "[]").into(), "data.jsonl:1"),
        (
            "content that is missing",
            CHAT.replace("\"content\": \"sky\"", "\"a\": 1").into(),
            "data.jsonl:1",
        ),
    ];
    for (name, data, part) in cases {
        check(name, load(&data, 100, &[]), part);
    }
    check("max_length 0", load(ROW.as_bytes(), 0, &[]), "no example is left of 1 records");
    check("max_length 1", load(ROW.as_bytes(), 1, &[]), "the prompt alone fills max_length");
}

#[test]
fn files_that_cannot_be_read_are_errors() {
    let folder = tempfile::tempdir().expect("folder");
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto/tiny");
    let tokenizer = Tokenizer::load(&tokenizer).expect("tokenizer");
    let options = DataOptions { form: Form::Unpaired, max_length: None, now: Moment(0) };
    let read = |name: &str| Dataset::load(&[folder.path().join(name)], &tokenizer, &options);
    check("a missing file", read("no").map(drop), "there is no such file");
    check("a folder", read(".").map(drop), "it is a folder");
    check("no folder", Tokenizer::load(&folder.path().join("no")).map(drop), "no such file");
    check("an empty folder", Tokenizer::load(folder.path()).map(drop), "has no tokenizer.json");
}

/// The sound tokenizer.json with one field changed.
fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(&sound()[0].1).expect("JSON");
    *json.pointer_mut(pointer).expect("field") = value;
    json.to_string().into_bytes()
}

#[test]
fn broken_tokenizers_are_errors() {
    let unknown = json!({"type": "TemplateProcessing", "special_tokens": {}, "pair": [],
        "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
    let merges = json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]});
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("not UTF-8", b"\xff\xfe".to_vec()),
        ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
        ("an empty object", b"{}".to_vec()),
        ("a list", b"[]".to_vec()),
        ("truncated", sound()[0].1[..1000].to_vec()),
        ("deep nesting", "[".repeat(100_000).into()),
        ("no model", changed("/model", Value::Null)),
        ("an unknown model", changed("/model", json!({"type": "Magic"}))),
        ("a vocabulary of another type", changed("/model/vocab", json!([1, 2]))),
        ("an id below zero", changed("/model/vocab/sky", json!(-1))),
        ("an id of more than 32 bits", changed("/model/vocab/sky", json!(5_000_000_000u64))),
        ("merges of unknown tokens", changed("/model", merges)),
        ("an unknown special token", changed("/post_processor", unknown)),
        ("an unknown pre-tokenizer", changed("/pre_tokenizer", json!({"type": "Magic"}))),
        (
            "a bad pattern",
            changed(
                "/pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
            ),
        ),
    ];
    for (name, content) in cases {
        let result = load(ROW.as_bytes(), 100, &[("tokenizer.json", Some(&content))]);
        check(name, result, "tokenizer.json' is not a tokenizer: ");
    }
}

#[test]
fn broken_tokenizer_folders_are_errors() {
    let config = "tokenizer_config.json";
    let template = "chat_template.jinja";
    let cases: Vec<(&str, &str, Option<&[u8]>, &str)> = vec![
        ("no configuration, no eos", config, None, "has no eos_token"),
        ("a configuration that is no JSON", config, Some(b"{"), "is not JSON"),
        ("a configuration that is a list", config, Some(b"[]"), "is not a JSON object"),
        (
            "a special tokens map that is no JSON",
            "special_tokens_map.json",
            Some(b"\0"),
            "is not JSON",
        ),
        ("an eos token that is a number", config, Some(br#"{"eos_token": 2}"#), "neither a string"),
        ("an eos token without content", config, Some(br#"{"eos_token": {}}"#), "neither a string"),
        (
            "an unknown eos token",
            config,
            Some(br#"{"eos_token": "<e>"}"#),
            "is not in tokenizer.json",
        ),
        (
            "an added token that is missing",
            config,
            Some(br#"{"added_tokens_decoder": {"99": {"content": "<n>"}}}"#),
            "does not have",
        ),
        (
            "an added token elsewhere",
            config,
            Some(br#"{"added_tokens_decoder": {"99": {"content": "<s>"}}}"#),
            "has as 1",
        ),
    ];
    for (name, file, content, part) in cases {
        check(name, load(ROW.as_bytes(), 100, &[(file, content)]), part);
    }
    for (name, content, part) in [
        ("a template that is a number", r#"{"chat_template": 7}"#, "neither a string nor a list"),
        ("a template without a name", r#"{"chat_template": [{"template": ""}]}"#, "lacks 'name'"),
    ] {
        let changes = [(template, None), (config, Some(content.as_bytes()))];
        check(name, load(ROW.as_bytes(), 100, &changes), part);
    }
    let cases: Vec<(&str, Option<&[u8]>, &str)> = vec![
        ("no template", None, "has no chat template"),
        ("a template that is not UTF-8", Some(b"\xff"), "is not UTF-8"),
        ("a template that does not parse", Some(b"{% if %}"), "is not valid"),
        (
            "a template that refuses",
            Some(b"{{ raise_exception('no') }}"),
            "refuses the conversation: no",
        ),
        (
            "a template that does not end",
            Some(b"{% for a in range(99999) %}{% for a in range(99999) %}{% endfor %}{% endfor %}"),
            "runs without end",
        ),
        (
            "a template that calls itself",
            Some(b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
            "recursion limit",
        ),
        ("a template that says nothing", Some(b""), "no token of the completion can be scored"),
    ];
    for (name, content, part) in cases {
        check(name, load(CHAT.as_bytes(), 100, &[(template, content)]), part);
    }
}
