//! The templates of real models (`fixtures/data/models.json`) and small sources that each go at one thing a template
//! may rely on (`fixtures/data/snippets.json`), as transformers renders them.

use serde_json::json;

use super::*;

/// Where Prospect does otherwise than Python, and stays so: Python refuses (and Prospect finds a meaning), or no
/// template that is known needs it.
const OTHERWISE: [(&str, &str); 20] = [
    ("{{ +i }}", "minijinja has no unary plus"),
    ("{{ undefined_thing < 1 }}", "Python refuses; minijinja orders values of any two kinds"),
    ("{{ 'a' < 1 }}", "Python refuses; minijinja orders values of any two kinds"),
    ("{{ none < 1 }}", "Python refuses; minijinja orders values of any two kinds"),
    ("{{ 1 in s }}", "Python refuses; a number is in no string"),
    ("{{ l | map('string') | tojson }}", "Python refuses; a generator is a list here"),
    ("{{ 1. }}", "Python refuses"),
    ("{{ '{!r}'.format('a') }}", "minijinja's str.format has no conversions"),
    ("{{ (html | e) + '<' }}", "text behind escaped text is escaped only in Python"),
    ("{{ 'aaa bbb ccc ddd' | wordwrap(7) }}", "no template wraps words"),
    ("{{ s | attr('upper') is defined }}", "methods are no attributes here"),
    ("{{ d | pprint }}", "minijinja prints in its own way"),
    ("{{ range(5) }}", "a range is a list here"),
    ("{{ range(1, 5) }}", "a range is a list here"),
    (
        "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}{{ m(1, 2, x=3) }}",
        "minijinja's macros take what they name",
    ),
    ("{{ lipsum is defined }}", "no template wants Latin"),
    ("{{ self is defined }}", "a chat template has no blocks"),
    (
        "{% set j = joiner(', ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %} {% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}",
        "a cycler has no `current`",
    ),
    (
        "{% autoescape true %}{{ html }}{% endautoescape %}",
        "escaping stays off, as transformers sets it",
    ),
    ("{{ u.encode('utf-8') }}", "no template prints bytes"),
];

/// Templates of real models that make the one of these differences that shows.
const REAL_OTHERWISE: [(&str, &str); 2] = [
    // It adds text to `... | safe`, which transformers then escapes, quotes and all, in the middle of JSON.
    ("functionary-3.1.jinja", "tools"),
    ("functionary-3.1.jinja", "a tool"),
];

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("fixture")).expect("JSON")
}

/// Whether a rendering is what transformers has: the text, or an exception whose words count where they are the
/// template's own.
fn same(ours: &Result<String>, theirs: &Value) -> bool {
    match (ours, theirs["rendered"].as_str(), theirs["error"].as_str()) {
        (Ok(text), Some(rendered), _) => text == rendered,
        (Err(error), None, Some(raised)) => match raised.strip_prefix("TemplateError: ") {
            Some(message) => {
                error.message == format!("the chat template refuses the conversation: {message}")
            }
            None => true,
        },
        _ => false,
    }
}

fn report(ours: &Result<String>, theirs: &Value) -> String {
    let theirs = theirs.get("rendered").or(theirs.get("error"));
    let theirs = theirs.and_then(Value::as_str).unwrap_or_default();
    match ours {
        Ok(text) => format!("  python  {theirs:?}\n  ours    {text:?}\n"),
        Err(error) => format!("  python  {theirs:?}\n  ours    error: {}\n", error.message),
    }
}

#[test]
fn templates_of_real_models_render_as_transformers_renders_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/models");
    let document = fixture("models.json");
    let (mut wrong, mut count) = (String::new(), 0);
    let templates = document["rendered"].as_object().expect("templates");
    for (template, conversations) in templates {
        let source = std::fs::read_to_string(folder.join(template)).expect("template");
        for (name, theirs) in conversations.as_object().expect("conversations") {
            count += 1;
            let ours = render(&source, &document["conversations"][name]);
            let otherwise = REAL_OTHERWISE.contains(&(template.as_str(), name.as_str()));
            if same(&ours, theirs) == otherwise {
                wrong += &format!("{template}, {name}\n{}", report(&ours, theirs));
            }
        }
    }
    assert!(templates.len() >= 80 && count >= 500, "{} templates, {count}", templates.len());
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn small_sources_render_as_transformers_renders_them() {
    let document = fixture("snippets.json");
    let case = json!({"messages": [], "kwargs": document["variables"]});
    let cases = document["cases"].as_array().expect("cases");
    let mut wrong = Vec::new();
    for theirs in cases {
        let source = theirs["source"].as_str().expect("source");
        let ours = render(source, &case);
        let otherwise = OTHERWISE.iter().any(|(known, _)| *known == source);
        if same(&ours, theirs) == otherwise {
            wrong.push(format!("{source:?}\n{}", report(&ours, theirs)));
        }
    }
    assert!(cases.len() > 800, "{}", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join(""));
}
