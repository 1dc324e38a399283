//! Logits and greedy continuations of every model of fixtures/models, as transformers 5.23 computes them.

use engine::device::Device;
use engine::testing::{assert_close, cpu};
use serde::Deserialize;

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::decoder::Model;
use crate::generate::{Request, Sampling, generate};
use crate::testing::{MODELS, Packed, STORED, Tree, fixture, logits, model};
use crate::weights::{self, Quantization, Storage};

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
}

fn expected(name: &str) -> Expected {
    let path = fixture("models").join(name).join("expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn whole(prompt: &[u32]) -> Tree {
    Tree { prompt: prompt.to_vec(), trained: Vec::new(), scored: Vec::new() }
}

#[test]
fn logits_are_those_of_transformers() {
    for name in MODELS.into_iter().chain(STORED) {
        let device = cpu();
        let model = model(&device, name);
        let theirs =
            Checkpoint::open_file(&fixture("models").join(name).join("logits.safetensors"))
                .unwrap();
        let prompts = expected(name).prompts;
        let trees: Vec<Tree> = prompts.iter().map(|prompt| whole(prompt)).collect();
        let packed = logits(&model, None, &Packed::new(&trees, &[]));
        let mut start = 0;
        for (i, prompt) in prompts.iter().enumerate() {
            let shape = [prompt.len(), model.config.vocab_size];
            let mut values = vec![0f32; shape[0] * shape[1]];
            let stored = theirs.expect(&i.to_string(), &shape).unwrap();
            stored.to_f32("logits", &mut values).unwrap();
            let alone = logits(&model, None, &Packed::new(&[whole(prompt)], &[]));
            assert_close(&format!("{name}, prompt {i}"), &alone, &values, 2e-4);
            let within = &packed[start..start + values.len()];
            assert_close(&format!("{name}, prompt {i}, packed"), within, &values, 2e-4);
            start += values.len();
        }
    }
}

/// bitsandbytes rounds activations to 8 bits besides: in this model of random weights that is 1.3 to 3.8 % of the logits, as
/// much as rounding the weights is.
#[test]
fn logits_in_int8_are_near_those_of_bitsandbytes_which_rounds_activations_too() {
    let device = cpu();
    let model = model(&device, "bnb_int8");
    let folder = fixture("models/bnb_int8");
    let theirs = Checkpoint::open_file(&folder.join("int8_logits.safetensors")).unwrap();
    for (i, prompt) in expected("bnb_int8").prompts.iter().enumerate() {
        let ours = logits(&model, None, &Packed::new(&[whole(prompt)], &[]));
        let mut values = vec![0f32; ours.len()];
        theirs.get(&i.to_string()).unwrap().to_f32("logits", &mut values).unwrap();
        let square = |values: &mut dyn Iterator<Item = f32>| -> f32 { values.map(|v| v * v).sum() };
        let off = square(&mut ours.iter().zip(&values).map(|(a, b)| a - b));
        let share = (off / square(&mut values.iter().copied())).sqrt();
        assert!((1e-3..0.06).contains(&share), "prompt {i}: {share}");
    }
}

#[test]
fn greedy_continuations_are_those_of_transformers_together_and_one_by_one() {
    for name in MODELS.into_iter().chain(STORED) {
        let device = cpu();
        let model = model(&device, name);
        let Expected { prompts, greedy } = expected(name);
        let request = Request { sampling: Sampling::GREEDY, max_new_tokens: 12, stop: &[] };
        let mut seen = vec![Vec::new(); prompts.len()];
        let together =
            generate(&model, None, &prompts, &request, |prompt, token| seen[prompt].push(token));
        assert_eq!(together.unwrap(), greedy, "{name}");
        assert_eq!(seen, greedy, "{name}: tokens as they were chosen");
        for (prompt, tokens) in prompts.iter().zip(&greedy) {
            let one = generate(&model, None, std::slice::from_ref(prompt), &request, |_, _| {});
            assert_eq!(one.unwrap(), std::slice::from_ref(tokens), "{name}, alone");
        }
    }
}

#[test]
fn a_stop_token_ends_its_own_continuation_alone() {
    let device = cpu();
    let model = model(&device, "qwen3");
    let Expected { prompts, greedy } = expected("qwen3");
    let stop = [greedy[0][4]];
    let request = Request { sampling: Sampling::GREEDY, max_new_tokens: 12, stop: &stop };
    let written = generate(&model, None, &prompts, &request, |_, _| {}).unwrap();
    for (written, whole) in written.iter().zip(&greedy) {
        let until = whole.iter().position(|token| *token == stop[0]).unwrap_or(12);
        assert_eq!(*written, whole[..until]);
    }
}

#[test]
fn sampling_does_not_depend_on_the_prompts_beside() {
    let device = cpu();
    let model = model(&device, "llama_tied");
    let prompts = expected("llama_tied").prompts;
    let sampling = Sampling { temperature: 0.8, top_p: 0.9, top_k: 0, seed: 7 };
    let request = Request { sampling, max_new_tokens: 12, stop: &[] };
    let three = generate(&model, None, &prompts, &request, |_, _| {}).unwrap();
    let two = generate(&model, None, &prompts[..2], &request, |_, _| {}).unwrap();
    assert_eq!(three[..2], two);
    let other = Request { sampling: Sampling { seed: 8, ..sampling }, ..request };
    assert_ne!(generate(&model, None, &prompts, &other, |_, _| {}).unwrap(), three);
}

#[test]
fn a_table_beside_the_device_gives_the_same_logits() {
    for storage in [Storage::F32, Storage::Bf16] {
        let device = cpu();
        let folder = fixture("models").join("qwen3");
        let config = ModelConfig::load(&folder).unwrap();
        assert!(!config.tie_word_embeddings);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let packed = Packed::new(&[whole(&[3, 5, 3, 7])], &[]);
        let on = |table: &Device| {
            let checkpoint = Some(&checkpoint);
            let none = Quantization::None;
            let weights =
                weights::load_beside(&device, table, &config, checkpoint, none, storage).unwrap();
            logits(&Model::new(&device, config.clone(), weights, 64).unwrap(), None, &packed)
        };
        assert!(on(&device) == on(device.host()));
    }
}
