//! Every mistake in a row, with its exact message.

use std::path::Path;

use expect_test::{Expect, expect};

use super::Form;
use crate::template::Moment;
use crate::{DataOptions, Dataset, Tokenizer};

fn check_error(content: &str, form: Form, expected: Expect) {
    check_errors(&[content], form, expected);
}

fn check_errors(contents: &[&str], form: Form, expected: Expect) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto/tiny");
    let tokenizer = Tokenizer::load(&fixtures).expect("tokenizer");
    let folder = tempfile::tempdir().expect("folder");
    let name = |number: usize| folder.path().join(format!("{number}.jsonl"));
    for (number, content) in contents.iter().enumerate() {
        std::fs::write(name(number), content).expect("written");
    }
    let paths: Vec<_> = (0..contents.len()).map(name).collect();
    let options = DataOptions { form, max_length: None, now: Moment(0) };
    let error = Dataset::load(&paths, &tokenizer, &options).expect_err("must fail");
    assert_eq!(error.fault, crate::Fault::Input);
    let prefix = format!("{}/", folder.path().display());
    expected.assert_eq(&error.to_string().replace(&prefix, ""));
}

#[test]
fn malformed_json_names_line_and_column() {
    check_error(
        "{\"prompt\": \"p\"\n",
        Form::Unpaired,
        expect![[r#"
        malformed JSON at 0.jsonl:1, column 14: EOF while parsing an object
          hint: each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array"#]],
    );
    check_error(
        "\n\n{\"prompt\": NaN}",
        Form::Unpaired,
        expect![[r#"
        malformed JSON at 0.jsonl:3, column 12: expected value
          hint: each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array"#]],
    );
    check_error(
        "{\"a\": 1e999}",
        Form::Unpaired,
        expect![[r#"
        malformed JSON at 0.jsonl:1, column 11: number out of range
          hint: each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array"#]],
    );
    check_error(
        "[{\"text\": \"p\"},\n {\"prompt\" \"p\"}]",
        Form::Sft,
        expect![[r#"
        malformed JSON at 0.jsonl:2, column 12: expected `:`
          hint: each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array"#]],
    );
    check_error(
        "[{}",
        Form::Unpaired,
        expect![[r#"
        malformed JSON at 0.jsonl:1, column 3: EOF while parsing a list
          hint: each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array"#]],
    );
    check_error(
        "7",
        Form::Unpaired,
        expect![[r#"
        0.jsonl:1 is a number, not an object
          hint: each row is an object such as {"prompt": "...", "completion": "...", "label": true}"#]],
    );
    check_error(
        "[\n1]",
        Form::Unpaired,
        expect![[r#"
        0.jsonl:2 is a number, not an object
          hint: each row is an object such as {"prompt": "...", "completion": "...", "label": true}"#]],
    );
}

#[test]
fn missing_fields_name_those_found_and_those_accepted() {
    check_error(
        r#"{"prompt": "p", "completion": "c"}"#,
        Form::Unpaired,
        expect![[r#"
        0.jsonl:1 has no 'label'; it has 'prompt', 'completion'
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"#]],
    );
    check_error(
        r#"{"completion": "c", "label": true}"#,
        Form::Unpaired,
        expect![[r#"
        0.jsonl:1 has no 'prompt'; it has 'completion', 'label'
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"#]],
    );
    check_error(
        r#"{"prompt": "p", "completion": null, "label": true}"#,
        Form::Unpaired,
        expect![[r#"
            0.jsonl:1 has no 'completion'; it has 'prompt', 'completion' (null), 'label'
              hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"#]],
    );
    check_error(
        "{}",
        Form::Unpaired,
        expect![[r#"
        0.jsonl:1 has no 'prompt'; it has no field
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"#]],
    );
    check_error(
        r#"{"prompt": "p", "chosen": "c"}"#,
        Form::Unpaired,
        expect![[r#"
        0.jsonl:1 has no 'rejected'; it has 'prompt', 'chosen'
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"#]],
    );
    check_error(
        r#"{"prompt": "p", "rejected": "c"}"#,
        Form::Paired,
        expect![[r#"
        0.jsonl:1 has no 'chosen'; it has 'prompt', 'rejected'
          hint: a row has 'chosen' and 'rejected', with or without 'prompt'"#]],
    );
    check_error(
        r#"{"prompt": "p", "completion": "c", "label": true}"#,
        Form::Paired,
        expect![[r#"
            0.jsonl:1 is rated on its own, but this objective compares pairs; it has 'prompt', 'completion', 'label'
              hint: a row has 'chosen' and 'rejected', with or without 'prompt'"#]],
    );
    check_error(
        r#"{"prompt": "p"}"#,
        Form::Paired,
        expect![[r#"
        0.jsonl:1 has no 'chosen' and 'rejected'; it has 'prompt'
          hint: a row has 'chosen' and 'rejected', with or without 'prompt'"#]],
    );
    check_error(
        r#"{"prompt": "p"}"#,
        Form::Sft,
        expect![[r#"
        0.jsonl:1 has no 'completion'; it has 'prompt'
          hint: a row has 'messages', or 'prompt' and 'completion', or 'text'"#]],
    );
    check_error(
        r#"{"question": "p"}"#,
        Form::Sft,
        expect![[r#"
        0.jsonl:1 has no field to train on; it has 'question'
          hint: a row has 'messages', or 'prompt' and 'completion', or 'text'"#]],
    );
    check_error(
        r#"{"prompt": "p", "completion": "c", "label": false}"#,
        Form::Sft,
        expect![[r#"
        0.jsonl:1 is feedback, but sft imitates every row; it has 'prompt', 'completion', 'label'
          hint: a row has 'messages', or 'prompt' and 'completion', or 'text'"#]],
    );
}

#[test]
fn labels_are_booleans() {
    for (label, expected) in [
        (
            "1",
            expect![[r#"
            'label' is 1, not a boolean, 0.jsonl:1
              hint: write true for a desirable completion and false for an undesirable one; a score or a star rating needs a threshold that only you can choose"#]],
        ),
        (
            "\"true\"",
            expect![[r#"
            'label' is "true", not a boolean, 0.jsonl:1
              hint: write true for a desirable completion and false for an undesirable one; a score or a star rating needs a threshold that only you can choose"#]],
        ),
        (
            "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18]",
            expect![[r#"
            'label' is [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,1..., not a boolean, 0.jsonl:1
              hint: write true for a desirable completion and false for an undesirable one; a score or a star rating needs a threshold that only you can choose"#]],
        ),
    ] {
        let row = format!(r#"{{"prompt": "p", "completion": "c", "label": {label}}}"#);
        check_error(&row, Form::Unpaired, expected);
    }
}

#[test]
fn texts_are_strings_or_messages() {
    let check = |prompt: &str, completion: &str, expected| {
        let row = format!(r#"{{"prompt": {prompt}, "completion": {completion}, "label": true}}"#);
        check_error(&row, Form::Unpaired, expected);
    };
    let message = r#"[{"role": "user", "content": "q"}]"#;
    check(
        "7",
        "\"c\"",
        expect![[r#"
        'prompt' is a number, 0.jsonl:1
          hint: give a string or a list of messages {"role": "...", "content": "..."}"#]],
    );
    check(
        message,
        "\"c\"",
        expect![[r#"
        'prompt' is a list of messages but 'completion' is plain text, 0.jsonl:1
          hint: give strings throughout or lists of messages throughout"#]],
    );
    check(
        "[\"q\"]",
        message,
        expect![[r#"
        message 1 of 'prompt' is a string, 0.jsonl:1
          hint: a message is an object such as {"role": "user", "content": "..."}"#]],
    );
    check(
        r#"[{"content": "q"}]"#,
        message,
        expect![[r#"
        message 1 of 'prompt' has no 'role', 0.jsonl:1
          hint: a message is an object such as {"role": "user", "content": "..."}"#]],
    );
    check(
        r#"[{"from": "human", "value": "q"}]"#,
        message,
        expect![[r#"
        message 1 of 'prompt' has 'from' and no 'role', 0.jsonl:1
          hint: rename 'from' to 'role' (human to user, gpt to assistant) and 'value' to 'content'"#]],
    );
    check(
        r#"[{"role": 7, "content": "q"}]"#,
        message,
        expect![[r#"
        message 1 of 'prompt' has a 'role' that is a number, 0.jsonl:1
          hint: a message is an object such as {"role": "user", "content": "..."}"#]],
    );
    check(
        message,
        r#"[{"role": "assistant", "content": 7}]"#,
        expect![[r#"
        message 1 of 'completion' has a 'content' that is a number, 0.jsonl:1
          hint: the content is a string or a list of parts such as {"type": "text", "text": "..."}"#]],
    );
    check(
        "[]",
        message,
        expect![[r#"
        the prompt has no message, 0.jsonl:1
          hint: a conversation begins with at least one message before the answer"#]],
    );
}

#[test]
fn tools_and_variables_have_their_shapes() {
    let check = |field: &str, expected| {
        let row = format!(r#"{{"prompt": "p", "completion": "c", "label": true, {field}}}"#);
        check_error(&row, Form::Unpaired, expected);
    };
    check(
        r#""tools": "[{""#,
        expect![[r#"
        'tools' is not JSON (EOF while parsing an object at line 1 column 2), 0.jsonl:1
          hint: give a list of tool schemas, or that list as a JSON string"#]],
    );
    check(
        r#""tools": {}"#,
        expect![[r#"
        'tools' is an object, 0.jsonl:1
          hint: give a list of tool schemas, or that list as a JSON string"#]],
    );
    check(
        r#""chat_template_kwargs": []"#,
        expect![[r#"
        'chat_template_kwargs' is a list, 0.jsonl:1
          hint: give an object such as {"enable_thinking": false}"#]],
    );
}

#[test]
fn conversations_begin_and_end_as_they_must() {
    let messages =
        r#"{"messages": [{"role":"assistant","content":"a"},{"role":"user","content":"q"}]}"#;
    check_error(
        messages,
        Form::Sft,
        expect![[r#"
        the last message has the role "user", not "assistant", 0.jsonl:1
          hint: a demonstration ends with the answer to imitate"#]],
    );
    check_error(
        r#"{"messages": []}"#,
        Form::Sft,
        expect![[r#"
        'messages' is empty, 0.jsonl:1
          hint: a demonstration has at least a question and an answer"#]],
    );
    check_error(
        r#"{"messages": "q"}"#,
        Form::Sft,
        expect![[r#"
        'messages' is a string, 0.jsonl:1
          hint: give a list of messages, or call the field 'text'"#]],
    );
    check_error(
        r#"{"messages": [{"role":"assistant","content":"a"}]}"#,
        Form::Sft,
        expect![[r#"
        the prompt has no message, 0.jsonl:1
          hint: a conversation begins with at least one message before the answer"#]],
    );
    check_error(
        r#"{"text": [{"role":"assistant","content":"a"}]}"#,
        Form::Sft,
        expect![[r#"
            'text' is a list of messages, 0.jsonl:1
              hint: call the field 'messages'"#]],
    );
    let row = r#"{"chosen": [{"role":"user","content":"q"}], "rejected": [{"role":"user","content":"r"}]}"#;
    check_error(
        row,
        Form::Paired,
        expect![[r#"
        'chosen' and 'rejected' begin with different messages, 0.jsonl:1
          hint: both must begin with the same messages, which are the prompt; or give a 'prompt'"#]],
    );
}

#[test]
fn rows_of_one_run_have_one_form() {
    let unpaired = r#"{"prompt": "p", "completion": "c", "label": true}"#;
    let paired = r#"{"prompt": "p", "chosen": "c", "rejected": "d"}"#;
    let chat = r#"{"prompt": [{"role":"user","content":"q"}], "completion": [{"role":"assistant","content":"a"}], "label": true}"#;
    check_errors(
        &[unpaired, &format!("\n{paired}")],
        Form::Unpaired,
        expect![[r#"
        1.jsonl:2 is prompt, chosen, rejected of plain text, but the first row, 0.jsonl:1, is prompt, completion, label of plain text
          hint: give rows of one form; train on the others in a run of their own, or convert them"#]],
    );
    check_errors(
        &[unpaired, chat],
        Form::Unpaired,
        expect![[r#"
        1.jsonl:1 is prompt, completion, label of messages, but the first row, 0.jsonl:1, is prompt, completion, label of plain text
          hint: give rows of one form; train on the others in a run of their own, or convert them"#]],
    );
}

#[test]
fn files_without_rows_are_refused() {
    check_errors(
        &["", "\n \n"],
        Form::Unpaired,
        expect![[r#"
        there is no record in 0.jsonl, 1.jsonl
          hint: a row has 'prompt', 'completion' and 'label', or 'chosen' and 'rejected' with or without 'prompt'"#]],
    );
    check_error(
        "[]",
        Form::Sft,
        expect![[r#"
        there is no record in 0.jsonl
          hint: a row has 'messages', or 'prompt' and 'completion', or 'text'"#]],
    );
    check_errors(
        &[],
        Form::Paired,
        expect![[r#"
        no data file is given
          hint: name at least one JSONL file"#]],
    );
    check_error(
        "PAR1\u{0}",
        Form::Unpaired,
        expect![[r#"
            '0.jsonl' is damaged: EOF: Parquet file too small. Size is 5 but need 8
              hint: get the file again, or write it anew, for example with `datasets`' to_parquet"#]],
    );
}
