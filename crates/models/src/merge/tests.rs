//! Merged models against PEFT's merge_and_unload, and how they are laid out in files.

use expect_test::expect;

use half::bf16;

use super::*;
use crate::checkpoint::Stored;
use crate::decoder::Model;
use crate::lora::LoraConfig;
use crate::testing::{self, Packed, Run, Tree, fixture};
use crate::weights::{self, Quantization, Storage};

fn floats(stored: Stored<'_>) -> Vec<f32> {
    let mut values = vec![0f32; stored.shape.iter().product()];
    stored.to_f32("tensor", &mut values).unwrap();
    values
}

/// An adapter that was trained: fixtures/kto/lora_final_kto.safetensors.
fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = fixture("models/adapter/adapter_config.json");
    std::fs::copy(config, folder.path().join("adapter_config.json")).unwrap();
    let weights = fixture("kto/lora_final_kto.safetensors");
    std::fs::copy(weights, folder.path().join("adapter_model.safetensors")).unwrap();
    folder
}

/// fixtures/kto/model with its tensors in bf16.
fn narrow_base() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let base = fixture("kto/model");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let entry = |name: &str| {
        let stored = checkpoint.get(name).unwrap();
        let narrow = floats(stored).into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes());
        let bytes: Vec<u8> = narrow.collect();
        Entry {
            name: name.to_owned(),
            dtype: "BF16",
            shape: stored.shape.to_vec(),
            bytes: Box::new(move || Ok(bytes.clone())),
        }
    };
    let entries: Vec<Entry<'_>> = checkpoint.names().map(entry).collect();
    export::write_safetensors(&folder.path().join("model.safetensors"), &entries).unwrap();
    copy_companions(&base, folder.path()).unwrap();
    folder
}

#[test]
fn a_merged_model_is_pefts() {
    let narrow = narrow_base();
    let adapter = trained();
    for (base, theirs, tolerance) in [
        (fixture("kto/model"), "models/merged_f32.safetensors", 3e-7),
        // The product of B and A may be rounded the other way, and with it the bf16 sum: one unit of 2^-8 of 1.
        (narrow.path().to_path_buf(), "models/merged_bf16.safetensors", 0.004),
    ] {
        let out = tempfile::tempdir().unwrap();
        merge(&base, adapter.path(), out.path()).unwrap();
        let (ours, theirs) = (
            Checkpoint::open(out.path()).unwrap(),
            Checkpoint::open_file(&fixture(theirs)).unwrap(),
        );
        for name in theirs.names() {
            let (a, b) = (ours.get(name).unwrap(), theirs.get(name).unwrap());
            assert_eq!((a.dtype, a.shape), (b.dtype, b.shape), "{name}");
            let (a, b) = (floats(a), floats(b));
            engine::testing::assert_close(name, &a, &b, tolerance);
            let same = a.iter().zip(&b).filter(|(a, b)| a == b).count();
            assert!(tolerance < 1e-6 || same * 500 >= a.len() * 499, "{name}: {same} are the same");
        }
        // What the adapter does not touch is copied, and the folder is a model.
        let before = Checkpoint::open(&base).unwrap();
        for name in ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"] {
            assert_eq!(ours.get(name).unwrap().bytes, before.get(name).unwrap().bytes, "{name}");
        }
        assert_eq!(ModelConfig::load(out.path()).unwrap(), ModelConfig::load(&base).unwrap());
        assert!(out.path().join("tokenizer.json").exists());
    }
}

/// An adapter of noise for the model in `base`.
fn noise(base: &Path) -> tempfile::TempDir {
    let config = ModelConfig::load(base).unwrap();
    let device = engine::testing::cpu();
    let lora = crate::testing::lora();
    let mut adapter = crate::lora::Adapter::zeros(&device, &config, &lora).unwrap();
    for (i, (_, tensor)) in adapter.tensors_mut().into_iter().enumerate() {
        let values = engine::random::Stream::new(1, i as u64).normals(tensor.shape().len());
        tensor.write(&values).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    crate::adapter::write(&mut adapter, "base", folder.path()).unwrap();
    folder
}

#[test]
fn a_quantized_base_is_merged_into_its_dequantized_values() {
    for name in ["bnb_fp4", "bnb_nf4_dynamic", "bnb_int8", "bnb4_dq"] {
        let base = fixture("models").join(name);
        let (adapter, out) = (noise(&base), tempfile::tempdir().unwrap());
        merge(&base, adapter.path(), out.path()).unwrap();
        let config = std::fs::read_to_string(out.path().join("config.json")).unwrap();
        assert!(!config.contains("quantization_config"), "{config}");
        // The merged model, opened as any other, holds W + s B A of what training visited.
        let config = ModelConfig::load(out.path()).unwrap();
        let device = engine::testing::cpu();
        let open = |folder: &Path| {
            let checkpoint = Checkpoint::open(folder).unwrap();
            let (form, storage) = (weights::Quantization::None, weights::Storage::F32);
            weights::load(&device, &config, Some(&checkpoint), form, storage).unwrap()
        };
        let (before, after) = (open(&base), open(out.path()));
        let read = adapter::read(&device, &config, adapter.path()).unwrap();
        for layer in 0..config.num_hidden_layers {
            for &linear in config.linears() {
                let of = |weights: &weights::Weights| {
                    let weight = weights.layers[layer].weight(linear);
                    weight.visit(&device).unwrap().view().to_vec::<f32>().unwrap()
                };
                let lora = read.layers[layer][linear as usize].as_ref().unwrap();
                let (a, b) = (lora.a.to_vec::<f32>().unwrap(), lora.b.to_vec::<f32>().unwrap());
                let (cols, r) = (lora.a.cols(), lora.a.rows());
                let mut expected = of(&before);
                for (i, value) in expected.iter_mut().enumerate() {
                    let (row, col) = (i / cols, i % cols);
                    let delta: f32 = (0..r).map(|k| b[row * r + k] * a[k * cols + col]).sum();
                    *value += lora.scale * delta;
                }
                let largest = expected.iter().fold(0f32, |max, v| max.max(v.abs()));
                let place = format!("{name}, block {layer}, {linear:?}");
                engine::testing::assert_close(&place, &of(&after), &expected, largest / 256.0);
            }
        }
    }
}

#[test]
fn a_merged_model_of_every_family_computes_what_the_base_with_the_adapter_does() {
    let names = ["phi3_longrope", "gemma2", "gemma3", "olmo2", "granite"];
    let whole = ["norm", "embed_tokens"].map(str::to_owned).to_vec();
    let dora = LoraConfig { use_dora: true, modules_to_save: whole, ..testing::lora() };
    for (name, lora) in
        names.iter().flat_map(|name| [(*name, testing::lora()), (*name, dora.clone())])
    {
        let device = engine::testing::cpu();
        let base = testing::model(&device, name);
        let mut trained = testing::adapter(&base, &lora, 1);
        let packed = Packed::new(&[Tree::line(&[5, 6, 7, 8, 9, 10], &[11, 12, 13])], &[]);
        let with_adapter = testing::step(&base, &packed, Run::new(&[Some(&trained)]), None);
        let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        adapter::write(&mut trained, name, folder.path()).unwrap();
        merge(&fixture("models").join(name), folder.path(), out.path()).unwrap();
        let config = ModelConfig::load(out.path()).unwrap();
        let checkpoint = Checkpoint::open(out.path()).unwrap();
        let (none, storage) = (Quantization::None, Storage::F32);
        let weights = weights::load(&device, &config, Some(&checkpoint), none, storage).unwrap();
        let merged = Model::new(&device, config, weights, 64).unwrap();
        let merged = testing::step(&merged, &packed, Run::new(&[None]), None);
        engine::testing::assert_close(name, &merged, &with_adapter, 1e-4);
    }
}

#[test]
fn merging_takes_what_the_plan_says() {
    let base = narrow_base();
    let config = ModelConfig::load(base.path()).unwrap();
    let device = engine::testing::cpu();
    let plain = testing::lora();
    let loftq = |double_quant| LoraConfig {
        start: Start::Loftq { double_quant },
        use_dora: double_quant,
        ..plain.clone()
    };
    let mut taken = Vec::new();
    for lora in [plain.clone(), loftq(false), loftq(true)] {
        let mut adapter = Adapter::zeros(&device, &config, &lora).unwrap();
        for (i, (_, tensor)) in adapter.tensors_mut().into_iter().enumerate() {
            let values = engine::random::Stream::new(1, i as u64).normals(tensor.shape().len());
            tensor.write(&values).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        adapter::write(&mut adapter, "base", folder.path()).unwrap();
        let merging = Merging::open(&config, Some(folder.path())).unwrap();
        let checkpoint = Checkpoint::open(base.path()).unwrap();
        let tensors = dense::tensors(&config, &checkpoint).unwrap();
        let merged = tensors.iter().filter(|tensor| merging.values(tensor).unwrap().is_some());
        assert_eq!(merged.count(), config.num_hidden_layers * config.linears().len());
        let (device, _) = merging.adapter.as_ref().unwrap();
        let planned = planned_bytes(&config, folder.path()).unwrap();
        assert_eq!(device.peak_bytes(), planned, "{:?}", lora.start);
        taken.push(planned);
    }
    // A weight in 4 bits stands beside its values, and its scales take the more the less they are quantized.
    assert!(taken[0] < taken[1], "{taken:?}");
}

#[test]
fn a_large_model_is_written_in_shards_with_an_index() {
    let (base, adapter) = (fixture("kto/model"), trained());
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    merge(&base, adapter.path(), whole.path()).unwrap();
    merge_in_shards(&base, adapter.path(), parts.path(), 30_000).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(parts.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("safetensors"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "model-00001-of-00004.safetensors",
            "model-00002-of-00004.safetensors",
            "model-00003-of-00004.safetensors",
            "model-00004-of-00004.safetensors",
            "model.safetensors.index.json"
        ]
    );
    for name in &names[..4] {
        assert!(std::fs::metadata(parts.path().join(name)).unwrap().len() < 33_000, "{name}");
    }
    let (whole, parts) =
        (Checkpoint::open(whole.path()).unwrap(), Checkpoint::open(parts.path()).unwrap());
    assert!(whole.names().eq(parts.names()));
    for name in whole.names() {
        assert_eq!(whole.get(name).unwrap().bytes, parts.get(name).unwrap().bytes, "{name}");
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let refused = |base: &Path, out: &Path, expected: expect_test::Expect| {
        let error = merge(base, &fixture("models/adapter"), out).unwrap_err().to_string();
        let error = error.replace(&base.display().to_string(), "BASE");
        let error = error.replace(&out.display().to_string(), "OUT");
        expected.assert_eq(&error.replace(env!("CARGO_MANIFEST_DIR"), "MODELS"));
    };
    let out = tempfile::tempdir().unwrap();
    refused(
        &fixture("models/llama_tied"),
        out.path(),
        expect![[r#"
            base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight in 'MODELS/../../fixtures/models/adapter/adapter_model.safetensors' has shape [4, 32], expected [4, 48]
              hint: the adapter belongs to another model, or to another adapter_config.json"#]],
    );
    let base = narrow_base();
    refused(
        base.path(),
        base.path(),
        expect![[r#"
            'BASE/model.safetensors' exists already
              hint: choose a folder that holds no model: the old files would mix with the new ones"#]],
    );
}

#[test]
fn a_base_in_4_bits_is_merged_into_what_the_bits_stand_for() {
    // An adapter that does nothing yet: B is zero.
    let (base, adapter) = (fixture("models/bnb4_dq"), fixture("models/adapter"));
    let out = tempfile::tempdir().unwrap();
    merge(&base, &adapter, out.path()).unwrap();
    let merged = Checkpoint::open(out.path()).unwrap();
    let exact = Checkpoint::open_file(&base.join("dequantized.safetensors")).unwrap();
    for name in exact.names() {
        let ours = merged.get(name).unwrap();
        assert_eq!(ours.dtype, Dtype::BF16, "{name}");
        let theirs = engine::testing::rounded(&floats(exact.get(name).unwrap()));
        assert_eq!(floats(ours), theirs, "{name}");
    }
    assert!(!merged.names().any(|name| name.contains("quant") || name.contains("absmax")));
    let config = files::read_to_string(&out.path().join("config.json")).unwrap();
    assert!(!config.contains("quantization_config"), "{config}");
    let config = ModelConfig::load(out.path()).unwrap();
    let device = engine::testing::cpu();
    let (none, storage) = (weights::Quantization::None, weights::Storage::Bf16);
    weights::load(&device, &config, Some(&merged), none, storage).unwrap();

    // An adapter that makes up for what quantization loses belongs to the same weights, whatever it is merged into.
    let loftq = tempfile::tempdir().unwrap();
    let mut fields: Value =
        serde_json::from_str(&files::read_to_string(&adapter.join(adapter::CONFIG)).unwrap())
            .unwrap();
    fields["loftq_config"] = serde_json::json!({"loftq_bits": 4, "double_quant": true});
    std::fs::write(loftq.path().join(adapter::CONFIG), fields.to_string()).unwrap();
    std::fs::copy(adapter.join(adapter::WEIGHTS), loftq.path().join(adapter::WEIGHTS)).unwrap();
    let (narrow, out) = (narrow_base(), tempfile::tempdir().unwrap());
    merge(narrow.path(), loftq.path(), out.path()).unwrap();
    let from_dense = Checkpoint::open(out.path()).unwrap();
    for name in merged.names() {
        let (ours, theirs) =
            (floats(from_dense.get(name).unwrap()), floats(merged.get(name).unwrap()));
        engine::testing::assert_close(name, &ours, &theirs, 0.01);
        let same = ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
        assert!(same * 100 >= ours.len() * 99, "{name}: {same} of {} are the same", ours.len());
    }
}
