//! fixtures/adapters: adapters that PEFT 0.21.2 wrote give its logits, merge as it merges, and are written again so that
//! it computes the same; and so do adapters that start from the base's weights.

use expect_test::expect_file;

use super::*;
use crate::config::ModelConfig;
use crate::decoder::Model;
use crate::lora::LoraConfig;
use crate::lora::start::{Base, Start};
use crate::lora::targets::{Names, Targets};
use crate::merge;
use crate::testing::model;

/// Logits of a whole prompt.
fn logits(model: &Model, adapter: Option<&Adapter>, prompt: &[u32]) -> Vec<f32> {
    let tree = Tree { prompt: prompt.to_vec(), trained: Vec::new(), scored: Vec::new() };
    crate::testing::logits(model, adapter, &Packed::new(&[tree], &[]))
}

fn floats(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let stored = checkpoint.get(name).unwrap();
    let mut values = vec![0f32; stored.shape.iter().product()];
    stored.to_f32(name, &mut values).unwrap();
    values
}

/// The model's logits with the adapter are those in `file`.
fn gives_logits(name: &str, base: &str, model: &Model, adapter: Option<&Adapter>, file: &Path) {
    let expected = fixture("models").join(base).join("expected.json");
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(expected).unwrap()).unwrap();
    let theirs = Checkpoint::open_file(file).unwrap();
    for (i, prompt) in expected["prompts"].as_array().unwrap().iter().enumerate() {
        let prompt: Vec<u32> =
            prompt.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let (ours, theirs) = (logits(model, adapter, &prompt), floats(&theirs, &i.to_string()));
        engine::testing::assert_close(&format!("{name}, prompt {i}"), &ours, &theirs, 2e-4);
    }
}

/// What is written is what lies in fixtures/adapters/NAME/prospect, of which PEFT's logits are.
fn is_what_peft_was_given(name: &str, folder: &Path) {
    let given = fixture("adapters").join(name).join("prospect");
    let config = std::fs::read_to_string(folder.join(CONFIG)).unwrap();
    expect_file![given.join(CONFIG)].assert_eq(&config);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::copy(folder.join(WEIGHTS), given.join(WEIGHTS)).unwrap();
    }
    let (ours, given) = (
        Checkpoint::open_file(&folder.join(WEIGHTS)).unwrap(),
        Checkpoint::open_file(&given.join(WEIGHTS)).unwrap(),
    );
    assert!(ours.names().eq(given.names()), "{name}");
    for tensor in ours.names() {
        let shape = |checkpoint: &Checkpoint| checkpoint.get(tensor).unwrap().shape.to_vec();
        assert_eq!(shape(&ours), shape(&given), "{name}: {tensor}");
        // Factors differ in their last bits from one kind of CPU to another.
        engine::testing::assert_close(
            tensor,
            &floats(&ours, tensor),
            &floats(&given, tensor),
            1e-5,
        );
    }
}

const CASES: [(&str, &str); 8] = [
    ("dora", "llama_bias"),
    ("patterns", "qwen3"),
    ("layers", "mistral_window"),
    ("saved", "qwen3_window"),
    ("head", "sharded"),
    ("fused", "phi3"),
    ("four_norms", "gemma2"),
    ("six_norms", "gemma3"),
];

#[test]
fn what_peft_writes_gives_its_logits_and_is_written_for_peft_again() {
    for (name, base) in CASES {
        let (device, folder) = (engine::testing::cpu(), fixture("adapters").join(name));
        let model = model(&device, base);
        let mut adapter = read(&device, &model.config, &folder).unwrap();
        adapter.measure(&model.weights).unwrap();
        gives_logits(name, base, &model, Some(&adapter), &folder.join("logits.safetensors"));

        let ours = tempfile::tempdir().unwrap();
        write(&mut adapter, base, ours.path()).unwrap();
        same_tensors(&ours.path().join(WEIGHTS), &folder.join(WEIGHTS));
        is_what_peft_was_given(name, ours.path());
        if std::env::var_os("UPDATE_EXPECT").is_none() {
            let theirs = folder.join("prospect/logits.safetensors");
            gives_logits(name, base, &model, Some(&adapter), &theirs);
        }
    }
}

#[test]
fn every_kind_merges_as_in_peft() {
    for (name, base) in CASES {
        let (from, folder) = (fixture("models").join(base), fixture("adapters").join(name));
        let out = tempfile::tempdir().unwrap();
        merge::merge(&from, &folder, out.path()).unwrap();
        let merged = Checkpoint::open(out.path()).unwrap();
        let theirs = Checkpoint::open_file(&folder.join("merged.safetensors")).unwrap();
        let config = ModelConfig::load(out.path()).unwrap();
        assert!(!config.tie_word_embeddings, "{name}");
        for tensor in theirs.names() {
            // The bases are bf16 or f32 on disk; PEFT merged all in f32.
            let narrow = merged.get(tensor).unwrap().dtype == safetensors::Dtype::BF16;
            let (ours, theirs) = (floats(&merged, tensor), floats(&theirs, tensor));
            let rounded = engine::testing::rounded(&theirs);
            let theirs = if narrow { &rounded } else { &theirs };
            let same = ours.iter().zip(theirs).filter(|(a, b)| a == b).count();
            let tolerance = if narrow { 0.01 } else { 1e-6 };
            engine::testing::assert_close(&format!("{name}: {tensor}"), &ours, theirs, tolerance);
            assert!(
                !narrow || same * 100 >= ours.len() * 99,
                "{name}: {tensor}: {same} are the same"
            );
        }
    }
}

/// An adapter that starts from the base's weights and is trained a little: it, and its start.
fn started(model: &mut Model, base: &str, lora: &LoraConfig) -> (Adapter, Adapter) {
    let device = model.device().clone();
    let checkpoint = Checkpoint::open(&fixture("models").join(base)).unwrap();
    let mut start = Adapter::zeros(&device, &model.config, lora).unwrap();
    let base = Base { checkpoint: Some(&checkpoint), storage: Storage::F32 };
    start.start(&mut model.weights, base, 7).unwrap();
    let mut policy = Adapter::zeros(&device, &model.config, lora).unwrap();
    policy.copy_from(&mut start);
    policy.measure(&model.weights).unwrap();
    (policy, start)
}

#[test]
fn a_start_from_the_weights_is_the_base_and_is_written_for_it() {
    let names = |names: &[&str]| {
        Targets::Named(Names::List(names.iter().map(|name| (*name).to_owned()).collect()))
    };
    let plain = LoraConfig { r: 4, lora_alpha: 6.0, use_rslora: true, ..LoraConfig::default() };
    let pissa = LoraConfig { start: Start::Pissa { niter: None }, ..plain.clone() };
    let olora = LoraConfig {
        start: Start::Olora,
        use_dora: true,
        use_rslora: false,
        target_modules: names(&["q_proj", "down_proj"]),
        ..plain
    };
    for (name, base, lora) in [("pissa", "qwen3", pissa), ("olora_dora", "llama_bias", olora)] {
        let device = engine::testing::cpu();
        let (mut model, whole) = (model(&device, base), model(&device, base));
        let (mut policy, mut start) = started(&mut model, base, &lora);
        let prompt = [5, 9, 31, 7, 12];
        let (before, after) =
            (logits(&whole, None, &prompt), logits(&model, Some(&start), &prompt));
        engine::testing::assert_close(name, &after, &before, 1e-4);
        assert_ne!(logits(&model, None, &prompt), before, "{name}: the base lost its part");

        for (i, (_, tensor)) in policy.tensors_mut().into_iter().enumerate() {
            let noise =
                engine::random::Stream::new(3, i as u64).uniforms(tensor.shape().len(), 0.1);
            let values = tensor.as_mut_slice::<f32>();
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
        }
        policy.measure(&model.weights).unwrap();
        let ours = tempfile::tempdir().unwrap();
        let config = config_json(&policy, base);
        let starts = start.tensors_mut();
        let both = policy.tensors_mut().into_iter().zip(&starts);
        let entries: Vec<Entry<'_>> =
            both.map(|((name, now), (_, then))| entry(&name, now, Some(&**then))).collect();
        export::write_safetensors(&ours.path().join(WEIGHTS), &entries).unwrap();
        data::files::write_json(&ours.path().join(CONFIG), &config).unwrap();
        drop(entries);
        is_what_peft_was_given(name, ours.path());

        // The same function: the rest with the adapter, and the whole base with what was written.
        let mut written = read(&device, &model.config, ours.path()).unwrap();
        written.measure(&whole.weights).unwrap();
        let (rest, all) =
            (logits(&model, Some(&policy), &prompt), logits(&whole, Some(&written), &prompt));
        engine::testing::assert_close(name, &all, &rest, 2e-4);
        if std::env::var_os("UPDATE_EXPECT").is_none() {
            let theirs = fixture("adapters").join(name).join("prospect/logits.safetensors");
            gives_logits(name, base, &model, Some(&policy), &theirs);
        }
    }
}

#[test]
fn what_quantization_loses_is_less_with_loftq() {
    let device = engine::testing::cpu();
    let lora =
        LoraConfig { r: 8, start: Start::Loftq { double_quant: false }, ..LoraConfig::default() };
    let nf4 = Quantization::Nf4 { double_quant: false };
    let mut model = crate::testing::held(&device, "qwen3", nf4, Storage::F32);
    let (adapter, _) = started(&mut model, "qwen3", &lora);
    let whole = crate::testing::model(&device, "qwen3");
    let away = |matrix: &[f32], exact: &[f32]| -> f64 {
        matrix.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    };
    for (layer, matrices) in adapter.layers.iter().enumerate() {
        for (linear, lora) in matrices.iter().enumerate() {
            let Some(lora) = lora else { continue };
            let held = model.weights.layers[layer].linears[linear]
                .as_ref()
                .unwrap()
                .visit(&device)
                .unwrap();
            let exact = whole.weights.layers[layer].linears[linear]
                .as_ref()
                .unwrap()
                .visit(&device)
                .unwrap();
            let mut with = held.view().as_slice::<f32>().to_vec();
            let (a, b) = (lora.a.as_slice::<f32>(), lora.b.as_slice::<f32>());
            for (row, b) in with.chunks_mut(lora.a.cols()).zip(b.chunks(8)) {
                for (b, a) in b.iter().zip(a.chunks(lora.a.cols())) {
                    row.iter_mut().zip(a).for_each(|(w, a)| *w += lora.scale * b * a);
                }
            }
            let exact = exact.view().as_slice::<f32>();
            let (alone, with) = (away(held.view().as_slice(), exact), away(&with, exact));
            assert!(with < 0.9 * alone, "block {layer}, {linear}: {alone} without, {with} with");
        }
    }
    // Dense weights lose nothing.
    let mut dense = crate::testing::model(&device, "qwen3");
    let checkpoint = Checkpoint::open(&fixture("models/qwen3")).unwrap();
    let mut adapter = Adapter::zeros(&device, &dense.config, &lora).unwrap();
    let base = Base { checkpoint: Some(&checkpoint), storage: Storage::F32 };
    let error = adapter.start(&mut dense.weights, base, 1).unwrap_err();
    expect![[r#"
        adapter.init = "loftq" makes up for what quantization loses, and the model is not quantized
          hint: write model.quantization = "nf4", or take another init"#]]
    .assert_eq(&error.to_string());
}

#[test]
fn a_base_in_4_bits_holds_the_rest_in_4_bits() {
    // PEFT's way to a quantized residual: the float residual, quantized on load.
    let device = engine::testing::cpu();
    let lora =
        LoraConfig { r: 2, start: Start::Pissa { niter: Some(20) }, ..LoraConfig::default() };
    let nf4 = Quantization::Nf4 { double_quant: true };
    let mut quantized = crate::testing::held(&device, "qwen3", nf4, Storage::F32);
    let mut dense = crate::testing::model(&device, "qwen3");
    let (ours, _) = started(&mut quantized, "qwen3", &lora);
    let (exact, _) = started(&mut dense, "qwen3", &lora);
    let rest = dense.weights.layers[1].linears[4].as_ref().unwrap().visit(&device).unwrap();
    let mut expected = engine::ops::nf4::Quantized::new(
        &device,
        rest.view().shape(),
        engine::ops::nf4::CodeBook::Nf4,
        64,
        true,
    )
    .unwrap();
    engine::ops::nf4::quantize(rest.view(), &mut expected).unwrap();
    let Some(crate::weights::Weight::FourBit(held)) = &quantized.weights.layers[1].linears[4]
    else {
        panic!("the weight is in 4 bits")
    };
    assert_eq!(held.codes.as_slice::<u8>(), expected.codes.as_slice::<u8>());
    let matrices = |adapter: &Adapter| adapter.layers[1][4].as_ref().unwrap().a.to_vec::<f32>();
    assert_eq!(matrices(&ours).unwrap(), matrices(&exact).unwrap());
}

#[test]
fn plan_takes_what_a_start_takes() {
    let nf4 = Quantization::Nf4 { double_quant: true };
    let starts = [
        (Start::Gaussian, Quantization::None, Storage::F32),
        (Start::Pissa { niter: None }, Quantization::None, Storage::Bf16),
        (Start::Pissa { niter: Some(2) }, nf4, Storage::Bf16),
        (Start::Olora, nf4, Storage::F32),
        (Start::Loftq { double_quant: true }, nf4, Storage::Bf16),
    ];
    let checkpoint = Checkpoint::open(&fixture("models/qwen3")).unwrap();
    for (start, quantization, storage) in starts {
        engine::testing::plan_takes_what_cpu_takes(|device| {
            let mut model = crate::testing::held(device, "qwen3", quantization, storage);
            let modules_to_save = vec!["norm".to_owned(), "lm_head".to_owned()];
            let lora =
                LoraConfig { start, use_dora: true, modules_to_save, ..LoraConfig::default() };
            let mut adapter = Adapter::zeros(device, &model.config, &lora).unwrap();
            let base = Base { checkpoint: Some(&checkpoint), storage };
            adapter.start(&mut model.weights, base, 1).unwrap();
        });
    }
}
