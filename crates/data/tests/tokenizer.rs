//! What the files of a tokenizer folder decide.

use std::path::Path;

use data::Tokenizer;

/// Loads `fixtures/data/tokenizer` with further files, which replace those of the same name.
fn load(files: &[(&str, &str)]) -> Tokenizer {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/tokenizer");
    let folder = tempfile::tempdir().expect("folder");
    let json = std::fs::read(fixture.join("tokenizer.json")).expect("fixture");
    std::fs::write(folder.path().join("tokenizer.json"), json).expect("written");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    Tokenizer::load(folder.path()).expect("tokenizer")
}

#[test]
fn special_tokens_of_the_map_go_before_a_configuration_without_added_tokens() {
    let map = r#"{"eos_token": "<pad>", "bos_token": {"content": "<s>"}}"#;
    let tokens = |added: &str| {
        let config = format!(r#"{{"eos_token": {{"content": "</s>"}}, "pad_token": null{added}}}"#);
        let files = [("tokenizer_config.json", &*config), ("special_tokens_map.json", map)];
        let tokenizer = load(&files);
        let named = tokenizer.special_tokens();
        named.map(|(name, token)| format!("{name} {token}")).collect::<Vec<_>>()
    };
    assert_eq!(tokens(""), ["bos_token <s>", "eos_token <pad>"]);
    assert_eq!(
        tokens(r#", "added_tokens_decoder": {"0": {"content": "<s>"}}"#),
        ["eos_token </s>"]
    );
    assert_eq!(load(&[]).eos_token(), None);
}

#[test]
fn text_is_encoded_and_decoded() {
    let tokenizer = load(&[]);
    let ids = tokenizer.encode("The sky é", true).expect("ids");
    assert_eq!(ids[0], 0);
    assert_eq!(tokenizer.decode(&ids, true).expect("text"), "The sky é");
    assert_eq!(tokenizer.decode(&ids, false).expect("text"), "<s>The sky é");
    assert_eq!(tokenizer.encode("The sky é", false).expect("ids"), ids[1..]);
    assert_eq!(tokenizer.token(1).as_deref(), Some("</s>"));
    let last = tokenizer.vocab_size() as u32 - 1;
    assert!(tokenizer.token(last).is_some() && tokenizer.token(last + 1).is_none());
}

#[test]
fn the_post_processor_of_the_file_decides_whatever_the_flags_say() {
    // transformers 5.23 ignores `add_bos_token` and `add_eos_token` beside a tokenizer.json.
    let config = r#"{"eos_token": "</s>", "add_bos_token": false, "add_eos_token": true}"#;
    let tokenizer = load(&[("tokenizer_config.json", config)]);
    assert_eq!(tokenizer.encode("<pad>", true).expect("ids"), [0, 2]);
    let known = [tokenizer.eos_token_id(), tokenizer.bos_token_id(), tokenizer.pad_token_id()];
    assert_eq!(known, [Some(1), None, None]);
}

#[test]
fn a_template_file_goes_before_the_configuration() {
    let named = r#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#;
    let config = ("tokenizer_config.json", named);
    let templates = |tokenizer: &Tokenizer| {
        [false, true].map(|tools| tokenizer.chat_template(tools).map(str::to_string))
    };
    let some = |text: &str| Some(text.to_string());
    assert_eq!(templates(&load(&[config])), [some("d"), some("t")]);
    let file = ("chat_template.jinja", "f");
    assert_eq!(templates(&load(&[config, file])), [some("f"), some("f")]);
    assert_eq!(templates(&load(&[file])), [some("f"), some("f")]);
    let more = ("additional_chat_templates/tool_use.jinja", "a");
    assert_eq!(templates(&load(&[file, more])), [some("f"), some("a")]);
    assert_eq!(templates(&load(&[])), [None, None]);
}
