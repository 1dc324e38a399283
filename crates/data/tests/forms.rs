//! The forms of others become prompts and completions as their own projects make them.

use std::path::{Path, PathBuf};

use data::records::formats::Format;
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

fn load(name: &str, content: &str, form: Form, origin: Origin) -> Result<(Dataset, Report), Error> {
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
    check(
        row,
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        sharegpt: the first row has conversations, kto_tag
        down "system: s|user: q|" > "assistant: a|"
    "#]],
    );
    let row = json!({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}});
    check(
        row.clone(),
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        sharegpt: the first row has conversations, chosen, rejected
        up "user: q|" > "assistant: a|"
        down "user: q|" > "assistant: b|"
    "#]],
    );
    check(
        row,
        Form::Paired,
        Reading::Auto,
        expect![[r#"
        sharegpt: the first row has conversations, chosen, rejected
        up "user: q|" > "assistant: a|"
        down "user: q|" > "assistant: b|"
    "#]],
    );
    check(
        json!({"conversations": turns(), "tools": ""}),
        Form::Sft,
        Reading::Auto,
        expect![[r#"
        sharegpt: the first row has conversations
        up "user: q|" > "assistant: a|"
    "#]],
    );
    let calls = json!({"conversations": [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "a"}], "label": true});
    check(
        calls,
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        sharegpt: the first row has conversations, label
        up "user: q|assistant: [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"x\": 1}}}]|tool: 1|" > "assistant: a|"
    "#]],
    );
    // LLaMA-Factory's own kto_en_demo.json has roles, and a label beside them.
    let row = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "label": true});
    check(
        row,
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        messages: the first row has messages, label
        up "user: q|" > "assistant: a|"
    "#]],
    );
}

#[test]
fn broken_conversations_are_named() {
    let with = |turns: Value| json!({"conversations": turns, "kto_tag": true});
    for (turns, expected) in [
        (
            json!([{"from": "human", "value": "q"}]),
            expect![[r#"
            'conversations' does not end with an answer, a.jsonl:1
              hint: the last turn is the answer that the label rates"#]],
        ),
        (
            json!([{"from": "narrator", "value": "q"}]),
            expect![[r#"
            message 1 of 'conversations' is from 'narrator', a.jsonl:1
              hint: speakers are human, user, gpt, assistant, model, chatgpt, bing, bard, function_call, observation, function_response, tool, system, developer"#]],
        ),
        (
            json!([{"value": "q"}]),
            expect![[r#"
            message 1 of 'conversations' has no 'from' that is a string, a.jsonl:1
              hint: a turn is an object such as {"from": "human", "value": "..."}"#]],
        ),
        (
            json!([{"from": "function_call", "value": "f(x)"}]),
            expect![[r#"
            message 1 of 'conversations' is a function_call whose value is no call in JSON, a.jsonl:1
              hint: a call is {"name": "...", "arguments": {...}}, or a list of such"#]],
        ),
        (
            json!("q"),
            expect![[r#"
            'conversations' is a string, a.jsonl:1
              hint: a row has 'conversations': [{"from": "human", "value": "..."}, ...]"#]],
        ),
        (
            json!([{"from": "gpt", "value": "a"}]),
            expect![[r#"
            the prompt has no message, a.jsonl:1
              hint: a conversation begins with at least one message before the answer"#]],
        ),
    ] {
        check(with(turns), Form::Unpaired, Reading::Auto, expected);
    }
    check(
        json!({"conversations": turns(), "kto_tag": 1}),
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        'label' is 1, not a boolean, a.jsonl:1
          hint: write true for a desirable completion and false for an undesirable one; a score or a star rating needs a threshold that only you can choose"#]],
    );
    check(
        json!({"conversations": turns()}),
        Form::Unpaired,
        Reading::ShareGpt,
        expect![[r#"
        a.jsonl:1 has no 'label' and no 'kto_tag'
          hint: an answer is rated by 'label' or 'kto_tag' (true or false), or a row has 'chosen' and 'rejected'"#]],
    );
    check(
        json!({"conversations": turns(), "label": true}),
        Form::Sft,
        Reading::Auto,
        expect![[r#"
        a.jsonl:1 is feedback, but sft imitates every row
          hint: train on it with objective.name = "kto" or "dpo""#]],
    );
}

#[test]
fn alpaca_is_read_as_llama_factory_reads_it() {
    let row = json!({"instruction": "i", "input": "n", "output": "o", "system": "s", "history": [["q", "a"]], "kto_tag": true});
    check(
        row,
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        alpaca: the first row has instruction, output, kto_tag
        up "system: s|user: q|assistant: a|user: i\nn|" > "assistant: o|"
    "#]],
    );
    let row = json!({"instruction": "i", "input": "", "output": "o"});
    check(
        row.clone(),
        Form::Sft,
        Reading::Auto,
        expect![[r#"
        alpaca: the first row has instruction, output
        up "user: i|" > "assistant: o|"
    "#]],
    );
    check(
        row,
        Form::Unpaired,
        Reading::Alpaca,
        expect![[r#"
        a.jsonl:1 has no 'label' and no 'kto_tag'
          hint: an answer is rated by 'label' or 'kto_tag' (true or false), or a row has 'chosen' and 'rejected'"#]],
    );
    let pair = json!({"instruction": "i", "input": "n", "chosen": "a", "rejected": "b"});
    check(
        pair.clone(),
        Form::Paired,
        Reading::Alpaca,
        expect![[r#"
        alpaca: the recipe says so
        up "user: i\nn|" > "assistant: a|"
        down "user: i\nn|" > "assistant: b|"
    "#]],
    );
    check(
        json!({"instruction": "i", "output": 7, "label": true}),
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        'output' is a number, a.jsonl:1
          hint: instruction, input, output and system are strings"#]],
    );
    check(
        json!({"instruction": "", "output": "o"}),
        Form::Sft,
        Reading::Auto,
        expect![[r#"
        a.jsonl:1 has no 'instruction'
          hint: a row has 'instruction', 'output', and where there is one an 'input'"#]],
    );
}

#[test]
fn what_fits_two_forms_is_refused_and_both_are_shown() {
    let both =
        json!({"prompt": "p", "completion": "c", "label": true, "chosen": "a", "rejected": "b"});
    check(
        both.clone(),
        Form::Unpaired,
        Reading::Auto,
        expect![[r#"
        a.jsonl:1 can be read in two ways: as "unpaired": prompt "p", completion "c", label true; as "paired": prompt "p", chosen "a", rejected "b"
          hint: say which is meant: form = "unpaired" or form = "paired" under [data], or of its source"#]],
    );
    check(
        both.clone(),
        Form::Unpaired,
        Reading::Unpaired,
        expect![[r#"
        unpaired: the recipe says so
        up "<s>p" > "c</s>"
    "#]],
    );
    check(
        both,
        Form::Unpaired,
        Reading::Paired,
        expect![[r#"
        paired: the recipe says so
        up "<s>p" > "a</s>"
        down "<s>p" > "b</s>"
    "#]],
    );
    let pair = json!({"instruction": "i", "chosen": "i a", "rejected": "i b"});
    check(
        pair,
        Form::Paired,
        Reading::Auto,
        expect![[r#"
        a.jsonl:1 can be read in two ways: as "paired": chosen "i a", rejected "i b"; as "alpaca": instruction "i", chosen "i a", rejected "i b"
          hint: say which is meant: form = "paired" or form = "alpaca" under [data], or of its source"#]],
    );
    let text = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "text": "user: q"});
    check(
        text.clone(),
        Form::Sft,
        Reading::Auto,
        expect![[r#"
        a.jsonl:1 can be read in two ways: as "messages": messages [{"role":"user","content":"q"},{"role":"...; as "text": text "user: q"
          hint: say which is meant: form = "messages" or form = "text" under [data], or of its source"#]],
    );
    check(
        text,
        Form::Sft,
        Reading::Text,
        expect![[r#"
        text: the recipe says so
        up "<s>" > "user: q</s>"
    "#]],
    );
}

#[test]
fn axolotls_forms_are_written_out() {
    let literal = |style, layout| Reading::Literal(style, layout);
    let row = json!({"instruction": "i", "completion": "c", "label": true, "system": "s"});
    check(
        row,
        Form::Unpaired,
        literal(Style::ChatMl, Layout::Argilla),
        expect![[r#"
        chatml.argilla: the recipe says so
        up "<s><|im_start|>system\ns<|im_end|>\n<|im_start|>user\ni<|im_end|>\n<|im_start|>assistant\n" > "c<|im_end|></s>"
    "#]],
    );
    let row = json!({"question": "q", "completion": "c", "label": false});
    check(
        row.clone(),
        Form::Unpaired,
        literal(Style::ChatMl, Layout::Intel),
        expect![[r#"
        chatml.intel: the recipe says so
        down "<s><|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n" > "c<|im_end|></s>"
    "#]],
    );
    check(
        row,
        Form::Unpaired,
        literal(Style::Llama3, Layout::Intel),
        expect![[r#"
        llama3.intel: the recipe says so
        down "<s><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" > "c<|eot_id|></s>"
    "#]],
    );
    let row = json!({"prompt": "p", "completion": "c", "label": true});
    check(
        row,
        Form::Unpaired,
        literal(Style::ChatMl, Layout::Ultra),
        expect![[r#"
        chatml.ultra: the recipe says so
        up "<s><|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n" > "c<|im_end|></s>"
    "#]],
    );
    let chat = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let row = json!({"completion": chat("a"), "label": true});
    check(
        row,
        Form::Unpaired,
        literal(Style::ChatMl, Layout::ArgillaChat),
        expect![[r#"
        chatml.argilla_chat: the recipe says so
        up "<s><|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n" > "a<|im_end|></s>"
    "#]],
    );
    let row = json!({"prompt": "p", "chosen": chat("a"), "rejected": chat("b")});
    check(
        row,
        Form::Paired,
        literal(Style::ChatMl, Layout::Ultra),
        expect![[r#"
        chatml.ultra: the recipe says so
        up "<s><|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n" > "a<|im_end|></s>"
        down "<s><|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n" > "b<|im_end|></s>"
    "#]],
    );
    let row = json!({"input": "i", "chosen_response": "a", "rejected_response": "b"});
    check(
        row.clone(),
        Form::Paired,
        literal(Style::ChatMl, Layout::Argilla),
        expect![[r#"
        chatml.argilla: the recipe says so
        up "<s><|im_start|>user\ni<|im_end|>\n<|im_start|>assistant\n" > "a<|im_end|></s>"
        down "<s><|im_start|>user\ni<|im_end|>\n<|im_start|>assistant\n" > "b<|im_end|></s>"
    "#]],
    );
    check(
        row.clone(),
        Form::Paired,
        literal(Style::ChatMl, Layout::Intel),
        expect![[r#"
        a.jsonl:1 has no 'question' of text; it has 'input', 'chosen_response', 'rejected_response'
          hint: columns = { NAME = "COLUMN" } says which column is meant by a name; or write another form"#]],
    );
    check(
        row,
        Form::Sft,
        literal(Style::ChatMl, Layout::Argilla),
        expect![[r#"
        a.jsonl:1 is feedback, but sft imitates every row
          hint: Axolotl's forms are for objective.name = "kto" or "dpo""#]],
    );
}

#[test]
fn columns_are_called_as_the_recipe_says() {
    let columns = |names: &[(&str, &str)]| Columns {
        names: names.iter().map(|(name, column)| ((*name).into(), (*column).into())).collect(),
        formats: Vec::new(),
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
    expect![[r#"
        a.csv:2 has no column 'ask', which columns.prompt names; it has 'question', 'answer', 'liked', 'prompt'
          hint: columns = { NAME = "COLUMN" } says which column of the file is meant by a name"#]].assert_eq(&error.to_string());
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/formats");
    let files: Vec<PathBuf> = vec![formats.join("plain.snappy.parquet")];
    let names = columns(&[("text", "id")]);
    let origin = Origin { files, columns: names, reading: Reading::Text, weight: None };
    let options = DataOptions { form: Form::Sft, max_length: None, now: Moment(0) };
    let error = Dataset::open(&[origin], None, &tokenizer(), &options).expect_err("must fail");
    assert!(error.message.starts_with("'text' is a number"), "{error}");
}

#[test]
fn texts_are_put_together_as_axolotls_user_defined_forms_do() {
    let shown = |row: Value, form: Form, names: &[(&str, &str)], formats: &[(&str, &str)]| {
        let columns = Columns {
            names: names.iter().map(|(name, column)| ((*name).into(), (*column).into())).collect(),
            formats: formats
                .iter()
                .map(|(name, text)| ((*name).into(), Format::read(text).expect("a format")))
                .collect(),
        };
        let origin = Origin { columns, reading: Reading::UserDefined, ..Origin::default() };
        let (dataset, _) = match load("a.jsonl", &row.to_string(), form, origin) {
            Err(error) => return error.to_string(),
            Ok(loaded) => loaded,
        };
        let text = |index| dataset.rendered(index, &tokenizer()).expect("rendered");
        let each = (0..dataset.count()).map(text);
        each.map(|it| format!("{} {:?} > {:?}\n", it.label, it.prompt, it.completion)).collect()
    };
    // Axolotl 0.19, kto/user_defined.py, of the same row: prompt "s|Q: q {x}\nA:", completion " a.", label false.
    let row = json!({"ask": "q {x}", "say": "a", "liked": false, "who": "s", "messages": "no"});
    let names = [("prompt", "ask"), ("completion", "say"), ("label", "liked"), ("system", "who")];
    let formats = [("prompt", "{system}|Q: {prompt}\nA:"), ("completion", " {completion}.")];
    expect![[r#"
        false "<s>s|Q: q {x}\nA:" > " a.</s>"
    "#]]
    .assert_eq(&shown(row.clone(), Form::Unpaired, &names, &formats));
    // Without formats the columns alone.
    expect![[r#"
        false "<s>q {x}" > "a</s>"
    "#]]
    .assert_eq(&shown(row, Form::Unpaired, &names, &[]));
    // dpo/user_defined.py writes nothing for a system message that is not there.
    let row = json!({"prompt": "q", "good": "a", "rejected": "b"});
    let formats =
        [("prompt", "{{{system}}} {prompt}"), ("chosen", "{chosen}!"), ("rejected", "{rejected}?")];
    expect![[r#"
        true "<s>{} q" > "a!</s>"
        false "<s>{} q" > "b?</s>"
    "#]]
    .assert_eq(&shown(row, Form::Paired, &[("chosen", "good")], &formats));
    // user_defined.py's `format` of instruction and input is a prompt, `field_output` a completion.
    let row = json!({"instruction": "do", "input": "this", "output": "done"});
    let formats = [("prompt", "{instruction} {input} ")];
    expect![[r#"
        true "<s>do this " > "done</s>"
    "#]]
    .assert_eq(&shown(row.clone(), Form::Sft, &[("completion", "output")], &formats));
    let formats = [("prompt", "{question}")];
    expect![[r#"
        a.jsonl:1 has no 'question', which formats name; it has 'instruction', 'input', 'completion'
          hint: columns = { NAME = "COLUMN" } says which column of the file is meant by a name"#]]
    .assert_eq(&shown(row, Form::Sft, &[("completion", "output")], &formats));
    let row = json!({"prompt": [{"role": "user", "content": "q"}], "completion": "a"});
    expect![[r#"
        'prompt' is a list, a.jsonl:1
          hint: formats put strings together; messages are written by the model's chat template"#]]
    .assert_eq(&shown(row, Form::Sft, &[], &[("prompt", "{prompt}")]));
}

#[test]
fn a_format_that_means_nothing_is_told() {
    let wrong = |text: &str| Format::read(text).expect_err("must fail");
    assert_eq!(wrong("{promt}"), "names {promt}, which no form has");
    assert_eq!(wrong("a { b"), "has a single {");
    assert_eq!(wrong("{prompt} }"), "has a single }");
    assert_eq!(wrong("{{prompt}}"), "names no column");
}
