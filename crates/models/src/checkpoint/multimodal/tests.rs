//! Gemma 3 with its part that reads images: the adapter of PEFT 0.21.2 in `fixtures/models/gemma3_adapter`, and what is written.
//!
//! By hand, with transformers 5.23: `AutoModelForCausalLM` loads what `merge` writes of both fixtures without a missing or
//! unexpected tensor, and `PeftModel` what `adapter::write` writes.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::ModelConfig;
use crate::decoder::Model;
use crate::testing::{self, Packed, Run, Tree, fixture};
use crate::weights::{self, Quantization, Storage};
use crate::{adapter, merge};

const NAMES: [&str; 2] = ["gemma3_multimodal", "gemma3_multimodal_5"];

fn folder(name: &str) -> std::path::PathBuf {
    fixture("models").join(name)
}

fn names(path: &Path) -> BTreeSet<String> {
    Checkpoint::open_file(path).unwrap().names().map(str::to_owned).collect()
}

#[test]
fn the_decoder_has_its_usual_names_and_the_rest_is_set_aside() {
    for name in NAMES {
        let checkpoint = Checkpoint::open(&folder(name)).unwrap();
        let decoder: Vec<&str> = checkpoint.names().collect();
        assert!(decoder.contains(&"model.embed_tokens.weight"), "{decoder:?}");
        assert!(decoder.contains(&"model.layers.1.self_attn.q_norm.weight"), "{decoder:?}");
        assert_eq!(decoder.contains(&"lm_head.weight"), name == "gemma3_multimodal_5");
        let vision = |name: &str| name.contains("vision_tower") || name.contains("projector");
        assert!(!decoder.into_iter().any(vision));
        assert!(checkpoint.beside().count() > 20 && checkpoint.beside().all(vision));
    }
}

#[test]
fn an_adapter_of_peft_is_read_and_computes_what_it_does_there() {
    let (device, from) = (engine::testing::cpu(), folder("gemma3_adapter"));
    let model = testing::model(&device, "gemma3_multimodal");
    let mut ours = adapter::read(&device, &model.config, &from).unwrap();
    let theirs = Checkpoint::open_file(&from.join("logits.safetensors")).unwrap();
    let text = std::fs::read_to_string(folder("gemma3_multimodal").join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (i, prompt) in expected["prompts"].as_array().unwrap().iter().enumerate() {
        let prompt: Vec<u32> =
            prompt.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let [first, rest @ ..] = prompt.as_slice() else { panic!("an empty prompt") };
        if rest.is_empty() {
            continue;
        }
        let mut logits = vec![0f32; prompt.len() * model.config.vocab_size];
        let stored = theirs.expect(&i.to_string(), &[prompt.len(), model.config.vocab_size]);
        stored.unwrap().to_f32("logits", &mut logits).unwrap();
        let rows = logits.chunks(model.config.vocab_size).zip(rest);
        let logps: Vec<f32> = rows
            .map(|(row, token)| {
                let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
                (f64::from(row[*token as usize]) - sum.ln()) as f32
            })
            .collect();
        let packed = Packed::new(&[Tree::line(&[*first], rest)], &[]);
        let with = testing::step(&model, &packed, Run::new(&[Some(&ours)]), None);
        let without = testing::step(&model, &packed, Run::new(&[None]), None);
        engine::testing::assert_close(&format!("prompt {i}"), &with, &logps, 2e-4);
        let moved = without.iter().zip(&logps).any(|(a, b)| (a - b).abs() > 0.1);
        assert!(moved, "the adapter changes nothing");
    }
    // It is written as PEFT wrote it.
    let out = tempfile::tempdir().unwrap();
    adapter::write(&mut ours, "gemma3_multimodal", out.path()).unwrap();
    assert_eq!(names(&out.path().join(adapter::WEIGHTS)), names(&from.join(adapter::WEIGHTS)));
    let config = |folder: &Path| -> serde_json::Value {
        let text = std::fs::read_to_string(folder.join(adapter::CONFIG)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(config(out.path())["exclude_modules"], config(&from)["exclude_modules"]);
    assert_eq!(adapter::read_config(out.path()).unwrap(), adapter::read_config(&from).unwrap());
}

#[test]
fn an_adapter_under_the_names_before_transformers_4_52_is_read() {
    let (device, from) = (engine::testing::cpu(), folder("gemma3_adapter"));
    let config = ModelConfig::load(&folder("gemma3_multimodal")).unwrap();
    let mut new = adapter::read(&device, &config, &from).unwrap();
    let out = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(from.join(adapter::CONFIG)).unwrap();
    let write = |target_modules: serde_json::Value| {
        let mut fields: serde_json::Value = serde_json::from_str(&text).unwrap();
        fields["target_modules"] = target_modules;
        std::fs::write(out.path().join(adapter::CONFIG), fields.to_string()).unwrap();
    };
    let entries: Vec<Entry<'_>> = new
        .tensors_mut()
        .into_iter()
        .map(|(name, tensor)| {
            let old = name.replace("model.model.language_model.", "model.language_model.model.");
            assert_ne!(name, old);
            Entry::f32(old, tensor)
        })
        .collect();
    crate::export::write_safetensors(&out.path().join(adapter::WEIGHTS), &entries).unwrap();
    drop(entries);
    let theirs = r"language_model\.model\.layers\.\d+\.(self_attn\.[qv]_proj|mlp\.down_proj)";
    for targets in [serde_json::json!(["q_proj", "v_proj", "down_proj"]), theirs.into()] {
        write(targets);
        let mut old = adapter::read(&device, &config, out.path()).unwrap();
        for ((name, a), (_, b)) in new.tensors_mut().into_iter().zip(old.tensors_mut()) {
            assert_eq!(a.as_slice::<f32>(), b.as_slice::<f32>(), "{name}");
        }
        // What is written of it has today's names, in the file and in the config.
        let again = tempfile::tempdir().unwrap();
        adapter::write(&mut old, "gemma3_multimodal", again.path()).unwrap();
        let mut read = adapter::read(&device, &config, again.path()).unwrap();
        assert_eq!(read.num_parameters(), new.num_parameters());
        assert_eq!(
            names(&again.path().join(adapter::WEIGHTS)),
            names(&from.join(adapter::WEIGHTS))
        );
    }
    write(r"language_model\.model\.layers\.\d+\.self_attn\.x_proj".into());
    let error = adapter::read(&device, &config, out.path()).err().unwrap().to_string();
    assert!(error.contains("matches the whole path of no linear layer"), "{error}");
}

#[test]
fn a_merged_folder_is_the_whole_model() {
    for name in NAMES {
        let device = engine::testing::cpu();
        let base = testing::model(&device, name);
        let mut trained = testing::adapter(&base, &testing::lora(), 1);
        let packed = Packed::new(&[Tree::line(&[5, 6, 7, 8, 9, 10], &[11, 12, 13])], &[]);
        let with_adapter = testing::step(&base, &packed, Run::new(&[Some(&trained)]), None);
        let (adapter_folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        adapter::write(&mut trained, name, adapter_folder.path()).unwrap();
        merge::merge(&folder(name), adapter_folder.path(), out.path()).unwrap();
        let (before, after) =
            (folder(name).join("model.safetensors"), out.path().join("model.safetensors"));
        assert_eq!(names(&before), names(&after));
        let (before, after) =
            (Checkpoint::open_file(&before).unwrap(), Checkpoint::open_file(&after).unwrap());
        for name in before.names() {
            let (before, after) = (before.get(name).unwrap(), after.get(name).unwrap());
            assert_eq!((before.dtype, before.shape), (after.dtype, after.shape), "{name}");
            let merged = name.ends_with("_proj.weight") && name.contains("language_model");
            assert_eq!(before.bytes == after.bytes, !merged, "{name}");
        }
        let config = ModelConfig::load(out.path()).unwrap();
        let checkpoint = Checkpoint::open(out.path()).unwrap();
        let (none, storage) = (Quantization::None, Storage::F32);
        let weights = weights::load(&device, &config, Some(&checkpoint), none, storage).unwrap();
        let merged = Model::new(&device, config, weights, 64).unwrap();
        let merged = testing::step(&merged, &packed, Run::new(&[None]), None);
        // One of the two is stored in bf16.
        let tolerance = if name == "gemma3_multimodal" { 0.2 } else { 1e-4 };
        engine::testing::assert_close(name, &merged, &with_adapter, tolerance);
    }
}

#[test]
fn a_part_that_config_json_knows_nothing_of_is_refused() {
    let device = engine::testing::cpu();
    let config = ModelConfig { multimodal: false, ..ModelConfig::load(&folder(NAMES[0])).unwrap() };
    let checkpoint = Checkpoint::open(&folder(NAMES[0])).unwrap();
    let loaded =
        weights::load(&device, &config, Some(&checkpoint), Quantization::None, Storage::F32);
    let Err(error) = loaded else { panic!("it was loaded") };
    expect_test::expect![[r#"
        'FOLDER' holds multi_modal_projector.mm_input_projection_weight, which a gemma3_text model of this config.json does not have
          hint: config.json and the safetensors belong to different models"#]]
    .assert_eq(&error.to_string().replace(&folder(NAMES[0]).display().to_string(), "FOLDER"));
}
