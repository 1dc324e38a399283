//! Models that bitsandbytes stored quantized: trained, merged, asked; and files quantized by `inspect quantize`.

use std::path::Path;

use crate::place::Place;
use expect_test::expect;

/// Puts a model of fixtures/models into `to`, with the tokenizer of the place's model.
fn stored(place: &Place, name: &str, to: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    place.copy(&fixtures.join(name), to);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(place.path("model").join(file), place.path(to).join(file)).unwrap();
    }
}

#[test]
fn a_model_stored_quantized_is_trained_in_what_was_planned_and_merged() {
    let place = Place::new();
    for name in ["bnb_fp4_dq", "bnb_nf4_dynamic", "bnb_int8", "llama_f16"] {
        stored(&place, name, name);
        let sets = format!(
            "--set model.path={name} --set output=run-{name} --set train.max_steps=6 --set model.dtype=bf16"
        );
        place.well(&format!("train recipe.toml {sets}"));
        let summary = place.json(&format!("run-{name}/summary.json"));
        assert_eq!(summary["planned_peak_bytes"], summary["peak_bytes"], "{name}");
        place.well(&format!("merge {name} --adapter run-{name}/adapter --out merged-{name}"));
        place.well(&format!("generate merged-{name} --prompt w1 --raw --max-new-tokens 3"));
    }
    let refused = |arguments: &str, expected: expect_test::Expect| {
        let came = place.run(arguments);
        assert_eq!(came.code, Some(2), "{}", came.stderr);
        let said = &came.stderr[came.stderr.find("error: ").unwrap()..];
        expected
            .assert_eq(&said.replace(&place.path("bnb_int8").display().to_string(), "bnb_int8"));
    };
    refused(
        "train recipe.toml --set model.path=bnb_int8 --set model.quantization=nf4",
        expect![[r#"
            error: model.quantization = "nf4", but 'bnb_int8' is stored as int8
              hint: write quantization = "none": what is stored quantized is taken as it is
        "#]],
    );
    place.write("full.toml", &place.read("recipe.toml").replace("[adapter]\nr = 4\n", ""));
    refused(
        "train full.toml --set model.path=bnb_int8",
        expect![[r#"
            error: no [adapter], and 'bnb_int8' is stored as int8: quantized weights cannot be trained
              hint: add an [adapter] table, or take the model in bf16
        "#]],
    );
}

#[test]
fn a_file_quantized_by_inspect_is_a_model_whose_merged_adapter_answers_the_same() {
    let place = Place::new();
    place.copy(&place.path("model"), "four");
    let quantize = "inspect quantize model/model.safetensors --to fp4 --double-quant --out";
    let came = place.run(&format!("{quantize} four/model.safetensors"));
    assert_eq!(came.code, Some(2), "it exists: {}", came.stderr);
    std::fs::remove_file(place.path("four/model.safetensors")).unwrap();
    expect![[r#"
        wrote 'four/model.safetensors': 14 tensors in fp4, 7 tensors as before; 43.1 KiB instead of 88.6 KiB
    "#]]
    .assert_eq(&place.well(&format!("{quantize} four/model.safetensors")).stdout);
    place.well("train recipe.toml --set model.path=four --set train.max_steps=40");
    place.well("merge four --adapter run/adapter --out merged");
    let ask = |model: &str| {
        place.well(&format!("generate {model} --prompt w3 --raw --max-new-tokens 8")).stdout
    };
    let answer = ask("run");
    assert_eq!(answer, ask("merged"));
    assert_eq!(answer, ask("four --adapter run/adapter"));
}
