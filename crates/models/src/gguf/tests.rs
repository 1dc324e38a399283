//! Blocks against gguf's own, files against the model they were made of, and files that lie.

use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value as Json, json};

use super::format::Value;
use super::read::File;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::testing::fixture;

mod families;
mod lora;

fn unhex(text: &Json) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn blocks_are_ggufs_to_the_byte() {
    let text = std::fs::read_to_string(fixture("gguf/blocks.json")).unwrap();
    let blocks: Json = serde_json::from_str(&text).unwrap();
    for (name, block) in blocks.as_object().unwrap() {
        let values = floats(&unhex(&block["values"]));
        for kind in &TensorType::ALL[1..] {
            let theirs = unhex(&block[kind.name()]);
            let mut ours = vec![0xAA; kind.bytes(values.len())];
            let finite = quantize::encode(*kind, &values, &mut ours);
            assert_eq!(ours, theirs, "{name} as {}", kind.name());
            assert_eq!(
                finite,
                !(name == "large" && *kind == TensorType::F16 && has_infinity(&ours))
            );
            let back = quantize::decode(*kind, &ours);
            let back: Vec<u8> = back.iter().flat_map(|value| value.to_le_bytes()).collect();
            // gguf keeps the sign of a zero times a negative scale; so do we.
            assert_eq!(back, unhex(&block[format!("{} back", kind.name())]), "{name}");
        }
    }
}

fn has_infinity(bytes: &[u8]) -> bool {
    bytes.as_chunks::<2>().0.iter().any(|b| half::f16::from_le_bytes(*b).is_infinite())
}

/// A tokenizer over bytes with as many tokens as fit a model of fixtures/models, and what is changed in it.
fn tokenizer(changes: Json) -> (Json, Json) {
    let letters: Vec<String> = ('a'..='z').map(String::from).chain(["Ġ".to_owned()]).collect();
    let mut vocab = serde_json::Map::new();
    for (id, token) in
        ["<s>", "</s>", "<|im_end|>"].iter().map(|t| t.to_string()).chain(letters).enumerate()
    {
        vocab.insert(token, json!(id));
    }
    for token in ["th", "the", "Ġthe"] {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    let added = |id: usize, token: &str| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": id < 2})
    };
    let mut tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [added(0, "<s>"), added(1, "</s>"), added(2, "<|im_end|>"), added(33, "<tool>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"]]}
    });
    for (pointer, value) in changes.as_object().unwrap() {
        *tokenizer.pointer_mut(pointer).unwrap() = value.clone();
    }
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": "{{ messages[0].content }}"});
    (tokenizer, config)
}

/// A model of fixtures/models with a tokenizer, and keys of its config.json changed.
fn model(name: &str, changes: Json, of_config: Json) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture("models").join(name)).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let (tokenizer, config) = tokenizer(changes);
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let path = folder.path().join("config.json");
    let mut config: Json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(of_config.as_object().unwrap().clone());
    std::fs::write(&path, config.to_string()).unwrap();
    folder
}

fn exported(base: &Path, kind: TensorType) -> (tempfile::TempDir, File, Exported) {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let exported = export(base, None, &path, kind).unwrap();
    let file = File::open(&path).unwrap();
    (out, file, exported)
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let stored = checkpoint.get(name).unwrap();
    let mut values = vec![0f32; stored.shape.iter().product()];
    stored.to_f32(name, &mut values).unwrap();
    values
}

/// Rows in llama.cpp's order, by its converter's formula: heads of two halves, the halves interleaved.
fn interleaved(values: &[f32], heads: usize, cols: usize) -> Vec<f32> {
    let head = values.len() / heads / cols;
    let mut out = Vec::new();
    for h in 0..heads {
        for i in 0..head / 2 {
            for half in 0..2 {
                let row = h * head + half * (head / 2) + i;
                out.extend(&values[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

#[test]
fn a_model_comes_back_from_every_type() {
    for name in
        ["llama_tied", "llama3_rope", "llama_bias", "mistral_window", "qwen2", "qwen3", "sharded"]
    {
        let base = model(name, json!({}), json!({}));
        let (config, checkpoint) =
            (ModelConfig::load(base.path()).unwrap(), Checkpoint::open(base.path()).unwrap());
        for kind in TensorType::ALL {
            let (_out, file, exported) = exported(base.path(), kind);
            let mut expected = checkpoint
                .names()
                .filter(|name| *name != "lm_head.weight" || !config.tie_word_embeddings)
                .count();
            expected += usize::from(name == "llama3_rope");
            assert_eq!(exported.tensors, expected, "{name}");
            let layer = config.num_hidden_layers - 1;
            let llama = name != "qwen2" && name != "qwen3";
            for (theirs, ours, heads) in [
                (
                    format!("model.layers.{layer}.self_attn.q_proj.weight"),
                    format!("blk.{layer}.attn_q.weight"),
                    config.num_attention_heads,
                ),
                (
                    format!("model.layers.{layer}.self_attn.k_proj.weight"),
                    format!("blk.{layer}.attn_k.weight"),
                    config.num_key_value_heads,
                ),
                (
                    format!("model.layers.{layer}.mlp.down_proj.weight"),
                    format!("blk.{layer}.ffn_down.weight"),
                    0,
                ),
                ("model.embed_tokens.weight".to_owned(), "token_embd.weight".to_owned(), 0),
                ("model.norm.weight".to_owned(), "output_norm.weight".to_owned(), 0),
            ] {
                let (before, after) = (values(&checkpoint, &theirs), file.tensor(&ours).unwrap());
                assert_eq!(after.shape, checkpoint.get(&theirs).unwrap().shape, "{ours}");
                let cols = after.shape.get(1).copied().unwrap_or(1);
                let before =
                    if llama && heads > 0 { interleaved(&before, heads, cols) } else { before };
                let mut bytes = vec![0; after.kind.bytes(before.len())];
                assert!(quantize::encode(after.kind, &before, &mut bytes));
                assert_eq!(after.bytes, bytes, "{ours} of {name} as {}", after.kind.name());
                if ours.ends_with("norm.weight") {
                    assert_eq!(after.kind, TensorType::F32);
                } else if kind.holds_rows_of(cols)
                    && (kind != TensorType::Q4_0 || !ours.starts_with("token"))
                {
                    assert_eq!(after.kind, kind, "{ours}");
                }
            }
        }
    }
}

#[test]
fn a_file_says_what_the_model_is() {
    let base = model("llama3_rope", json!({}), json!({}));
    let (_out, file, exported) = exported(base.path(), TensorType::Q8_0);
    assert!(exported.notes.iter().any(|note| note.starts_with("blk.0.ffn_down.weight is F16")));
    let shown: Vec<String> = file
        .keys()
        .iter()
        .filter(|(key, _)| key != "general.name")
        .map(|(key, value)| match value {
            Value::Array(values) => {
                format!("{key}: {} of {:?}", values.len(), values[values.len() - 1])
            }
            value => format!("{key}: {value:?}"),
        })
        .collect();
    expect![[r#"
        general.architecture: String("llama")
        general.type: String("model")
        general.file_type: U32(7)
        general.quantization_version: U32(2)
        llama.vocab_size: U32(64)
        llama.block_count: U32(3)
        llama.context_length: U32(256)
        llama.embedding_length: U32(32)
        llama.feed_forward_length: U32(40)
        llama.attention.head_count: U32(4)
        llama.attention.head_count_kv: U32(2)
        llama.attention.key_length: U32(16)
        llama.attention.value_length: U32(16)
        llama.attention.layer_norm_rms_epsilon: F32(1e-6)
        llama.rope.dimension_count: U32(16)
        llama.rope.freq_base: F32(10000.0)
        tokenizer.ggml.model: String("gpt2")
        tokenizer.ggml.pre: String("gpt-2")
        tokenizer.ggml.tokens: 64 of String("[PAD63]")
        tokenizer.ggml.merges: 3 of String("Ġ the")
        tokenizer.ggml.token_type: 64 of I32(5)
        tokenizer.ggml.bos_token_id: U32(0)
        tokenizer.ggml.eos_token_id: U32(1)
        tokenizer.ggml.eot_token_id: U32(2)
        tokenizer.ggml.add_bos_token: Bool(true)
        tokenizer.ggml.add_eos_token: Bool(false)
        tokenizer.chat_template: String("{{ messages[0].content }}")"#]]
    .assert_eq(&shown.join("\n"));
    // Llama 3.1's long wavelengths are divided by 8, short ones are kept.
    let factors = file.tensor("rope_freqs.weight").unwrap().to_f32();
    assert_eq!((factors.len(), factors[0], factors[7]), (8, 1.0, 8.0));
    let Some(Value::Array(types)) = file.value("tokenizer.ggml.token_type") else {
        panic!("no types")
    };
    // Special, shaped like a turn, plain, a user's own, a row without a token.
    assert_eq!([0, 2, 3, 33, 40].map(|id| types[id].clone()), [3, 3, 1, 4, 5].map(Value::I32));
}

#[test]
fn a_window_limits_the_context_to_what_is_computed_alike() {
    let base = model("mistral_window", json!({}), json!({}));
    let (_out, file, exported) = exported(base.path(), TensorType::F32);
    assert_eq!(file.value("llama.context_length"), Some(&Value::U32(6)));
    expect!["llama.cpp has no sliding window for llama: the context is 6 positions, up to which it computes the same"]
        .assert_eq(&exported.notes.join("\n"));
}

#[test]
fn sentencepiece_gets_scores_from_its_merges() {
    let mut vocab = serde_json::Map::new();
    for token in
        ["<unk>", "<s>", "</s>", "<0x0A>", "\u{2581}", "t", "h", "e", "th", "the", "\u{2581}the"]
    {
        vocab.insert(token.to_owned(), json!(vocab.len()));
    }
    let changes = json!({
        "/model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": ["t h", "th e", "\u{2581} the"]},
        "/added_tokens": [],
        "/post_processor": null,
        "/decoder": null,
        "/pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false}
    });
    let base = model("llama_tied", changes, json!({}));
    let (_out, file, _) = exported(base.path(), TensorType::F16);
    let key = |key: &str| file.value(&format!("tokenizer.ggml.{key}")).unwrap().clone();
    assert_eq!(key("model"), Value::String("llama".to_owned()));
    assert_eq!(key("add_space_prefix"), Value::Bool(true));
    let (Value::Array(scores), Value::Array(types)) = (key("scores"), key("token_type")) else {
        panic!()
    };
    assert_eq!(
        [8, 9, 10, 5].map(|id| scores[id].clone()),
        [-0.0, -1.0, -2.0, -1e9].map(Value::F32)
    );
    assert_eq!([0, 3, 4].map(|id| types[id].clone()), [2, 6, 1].map(Value::I32));
}

#[test]
fn a_merged_model_holds_what_merge_writes() {
    // fixtures/kto/model has a tokenizer of words; with one over bytes it is a model for GGUF.
    let base = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(fixture("kto/model").join(file), base.path().join(file)).unwrap();
    }
    let (tokenizer, config) = tokenizer(json!({}));
    std::fs::write(base.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(base.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let adapter = fixture("models/adapter");
    let (merged, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    crate::merge::merge(base.path(), &adapter, merged.path()).unwrap();
    let merged = Checkpoint::open(merged.path()).unwrap();
    let path = out.path().join("model.gguf");
    export(base.path(), Some(&adapter), &path, TensorType::F32).unwrap();
    let file = File::open(&path).unwrap();
    for (theirs, ours, heads) in [("self_attn.q_proj", "attn_q", 4), ("mlp.up_proj", "ffn_up", 0)] {
        let before = values(&merged, &format!("model.layers.1.{theirs}.weight"));
        let before = if heads > 0 { interleaved(&before, heads, 32) } else { before };
        assert_eq!(file.tensor(&format!("blk.1.{ours}.weight")).unwrap().to_f32(), before);
    }

    // The adapter alone: B has the rows of q, A is as it was.
    let path = out.path().join("adapter.gguf");
    export_adapter(base.path(), &adapter, &path).unwrap();
    let file = File::open(&path).unwrap();
    let stored = Checkpoint::open_file(&adapter.join("adapter_model.safetensors")).unwrap();
    let of = |kind: &str| {
        values(
            &stored,
            &format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{kind}.weight"),
        )
    };
    let ours = |kind: &str| file.tensor(&format!("blk.0.attn_q.weight.lora_{kind}")).unwrap();
    assert_eq!(ours("a").to_f32(), of("A"));
    assert_eq!(ours("b").to_f32(), interleaved(&of("B"), 4, 4));
    assert_eq!(ours("b").shape, [32, 4]);
    assert_eq!(file.value("adapter.lora.alpha"), Some(&Value::F32(8.0)));
    assert_eq!(file.value("general.architecture"), Some(&Value::String("llama".to_owned())));
}

#[test]
fn what_llama_cpp_would_compute_differently_is_refused() {
    let refused = |name: &str, changes: Json, of_config: Json, expected: Expect| {
        let base = model(name, changes, of_config);
        let out = base.path().join("out.gguf");
        let Err(error) = export(base.path(), None, &out, TensorType::F16) else {
            panic!("it was written")
        };
        assert!(!out.exists());
        expected.assert_eq(&error.to_string().replace(&base.path().display().to_string(), "BASE"));
    };
    let nothing = || json!({});
    refused(
        "llama_tied",
        json!({"/pre_tokenizer": {"type": "Whitespace"}}),
        nothing(),
        expect![[r#"
            the tokenizer of 'BASE/tokenizer.json' cannot be written as GGUF: its pre-tokenizer is [Whitespace]
              hint: llama.cpp knows BPE over bytes with the splits of GPT-2, SmolLM, Llama 3, Qwen 2, Tekken and GPT-4o, and SentencePiece's BPE with byte fallback; `prospect merge` writes the model as safetensors"#]],
    );
    refused(
        "llama_tied",
        json!({"/pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]}}),
        nothing(),
        expect![[r#"
            the tokenizer of 'BASE/tokenizer.json' cannot be written as GGUF: its pre-tokenizer splits by \w+
              hint: llama.cpp knows BPE over bytes with the splits of GPT-2, SmolLM, Llama 3, Qwen 2, Tekken and GPT-4o, and SentencePiece's BPE with byte fallback; `prospect merge` writes the model as safetensors"#]],
    );
    refused(
        "llama_tied",
        json!({"/normalizer": {"type": "Lowercase"}}),
        nothing(),
        expect![[r#"
            the tokenizer of 'BASE/tokenizer.json' cannot be written as GGUF: it normalizes by Lowercase
              hint: llama.cpp knows BPE over bytes with the splits of GPT-2, SmolLM, Llama 3, Qwen 2, Tekken and GPT-4o, and SentencePiece's BPE with byte fallback; `prospect merge` writes the model as safetensors"#]],
    );
    refused(
        "llama_tied",
        nothing(),
        json!({"vocab_size": 20}),
        expect![[r#"
            the tokenizer of 'BASE/tokenizer.json' cannot be written as GGUF: the token 'r' has the id 20, the embedding table has 20 rows
              hint: llama.cpp knows BPE over bytes with the splits of GPT-2, SmolLM, Llama 3, Qwen 2, Tekken and GPT-4o, and SentencePiece's BPE with byte fallback; `prospect merge` writes the model as safetensors"#]],
    );
    refused(
        "llama_tied",
        nothing(),
        json!({"hidden_act": "gelu_pytorch_tanh"}),
        expect![[r#"
        llama.cpp's llama does not compute another hidden_act than silu
          hint: write the model as safetensors instead, by `prospect merge`"#]],
    );
    refused(
        "qwen3",
        nothing(),
        json!({"attention_bias": true}),
        expect![[r#"
        llama.cpp's qwen3 does not compute a bias of the attention's output
          hint: write the model as safetensors instead, by `prospect merge`"#]],
    );
}

#[test]
fn the_families_of_messages_are_those_of_the_table() {
    let of_table = architecture::ARCHITECTURES.map(|it| it.model_type);
    assert_eq!(of_table, FAMILIES);
    assert!(FAMILIES.iter().all(|family| crate::config::SUPPORTED.contains(family)));
}

#[test]
fn a_number_that_f16_cannot_hold_is_named() {
    let base = model("sharded", json!({}), json!({}));
    let checkpoint = Checkpoint::open(base.path()).unwrap();
    let stored = checkpoint.get("model.layers.1.mlp.up_proj.weight").unwrap();
    let (file, tensor) = (stored.file.to_path_buf(), stored.bytes.to_vec());
    let mut bytes = std::fs::read(&file).unwrap();
    let place = bytes.windows(tensor.len()).position(|window| window == tensor).unwrap();
    bytes[place..place + 2].copy_from_slice(&half::bf16::from_f32(1e38).to_le_bytes());
    drop(checkpoint);
    std::fs::write(&file, bytes).unwrap();
    let out = base.path().join("out.gguf");
    let error = export(base.path(), None, &out, TensorType::F16).err().unwrap();
    assert!(error.message.ends_with("holds a number beyond what F16 can"), "{error}");
    assert_eq!(error.fault, data::Fault::Input);
    assert!(!out.exists());
    export(base.path(), None, &out, TensorType::Bf16).unwrap();
}
