//! The forms of others become prompts and completions as their own projects make them.

use std::path::{Path, PathBuf};

use data::records::literal::{Layout, Style};
use data::template::Moment;
use data::{Columns, DataOptions, Dataset, Error, Form, Origin, Reading, Report, Tokenizer};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

fn tokenizer() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data");
    let fixture = folder.join("tokenizer");
    let folder = tempfile::tempdir().expect("folder");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture.join(name), folder.path().join(name)).expect("copied");
    }
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ (m.tool_calls | tojson) if m.tool_calls else '' }}|{% endfor %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).expect("written");
    Tokenizer::load(folder.path()).expect("tokenizer")
}

fn load(
    name: &str,
    content: &str,
    form: Form,
    origin: Origin,
) -> Result<(Dataset, Report), Error> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("written");
    let origin = Origin { files: vec![path], ..origin };
    let options = DataOptions { form, max_length: None, now: Moment(0) };
    let prefix = format!("{}/", folder.path().display());
    Dataset::open(&[origin], None, &tokenizer(), &options).map_err(|mut error| {
        error.message = error.message.replace(&prefix, "");
        error
    })
}

/// What becomes of a row: how it was read, and its completions; or what is wrong with it.
fn check(row: Value, form: Form, reading: Reading, expected: Expect) {
    let origin = Origin { reading, ..Origin::default() };
    let shown = match load("a.jsonl", &row.to_string(), form, origin) {
        Err(error) => error.to_string(),
        Ok((dataset, report)) => {
            let read = &report.parts[0].read;
            let mut shown = format!("{}: {}\n", read.form, read.why);
            for index in 0..dataset.count() {
                let text = dataset.rendered(index, &tokenizer()).expect("rendered");
                let label = if text.label { "up" } else { "down" };
                shown += &format!("{label} {:?} > {:?}\n", text.prompt, text.completion);
            }
            shown
        }
    };
    expected.assert_eq(&shown);
}

fn turns() -> Value {
    json!([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])
}

#[test]
fn sharegpt_is_read_as_llama_factory_reads_it() {
    let row = json!({"conversations": turns(), "system": "s", "kto_tag": false});
    check(row, Form::Unpaired, Reading::Auto, expect![""]);
    let row = json!({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}});
    check(row.clone(), Form::Unpaired, Reading::Auto, expect![""]);
    check(row, Form::Paired, Reading::Auto, expect![""]);
    check(json!({"conversations": turns(), "tools": ""}), Form::Sft, Reading::Auto, expect![""]);
    let calls = json!({"conversations": [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "a"}], "label": true});
    check(calls, Form::Unpaired, Reading::Auto, expect![""]);
    // LLaMA-Factory's own kto_en_demo.json has roles, and a label beside them.
    let row = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "label": true});
    check(row, Form::Unpaired, Reading::Auto, expect![""]);
}

#[test]
fn broken_conversations_are_named() {
    let with = |turns: Value| json!({"conversations": turns, "kto_tag": true});
    for (turns, expected) in [
        (json!([{"from": "human", "value": "q"}]), expect![""]),
        (json!([{"from": "narrator", "value": "q"}]), expect![""]),
        (json!([{"value": "q"}]), expect![""]),
        (json!([{"from": "function_call", "value": "f(x)"}]), expect![""]),
        (json!("q"), expect![""]),
        (json!([{"from": "gpt", "value": "a"}]), expect![""]),
    ] {
        check(with(turns), Form::Unpaired, Reading::Auto, expected);
    }
    check(json!({"conversations": turns(), "kto_tag": 1}), Form::Unpaired, Reading::Auto, expect![""]);
    check(json!({"conversations": turns()}), Form::Unpaired, Reading::ShareGpt, expect![""]);
    check(json!({"conversations": turns(), "label": true}), Form::Sft, Reading::Auto, expect![""]);
}

#[test]
fn alpaca_is_read_as_llama_factory_reads_it() {
    let row = json!({"instruction": "i", "input": "n", "output": "o", "system": "s", "history": [["q", "a"]], "kto_tag": true});
    check(row, Form::Unpaired, Reading::Auto, expect![""]);
    let row = json!({"instruction": "i", "input": "", "output": "o"});
    check(row.clone(), Form::Sft, Reading::Auto, expect![""]);
    check(row, Form::Unpaired, Reading::Alpaca, expect![""]);
    let pair = json!({"instruction": "i", "input": "n", "chosen": "a", "rejected": "b"});
    check(pair.clone(), Form::Paired, Reading::Alpaca, expect![""]);
    check(json!({"instruction": "i", "output": 7, "label": true}), Form::Unpaired, Reading::Auto, expect![""]);
    check(json!({"instruction": "", "output": "o"}), Form::Sft, Reading::Auto, expect![""]);
}

#[test]
fn what_fits_two_forms_is_refused_and_both_are_shown() {
    let both = json!({"prompt": "p", "completion": "c", "label": true, "chosen": "a", "rejected": "b"});
    check(both.clone(), Form::Unpaired, Reading::Auto, expect![""]);
    check(both.clone(), Form::Unpaired, Reading::Unpaired, expect![""]);
    check(both, Form::Unpaired, Reading::Paired, expect![""]);
    let pair = json!({"instruction": "i", "chosen": "i a", "rejected": "i b"});
    check(pair, Form::Paired, Reading::Auto, expect![""]);
    let text = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "text": "user: q"});
    check(text.clone(), Form::Sft, Reading::Auto, expect![""]);
    check(text, Form::Sft, Reading::Text, expect![""]);
}

#[test]
fn axolotls_forms_are_written_out() {
    let literal = |style, layout| Reading::Literal(style, layout);
    let row = json!({"instruction": "i", "completion": "c", "label": true, "system": "s"});
    check(row, Form::Unpaired, literal(Style::ChatMl, Layout::Argilla), expect![""]);
    let row = json!({"question": "q", "completion": "c", "label": false});
    check(row.clone(), Form::Unpaired, literal(Style::ChatMl, Layout::Intel), expect![""]);
    check(row, Form::Unpaired, literal(Style::Llama3, Layout::Intel), expect![""]);
    let row = json!({"prompt": "p", "completion": "c", "label": true});
    check(row, Form::Unpaired, literal(Style::ChatMl, Layout::Ultra), expect![""]);
    let chat = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let row = json!({"completion": chat("a"), "label": true});
    check(row, Form::Unpaired, literal(Style::ChatMl, Layout::ArgillaChat), expect![""]);
    let row = json!({"prompt": "p", "chosen": chat("a"), "rejected": chat("b")});
    check(row, Form::Paired, literal(Style::ChatMl, Layout::Ultra), expect![""]);
    let row = json!({"input": "i", "chosen_response": "a", "rejected_response": "b"});
    check(row.clone(), Form::Paired, literal(Style::ChatMl, Layout::Argilla), expect![""]);
    check(row.clone(), Form::Paired, literal(Style::ChatMl, Layout::Intel), expect![""]);
    check(row, Form::Sft, literal(Style::ChatMl, Layout::Argilla), expect![""]);
}

#[test]
fn columns_are_called_as_the_recipe_says() {
    let columns = |names: &[(&str, &str)]| Columns {
        names: names.iter().map(|(name, column)| ((*name).into(), (*column).into())).collect(),
    };
    let content = "question,answer,liked,prompt\nthe sky,blue,1,other\n";
    let names = columns(&[("prompt", "question"), ("completion", "answer"), ("label", "liked")]);
    let origin = Origin { columns: names, ..Origin::default() };
    let (dataset, report) = load("a.csv", content, Form::Unpaired, origin).expect("rows");
    let text = dataset.rendered(0, &tokenizer()).expect("rendered");
    assert_eq!((&*text.prompt, &*text.completion), ("<s>the sky", "blue</s>"));
    assert_eq!(report.parts[0].read.form, "unpaired");
    let origin = Origin { columns: columns(&[("prompt", "ask")]), ..Origin::default() };
    let error = load("a.csv", content, Form::Unpaired, origin).expect_err("must fail");
    expect![""].assert_eq(&error.to_string());
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/formats");
    let files: Vec<PathBuf> = vec![formats.join("plain.snappy.parquet")];
    let names = columns(&[("text", "id")]);
    let origin = Origin { files, columns: names, ..Origin::default() };
    let options = DataOptions { form: Form::Sft, max_length: None, now: Moment(0) };
    let error = Dataset::open(&[origin], None, &tokenizer(), &options).expect_err("must fail");
    assert!(error.message.starts_with("'text' is a number"), "{error}");
}
