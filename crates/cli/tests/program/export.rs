//! `prospect export`, on the quickstart's model: its tokenizer is one that llama.cpp knows.

use std::path::Path;

use crate::place::Place;
use expect_test::expect;
use models::gguf::read::File;

fn place() -> Place {
    let place = Place::new();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/quickstart/model");
    place.copy(&model, "quickstart");
    place
}

#[test]
fn a_model_is_written_for_llama_cpp() {
    let place = place();
    let came = place.well("export --model quickstart --to gguf --type q8_0 out.gguf");
    expect![[r#"
        wrote 38 tensors, 1.0 MiB, into 'out.gguf'
        try next: llama-cli -m out.gguf
    "#]]
    .assert_eq(&came.stdout);
    let file = File::open(&place.path("out.gguf")).unwrap();
    assert_eq!(file.tensor("token_embd.weight").unwrap().shape, [1024, 128]);
    let came = place.run("export --model quickstart --to gguf out.gguf");
    assert_eq!(came.code, Some(2));
    expect![[r#"
        error: 'out.gguf' exists already
          hint: choose another name, or remove it first
    "#]]
    .assert_eq(&came.stderr);
    // A tokenizer of words is none that llama.cpp has.
    let came = place.run("export --model model --to gguf other.gguf");
    assert_eq!((came.code, place.path("other.gguf").exists()), (Some(2), false), "{}", came.stderr);
}

#[test]
fn a_folder_is_written_for_ollama() {
    let place = place();
    let came = place.well("export --model quickstart --to ollama --type bf16 served");
    expect![[r#"
        wrote 38 tensors, 1.9 MiB, into 'served/model.gguf'
        try next: ollama create NAME -f served/Modelfile
    "#]]
    .assert_eq(&came.stdout);
    expect![[r#"
        FROM ./model.gguf
        PARAMETER stop "<|end|>"
    "#]]
    .assert_eq(&place.read("served/Modelfile"));
    assert!(File::open(&place.path("served/model.gguf")).is_ok());
}

#[test]
fn an_adapter_is_written_alone_or_merged_in() {
    let place = place();
    place.write("words.jsonl", "{\"prompt\": \"hello\", \"completion\": \" there\", \"label\": true}\n{\"prompt\": \"so\", \"completion\": \" what\", \"label\": false}\n");
    let data = "--set data.train=words.jsonl --set data.eval=words.jsonl --set generate.prompts=prompts.jsonl";
    place.well(&format!("train recipe.toml --set model.path=quickstart --set train.max_steps=2 --set train.batch_size=2 {data}"));
    // The adapter says what it was trained on.
    place.well("export --adapter run/adapter --to gguf-lora lora.gguf");
    let lora = File::open(&place.path("lora.gguf")).unwrap();
    assert_eq!(lora.tensor("blk.3.ffn_down.weight.lora_b").unwrap().shape, [128, 4]);
    place.well("export --model run --to gguf --type f32 run.gguf");
    place.well("export --model quickstart --adapter run/adapter --to gguf --type f32 merged.gguf");
    let (run, merged) = (place.bytes("run.gguf"), place.bytes("merged.gguf"));
    assert!(run == merged, "the run's folder is its model and its adapter");
    place.well("export --model quickstart --to gguf --type f32 base.gguf");
    assert!(place.bytes("base.gguf") != merged);
    let came = place.run("export --model quickstart --to gguf-lora x.gguf");
    expect![[r#"
        error: --to gguf-lora writes an adapter, and none is given
          hint: name its folder by --adapter, such as runs/quickstart/adapter
    "#]]
    .assert_eq(&came.stderr);
}
