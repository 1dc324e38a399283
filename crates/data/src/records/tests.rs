//! Every form of row.

use expect_test::{Expect, expect};

use super::*;
use crate::error::Result;
use crate::reader::{Body, Reader};

mod errors;

/// One completion with what belongs to it.
struct Record {
    prompt: Text,
    completion: Text,
    label: bool,
    source: Source,
    pair: Option<usize>,
}

/// Reads files of these contents, called `0.jsonl`, `1.jsonl` and so on, without tokenizing them.
fn read_texts(contents: &[&str], form: Form) -> Result<Vec<Record>> {
    let folder = tempfile::tempdir().expect("folder");
    let (mut ordered, mut records, mut number) = (Ordered::new(form), Vec::new(), 0);
    for (file, content) in contents.iter().enumerate() {
        let path = folder.path().join(format!("{file}.jsonl"));
        std::fs::write(&path, content).expect("written");
        let mut reader = Reader::open(&path, &|_| true)?;
        while let Some(piece) = reader.read()? {
            for raw in piece.rows {
                let Body::Json(text) = raw.body else { panic!("JSON") };
                let source = Source { file: Arc::from(Path::new("")), line: raw.line };
                let row = text.parse(&source)?;
                let detected = reading::detect(form, &source, &row)?;
                let reading = detected.map_or(reading::Reading::Auto, |it| it.reading);
                let row = parse(form, source.clone(), reading.convert(form, &source, row)?)?;
                let pair = (row.completions.len() == 2).then_some(number);
                number += 1;
                let record = |(completion, label)| Record {
                    prompt: row.prompt.clone(),
                    completion,
                    label,
                    source: source.clone(),
                    pair,
                };
                ordered.push(row.completions.into_iter().map(record).collect(), &mut records);
            }
        }
    }
    ordered.end(&mut records);
    Ok(records)
}

/// What each record holds, one line each.
fn check(contents: &[&str], form: Form, expected: Expect) {
    let mut shown = String::new();
    for record in read_texts(contents, form).expect("records") {
        let text = |text: &Text| match text {
            Text::Plain(text) => format!("{text:?}"),
            Text::Messages(messages) => serde_json::to_string(messages).expect("JSON"),
        };
        let pair = record.pair.map_or(String::new(), |pair| format!(" pair {pair}"));
        let line = record.source.line;
        let (prompt, completion) = (text(&record.prompt), text(&record.completion));
        shown += &format!("line {line}: {prompt} > {completion} {}{pair}\n", record.label);
    }
    expected.assert_eq(&shown);
}

#[test]
fn unpaired_rows_are_read_with_their_lines() {
    let first =
        "\u{feff}\n{\"prompt\": \"p\", \"completion\": \"c\", \"label\": true, \"id\": 7}\r\n\n";
    let second = r#"{"completion": "d", "label": false, "prompt": "q", "tools": null}"#;
    check(
        &[first, second],
        Form::Unpaired,
        expect![[r#"
        line 2: "p" > "c" true
        line 1: "q" > "d" false
    "#]],
    );
}

#[test]
fn a_json_array_is_read_with_its_lines() {
    let text = r#" [ {"prompt": "p", "completion": "c", "label": true},

        {"prompt": "q",
         "completion": "d", "label": false}]"#;
    check(
        &[text],
        Form::Unpaired,
        expect![[r#"
        line 1: "p" > "c" true
        line 3: "q" > "d" false
    "#]],
    );
}

#[test]
fn paired_rows_are_unpaired_all_chosen_first() {
    let rows = "{\"prompt\":\"p\",\"chosen\":\"a\",\"rejected\":\"b\"}\n{\"prompt\":\"q\",\"chosen\":\"c\",\"rejected\":\"d\"}";
    check(
        &[rows],
        Form::Unpaired,
        expect![[r#"
        line 1: "p" > "a" true pair 0
        line 2: "q" > "c" true pair 1
        line 1: "p" > "b" false pair 0
        line 2: "q" > "d" false pair 1
    "#]],
    );
    check(
        &[rows],
        Form::Paired,
        expect![[r#"
        line 1: "p" > "a" true pair 0
        line 1: "p" > "b" false pair 0
        line 2: "q" > "c" true pair 1
        line 2: "q" > "d" false pair 1
    "#]],
    );
}

#[test]
fn unpairing_goes_in_batches_of_a_thousand_rows() {
    let line = |i| format!("{{\"prompt\":\"{i}\",\"chosen\":\"a\",\"rejected\":\"b\"}}\n");
    let text: String = (0..1002).map(line).collect();
    let records = read_texts(&[&text], Form::Unpaired).expect("records");
    let order: Vec<(usize, bool)> = [0, 999, 1000, 1999, 2000, 2001, 2002, 2003]
        .map(|i| (records[i].source.line, records[i].label))
        .into();
    let expected = [(1, true), (1000, true), (1, false), (1000, false)];
    assert_eq!(order[..4], expected);
    assert_eq!(order[4..], [(1001, true), (1002, true), (1001, false), (1002, false)]);
}

#[test]
fn without_a_prompt_it_is_the_common_beginning() {
    let rows = r#"{"chosen": "The sky is blue.", "rejected": "The sky is green."}
{"chosen": "è1", "rejected": "è2"}
{"chosen": "same", "rejected": "same"}
{"chosen": "abc", "rejected": "abcd"}
{"chosen": "x", "rejected": "y"}
{"chosen": "", "rejected": "y"}"#;
    check(
        &[rows],
        Form::Paired,
        expect![[r#"
        line 1: "The sky is" > " blue." true pair 0
        line 1: "The sky is" > " green." false pair 0
        line 2: "è" > "1" true pair 1
        line 2: "è" > "2" false pair 1
        line 3: "sam" > "e" true pair 2
        line 3: "sam" > "e" false pair 2
        line 4: "ab" > "c" true pair 3
        line 4: "ab" > "cd" false pair 3
        line 5: "" > "x" true pair 4
        line 5: "" > "y" false pair 4
        line 6: "" > "" true pair 5
        line 6: "" > "y" false pair 5
    "#]],
    );
    let question = r#"{"role":"user","content":"q"}"#;
    let answer = |text| format!(r#"{{"role":"assistant","content":"{text}"}}"#);
    let row = format!(
        r#"{{"prompt": "q", "chosen": [{question},{}], "rejected": [{question},{}]}}"#,
        answer("a"),
        answer("b")
    );
    check(
        &[&row],
        Form::Paired,
        expect![[r#"
        line 1: [{"role":"user","content":"q"}] > [{"role":"assistant","content":"a"}] true pair 0
        line 1: [{"role":"user","content":"q"}] > [{"role":"assistant","content":"b"}] false pair 0
    "#]],
    );
}

#[test]
fn demonstrations_come_in_three_forms() {
    check(
        &[r#"{"prompt": "p", "completion": "c"}"#],
        Form::Sft,
        expect![[r#"
        line 1: "p" > "c" true
    "#]],
    );
    check(
        &[r#"{"text": "t"}"#],
        Form::Sft,
        expect![[r#"
        line 1: "" > "t" true
    "#]],
    );
    let messages = r#"{"messages": [{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"},{"role":"assistant","content":"b"}]}"#;
    check(
        &[messages],
        Form::Sft,
        expect![[r#"
        line 1: [{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"}] > [{"role":"assistant","content":"b"}] true
    "#]],
    );
}

#[test]
fn a_completion_is_empty_if_it_says_nothing() {
    let empty = |json: &str| {
        let messages: Vec<Message> = serde_json::from_str(json).expect("messages");
        Text::Messages(messages).is_empty()
    };
    assert!(Text::Plain(String::new()).is_empty() && !Text::Plain(" ".into()).is_empty());
    assert!(empty("[]") && empty(r#"[{"role": "assistant", "content": "", "tool_calls": []}]"#));
    assert!(empty(r#"[{"role": "assistant", "content": null}]"#));
    assert!(!empty(r#"[{"role": "assistant", "tool_calls": [{"id": 1}]}]"#));
}
