//! Every case of `fixtures/data/templates.json` as transformers rendered it, and what templates
//! can do wrong.

mod parity;

use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

/// 26 July 2024, 13:20 UTC, the moment of the fixtures.
const NOW: Moment = Moment(1_722_000_000);

const SPECIAL: [(&str, &str); 4] =
    [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")];

fn compile(source: &str) -> Result<ChatTemplate> {
    ChatTemplate::compile(source, None, SPECIAL.into_iter(), NOW, "models/a".to_string())
}

fn render(source: &str, case: &Value) -> Result<String> {
    let messages: Vec<Message> =
        serde_json::from_value(case["messages"].clone()).expect("messages");
    let template_kwargs: Map<String, Value> =
        serde_json::from_value(case["kwargs"].clone()).unwrap_or_default();
    compile(source)?.render(&Conversation {
        messages: &messages.iter().collect::<Vec<_>>(),
        tools: Some(&case["tools"]).filter(|tools| tools.is_array()),
        template_kwargs: &template_kwargs,
        add_generation_prompt: case["add_generation_prompt"] == true,
    })
}

#[test]
fn every_template_renders_as_transformers_renders_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data");
    let read = |path: &Path| std::fs::read_to_string(path).expect("fixture");
    let cases: Vec<Value> =
        serde_json::from_str(&read(&folder.join("templates.json"))).expect("JSON");
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["template"].as_str().expect("name");
        let result = render(&read(&folder.join("templates").join(name)), case);
        let same = match (&result, case["rendered"].as_str(), case["error"].as_str()) {
            (Ok(text), Some(rendered), _) => text == rendered,
            (Err(error), None, Some(raised)) => match raised.strip_prefix("TemplateError: ") {
                Some(message) => {
                    let ours = format!("the chat template refuses the conversation: {message}");
                    error.message == ours
                }
                None => true,
            },
            _ => false,
        };
        if !same {
            let rendered = case.get("rendered").or(case.get("error"));
            wrong.push(format!("{name}, {}:\n{rendered:?}\n{result:?}\n", case["name"]));
        }
    }
    assert!(cases.len() > 100);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check_error(source: &str, expected: Expect) {
    let case = serde_json::json!({"messages": [{"role": "user", "content": "a"}]});
    let error = render(source, &case).expect_err("must fail");
    expected.assert_eq(&error.to_string());
}

#[test]
fn a_template_that_does_not_parse_names_the_line() {
    check_error(
        "a\n{% for x in %}",
        expect![[r#"
        the chat template of 'models/a' is not valid: syntax error: unexpected end of block (line 2 of the template)
          hint: compare it with the model's own; Prospect reads Jinja as transformers does"#]],
    );
    check_error(
        "{{ a",
        expect![[r#"
        the chat template of 'models/a' is not valid: syntax error: unexpected end of input, expected end of variable block (line 1 of the template)
          hint: compare it with the model's own; Prospect reads Jinja as transformers does"#]],
    );
    check_error(
        "{% generation %}a",
        expect![[r#"
        the chat template of 'models/a' is not valid: syntax error: unexpected end of input, expected end of block (line 1 of the template)
          hint: compare it with the model's own; Prospect reads Jinja as transformers does"#]],
    );
    check_error(
        &format!("{{{{ {}1 }}}}", "(".repeat(100_000)),
        expect![[r#"
        the chat template of 'models/a' is not valid: syntax error: template exceeds maximum recursion limits (line 1 of the template)
          hint: compare it with the model's own; Prospect reads Jinja as transformers does"#]],
    );
}

#[test]
fn a_template_that_raises_is_quoted() {
    check_error(
        "{{ raise_exception('no ' + messages[0].role) }}",
        expect![[r#"
        the chat template refuses the conversation: no user
          hint: the roles and their order must be those the model was trained with; correct the record, or use a model whose template allows it"#]],
    );
    check_error(
        "{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{{ m() }}",
        expect![[r#"
            the chat template refuses the conversation: deep
              hint: the roles and their order must be those the model was trained with; correct the record, or use a model whose template allows it"#]],
    );
}

#[test]
fn a_template_that_goes_wrong_names_the_line() {
    check_error(
        "\n{{ messages[0].nothing.more }}",
        expect![[r#"
            the chat template of 'models/a' failed: undefined value: `messages[0].nothing` is undefined (line 2 of the template)
              hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
    check_error(
        "{{ messages.frobnicate() }}",
        expect![[r#"
        the chat template of 'models/a' failed: unknown method: sequence has no method named frobnicate (line 1 of the template)
          hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
    check_error(
        "{{ messages.nothing | tojson }}",
        expect![[r#"
        the chat template of 'models/a' failed: invalid operation: an undefined value cannot be written as JSON (line 1 of the template)
          hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
    check_error(
        "{% include 'x' %}",
        expect![[r#"
            the chat template of 'models/a' failed: template not found: tried to include non-existing template 'x' (line 1 of the template)
              hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
    check_error(
        "{{ [] | tojson(separators=1) }}",
        expect![[r#"
            the chat template of 'models/a' failed: invalid operation: number is not iterable (line 1 of the template)
              hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
    check_error(
        "{{ raise_exception() }}",
        expect![[r#"
        the chat template of 'models/a' failed: missing argument (line 1 of the template)
          hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
    check_error(
        "{{ range(1000000000) | list | length }}",
        expect![[r#"
            the chat template of 'models/a' failed: invalid operation: a range has more than 100000 numbers (line 1 of the template)
              hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
}

#[test]
fn a_value_cannot_nest_without_end() {
    let nest = |value: &str, rest: &str| {
        format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range(90000) %}}{{% set ns.x = {value} %}}{{% endfor %}}{rest}"
        )
    };
    let too_deep = "a value is nested more than 200 deep";
    let case = serde_json::json!({"messages": []});
    for value in
        ["[ns.x]", "{'a': ns.x}", "(ns.x,)", "[ns.x] + []", "[[1, ns.x]]", "ns.x | batch(1) | list"]
    {
        for rest in
            ["", "{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == ns.x }}", "{{ ns.x ~ 'a' }}"]
        {
            // `batch` of an empty list is empty.
            let source = nest(value, rest).replace("(x=[])", "(x=[1])");
            let error = render(&source, &case).expect_err(&source);
            assert!(error.message.contains(too_deep), "{source}: {error}");
        }
    }
    let nested = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    let fine: Value = serde_json::from_str(&nested).expect("JSON");
    let case = serde_json::json!({"messages": [], "kwargs": {"v": fine}});
    let text = render("{% set w = v %}{{ w | tojson }}", &case).expect("rendered");
    assert_eq!(text, nested);
}

#[test]
fn a_template_cannot_run_forever() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    check_error(
        endless,
        expect![[r#"
        the chat template of 'models/a' runs without end
          hint: check its loops"#]],
    );
    check_error(
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        expect![[r#"
        the chat template of 'models/a' failed: invalid operation: recursion limit exceeded (line 1 of the template)
          hint: the record may lack a field the template reads, or the template uses what only Python has"#]],
    );
}
