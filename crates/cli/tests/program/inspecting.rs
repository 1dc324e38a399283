//! `prospect inspect`: logits as transformers computes them, token ids, rendered conversations, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect;
use serde_json::{Value, json};

use crate::place::Place;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models")
}

/// The f32 tensors of a safetensors file, by name: shape and elements.
fn tensors(bytes: &[u8]) -> Vec<(String, Vec<u64>, Vec<f32>)> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
    let mut end = 0;
    let tensors = entries
        .map(|(name, place)| {
            assert_eq!(place["dtype"], "F32");
            let range: Vec<u64> = serde_json::from_value(place["data_offsets"].clone()).unwrap();
            let bytes = &data[range[0] as usize..range[1] as usize];
            end = end.max(range[1] as usize);
            let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (name.clone(), serde_json::from_value(place["shape"].clone()).unwrap(), values)
        })
        .collect();
    assert_eq!(end, data.len(), "nothing follows");
    tensors
}

#[test]
fn logits_are_those_of_transformers() {
    for name in ["llama_tied", "qwen3", "mistral_window", "sharded"] {
        let folder = models().join(name);
        let place = Place::new();
        place.copy(&folder, "other");
        let expected = place.json("other/expected.json");
        place.write("ids.json", &expected["prompts"].to_string());
        let came =
            place.well("inspect logits other --ids ids.json --out logits.safetensors --dtype f32");
        assert_eq!(came.stdout, "", "{}", came.stderr);
        let ours = tensors(&place.bytes("logits.safetensors"));
        let theirs = tensors(&fs::read(folder.join("logits.safetensors")).unwrap());
        assert_eq!(ours.len(), expected["prompts"].as_array().unwrap().len());
        for (tensor, shape, values) in ours {
            let index = tensor.strip_prefix("logits_").unwrap();
            let (_, their_shape, their) = theirs.iter().find(|(name, _, _)| name == index).unwrap();
            assert_eq!(&shape, their_shape, "{name}, {tensor}");
            let far = values.iter().zip(their).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-3, "{name}, {tensor}: {far}");
        }
    }
}

#[test]
fn an_adapter_changes_the_logits_and_a_run_folder_brings_its_own() {
    let place = Place::new();
    place.well("train recipe.toml --set train.max_steps=20");
    place.write("ids.json", "[[1, 5, 9], [7]]");
    let logits = |arguments: &str| {
        place.well(&format!("inspect logits {arguments} --ids ids.json --out out.safetensors"));
        tensors(&place.bytes("out.safetensors"))
    };
    let (run, given, base) =
        (logits("run"), logits("model --adapter run/adapter"), logits("model"));
    assert_eq!(run, given);
    assert_ne!(given, base);
    assert_eq!(base.len(), 2);
    let rounded = logits("model --dtype bf16 --device cpu");
    assert_ne!(rounded, base);
    let far = base[0].2.iter().zip(&rounded[0].2).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 0.1, "{far}");
}

#[test]
fn an_adapter_of_every_kind_is_asked_with_the_base_it_belongs_to() {
    let place = Place::new();
    place.write("ids.json", "[[1, 5, 9], [7]]");
    let logits = |arguments: &str| {
        place.well(&format!("inspect logits {arguments} --ids ids.json --out out.safetensors"));
        tensors(&place.bytes("out.safetensors"))
    };
    let base = logits("model");
    for (name, sets) in [
        ("dora", "--set adapter.use_dora=true --set adapter.modules_to_save=norm"),
        ("loftq", "--set model.quantization=nf4 --set adapter.init=loftq"),
        ("pissa", "--set adapter.init=pissa"),
    ] {
        place
            .well(&format!("train recipe.toml --set output={name} --set train.max_steps=3 {sets}"));
        let (run, given) = (logits(name), logits(&format!("model --adapter {name}/adapter")));
        assert_eq!(run, given, "{name}");
        assert_ne!(given, base, "{name}");
        place.well(&format!(
            "generate model --adapter {name}/adapter --prompt w1 --max-new-tokens 2"
        ));
    }
    // Training goes on from a LoftQ adapter with the base in nf4 alone.
    let came = place.run(
        "train recipe.toml --set output=on --set train.max_steps=1 --set adapter.init_from=loftq/adapter",
    );
    assert_eq!(came.code, Some(2));
    let (_, error) = came.stderr.split_once("error: ").unwrap();
    expect![[r#"
        the adapter in 'ROOT/loftq/adapter' makes up for what nf4 lost of its base (LoftQ), and model.layers.0.self_attn.q_proj is not held in nf4
          hint: write model.quantization = "nf4", or merge the adapter first: prospect merge
    "#]]
    .assert_eq(&error.replace(&place.path("").display().to_string(), "ROOT/"));
    place.well(
        "train recipe.toml --set output=on --set train.max_steps=1 --set adapter.init_from=loftq/adapter --set model.quantization=nf4",
    );
}

#[test]
fn token_ids_are_printed_with_and_without_special_tokens() {
    let place = Place::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/tokenizer");
    place.copy(&data, "other");
    let list = |arguments: &str| -> Value {
        let came = place.well(&format!("inspect tokenize other --text sky {arguments}"));
        assert_eq!(came.stdout.matches('\n').count(), 1);
        serde_json::from_str(&came.stdout).unwrap()
    };
    let (all, plain) = (list(""), list("--no-special-tokens"));
    assert_eq!(all[0], 0);
    assert_eq!(all.as_array().unwrap()[1..], plain.as_array().unwrap()[..]);
    let tokens = list("--tokens");
    assert_eq!(tokens[0], "<s>");
    assert_eq!(tokens.as_array().unwrap().len(), all.as_array().unwrap().len());
}

#[test]
fn a_conversation_is_rendered_and_nothing_else() {
    let place = Place::new();
    place.write("model/chat_template.jinja", "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{{ mood }}{% if add_generation_prompt %}[assistant]{% endif %}");
    place.write("chat.json", &json!([{"role": "user", "content": "<é>\n"}]).to_string());
    let bos = place.json("model/tokenizer_config.json")["bos_token"].clone();
    let bos = bos.as_str().unwrap_or_default();
    let render = |arguments: &str| place.well(&format!("inspect template {arguments}")).stdout;
    assert_eq!(render("model --conversation chat.json"), format!("{bos}[user]<é>\n"));
    let object = json!({
        "messages": [{"role": "user", "content": null}], "tools": [{"name": "t"}], "mood": "calm",
    });
    place.write("object.json", &object.to_string());
    assert_eq!(
        render("model --conversation object.json --add-generation-prompt"),
        format!("{bos}[user][{{\"name\": \"t\"}}]calm[assistant]")
    );
    let file = "model/chat_template.jinja --conversation chat.json";
    assert_eq!(render(&format!("{file} --set bos_token=<x> --set mood=1.0")), "<x>[user]<é>\n1.0");
    assert_eq!(
        render(&format!("{file} --set mood=a=b --set add_generation_prompt=true")),
        "[user]<é>\na=b[assistant]"
    );
}

#[test]
fn what_cannot_be_inspected_says_why() {
    let place = Place::new();
    let check = |arguments: &str, part: &str| {
        let came = place.run(&format!("inspect {arguments}"));
        assert_eq!(came.code, Some(2), "{arguments}: {}", came.stderr);
        assert!(came.stderr.contains(part) && came.stderr.contains("hint:"), "{}", came.stderr);
        assert!(!place.path("out.safetensors").exists());
    };
    for (ids, part) in [
        (
            "[[1], [1, 99999]]",
            "token 1 of list 1 of 'ids.json' is 99999, the vocabulary of 'model' has",
        ),
        ("[]", "there is no list"),
        ("[[]]", "list 0 of 'ids.json' is empty"),
        ("[1, 2]", "is no lists of token ids"),
        ("[[-1]]", "is no lists of token ids"),
        ("[[1.5]]", "is no lists of token ids"),
        ("{", "is no lists of token ids"),
    ] {
        place.write("ids.json", ids);
        check("logits model --ids ids.json --out out.safetensors", part);
    }
    place.write("ids.json", &json!([vec![1; 1000]]).to_string());
    check(
        "logits model --ids ids.json --out out.safetensors",
        "has 1000 tokens, 'model' has 128 positions",
    );
    place.write("ids.json", "[[1]]");
    check("logits model --ids no.json --out out.safetensors", "no such file");
    check("logits nowhere --ids ids.json --out out.safetensors", "there is no model folder");
    check("logits model --ids ids.json --out no/out.safetensors", "its folder does not exist");
    check("tokenize nowhere --text a", "there is no model folder");
    place.write(
        "t.jinja",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ raise_exception('no') if no }}",
    );
    for (conversation, part) in [
        ("1", "is no conversation"),
        ("[1]", "message 0 in 'c.json' is 1, not an object"),
        ("{}", "there is no 'messages'"),
        ("{\"messages\": 1}", "is not a list"),
        ("{\"messages\": [], \"tools\": {}}", "'tools' in 'c.json' is not a list"),
        (
            "{\"messages\": [], \"add_generation_prompt\": 1}",
            "'add_generation_prompt' in 'c.json' is 1",
        ),
        ("{\"messages\": [], \"no\": 1}", "refuses the conversation: no"),
        ("[", "is not JSON"),
    ] {
        place.write("c.json", conversation);
        check("template t.jinja --conversation c.json", part);
    }
    check("template no.jinja --conversation c.json", "no such file");
    assert_eq!(place.run("inspect template t.jinja --conversation c.json --set a").code, Some(2));
}
