//! Adapters as PEFT 0.21.2 wrote them, and what is refused.
//!
//! The other direction was tried by hand: PEFT 0.21.2 loaded what [`write`] made of fixtures/kto/lora_final_kto, and
//! its logits, which the adapter moves by up to 3.5, were those of the decoder to 2.4e-6.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::testing::{Packed, Run, Tree, fixture, step};
use crate::weights::{self, Quantization, Storage};

fn kto_config() -> ModelConfig {
    ModelConfig::load(&fixture("kto/model")).unwrap()
}

/// The golden adapter's folder with changes of its config, in a folder of its own.
fn changed(changes: Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = fixture("models/adapter");
    std::fs::copy(from.join(WEIGHTS), folder.path().join(WEIGHTS)).unwrap();
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(from.join(CONFIG)).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    std::fs::write(folder.path().join(CONFIG), config.to_string()).unwrap();
    folder
}

fn refused(folder: &Path, config: &ModelConfig, expected: Expect) {
    let Err(error) = read(&engine::testing::cpu(), config, folder) else {
        panic!("the adapter was read")
    };
    expected.assert_eq(&error.to_string().replace(&folder.display().to_string(), "FOLDER"));
}

fn same_tensors(ours: &Path, theirs: &Path) {
    let (ours, theirs) =
        (Checkpoint::open_file(ours).unwrap(), Checkpoint::open_file(theirs).unwrap());
    assert!(ours.names().eq(theirs.names()));
    for name in ours.names() {
        let (a, b) = (ours.get(name).unwrap(), theirs.get(name).unwrap());
        assert_eq!((a.dtype, a.shape, a.bytes), (b.dtype, b.shape, b.bytes), "{name}");
    }
}

#[test]
fn an_adapter_that_is_read_and_written_is_the_same_to_the_byte() {
    let device = engine::testing::cpu();
    let from = fixture("models/adapter");
    let mut adapter = read(&device, &kto_config(), &from).unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(&mut adapter, "kto/model", folder.path()).unwrap();
    same_tensors(&folder.path().join(WEIGHTS), &from.join(WEIGHTS));
    assert_eq!(read_config(folder.path()).unwrap(), read_config(&from).unwrap());
    let object = |folder: &Path| -> Map<String, Value> {
        serde_json::from_str(&std::fs::read_to_string(folder.join(CONFIG)).unwrap()).unwrap()
    };
    let theirs = object(&from);
    for (key, value) in object(folder.path()) {
        assert_eq!(Some(&value), theirs.get(&key), "{key}");
    }
}

#[test]
fn names_of_a_state_dict_are_read_too() {
    let device = engine::testing::cpu();
    let folder = changed(json!({}));
    // TRL's state dict, with `lora_A.default.weight`.
    let path = fixture("kto/lora_final_kto.safetensors");
    std::fs::copy(&path, folder.path().join(WEIGHTS)).unwrap();
    let mut adapter = read(&device, &kto_config(), folder.path()).unwrap();
    let stored = Checkpoint::open_file(&path).unwrap();
    for (name, tensor) in adapter.tensors_mut() {
        let stored = stored.get(&name.replace(".weight", ".default.weight")).unwrap();
        let bytes = stored.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        assert!(tensor.as_slice::<f32>().iter().copied().eq(bytes), "{name}");
    }
}

#[test]
fn rank_stabilized_lora_divides_by_the_root_of_the_rank() {
    let of = |changes| read_config(changed(changes).path()).unwrap();
    assert_eq!(of(json!({})).scale(), 2.0);
    assert_eq!(of(json!({"use_rslora": true})).scale(), 4.0);
    // What the scale is for: doubling it is doubling what the adapter adds.
    let device = engine::testing::cpu();
    let config = kto_config();
    let checkpoint = Checkpoint::open(&fixture("kto/model")).unwrap();
    let weights =
        weights::load(&device, &config, Some(&checkpoint), Quantization::None, Storage::F32)
            .unwrap();
    let model = crate::decoder::Model::new(&device, config, weights, 32).unwrap();
    let logps = |changes: Value| {
        let folder = changed(changes);
        std::fs::copy(fixture("kto/lora_final_kto.safetensors"), folder.path().join(WEIGHTS))
            .unwrap();
        let adapter = read(&device, &model.config, folder.path()).unwrap();
        let packed = Packed::new(&[Tree::line(&[5, 6, 7], &[8, 9])], &[]);
        step(&model, &packed, Run::new(&[Some(&adapter)]), None)
    };
    assert_eq!(logps(json!({"use_rslora": true})), logps(json!({"lora_alpha": 16})));
    assert_ne!(logps(json!({"use_rslora": true})), logps(json!({})));
}

#[test]
fn dora_is_refused() {
    refused(
        &fixture("models/adapter_dora"),
        &kto_config(),
        expect![[r#"
            FOLDER/adapter_config.json: use_dora = true is not supported
              hint: Prospect computes plain LoRA, with use_dora = false"#]],
    );
}

#[test]
fn what_would_be_computed_differently_is_refused() {
    let refused = |changes: Value, expected: Expect| {
        refused(changed(changes).path(), &kto_config(), expected);
    };
    refused(
        json!({"init_lora_weights": "pissa"}),
        expect![[r#"
            FOLDER/adapter_config.json: init_lora_weights = "pissa" is not supported
              hint: Prospect computes plain LoRA, with init_lora_weights = true"#]],
    );
    refused(
        json!({"rank_pattern": {"q_proj": 8}}),
        expect![[r#"
            FOLDER/adapter_config.json: rank_pattern = {"q_proj":8} is not supported
              hint: Prospect computes plain LoRA, with rank_pattern = {}"#]],
    );
    refused(
        json!({"r": 0}),
        expect![[r#"
            FOLDER/adapter_config.json: r or lora_alpha is missing or no rank
              hint: r is a whole number from 1 to 65536, lora_alpha a number"#]],
    );
    refused(
        json!({"use_rslora": "yes"}),
        expect![[r#"
            FOLDER/adapter_config.json: use_rslora = "yes" is neither true nor false
              hint: write the adapter again with PEFT or Prospect"#]],
    );
    refused(
        json!({"lora_dropout": 1.0}),
        expect![[r#"
            FOLDER/adapter_config.json: lora_dropout = 1.0 is no share of inputs
              hint: it is a number from 0 to below 1"#]],
    );
    refused(
        json!({"target_modules": "q_proj|v_proj"}),
        expect![[r#"
            FOLDER/adapter_config.json: target_modules is neither a list of names nor "all-linear"
              hint: list the modules' names"#]],
    );
    refused(
        json!({"target_modules": ["q_proj", "c_attn"]}),
        expect![[r#"
            target_modules names 'c_attn', which no linear layer of the model is called
              hint: the modules are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj; the head and the embeddings take no adapter"#]],
    );
    refused(
        json!({"target_modules": ["q_proj"]}),
        expect![[r#"
            'FOLDER/adapter_model.safetensors' holds 28 tensors, 4 of which are of the modules that adapter_config.json names
              hint: the two files belong to different adapters, or to another model"#]],
    );
    refused(
        json!({"r": 8}),
        expect![[r#"
            base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight in 'FOLDER/adapter_model.safetensors' has shape [4, 32], expected [8, 32]
              hint: the adapter belongs to another model, or to another adapter_config.json"#]],
    );
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let of = |name: &str| ModelConfig::load(&fixture("models").join(name)).unwrap();
    refused(
        &fixture("models/adapter"),
        &of("llama_tied"),
        expect![[r#"
            base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight in 'FOLDER/adapter_model.safetensors' has shape [4, 32], expected [4, 48]
              hint: the adapter belongs to another model, or to another adapter_config.json"#]],
    );
    refused(
        changed(json!({"target_modules": "all-linear"})).path(),
        &ModelConfig { num_hidden_layers: 3, ..kto_config() },
        expect![[r#"
            'FOLDER' has no tensor base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight
              hint: the adapter belongs to another model, or to another adapter_config.json"#]],
    );
    let empty = tempfile::tempdir().unwrap();
    refused(
        empty.path(),
        &kto_config(),
        expect![[r#"
            FOLDER/adapter_config.json: there is no such file
              hint: an adapter folder has adapter_config.json and adapter_model.safetensors, as PEFT writes them"#]],
    );
}
