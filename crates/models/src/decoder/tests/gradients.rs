//! Backward of whole models: finite differences, what is kept, threads, memory, dropout.

use engine::device::Device;
use engine::testing::{assert_close, cpu, gradient_matches, plan_takes_what_cpu_takes};

use crate::decoder::{Dropout, Keep, Model};
use crate::generate::{Request, Sampling, generate};
use crate::lora::{Adapter, LoraConfig};
use crate::testing::{MODELS, Packed, Run, Tree, adapter, held, lora, loss, model, step};
use crate::trained::Gradients;
use crate::weights::{Quantization, Storage, Weights};

/// Two prompts, one with two completions that are trained and one that is scored, and a group that rides along.
pub(super) fn packed() -> Packed {
    let trees = [
        Tree {
            prompt: vec![5, 9, 31, 7, 12, 8],
            trained: vec![vec![3, 44, 19, 6], vec![50, 2]],
            scored: vec![vec![11, 3, 3]],
        },
        Tree::line(&[17], &[20, 21, 22, 9, 30, 41, 5]),
    ];
    Packed::new(&trees, &[vec![Tree::line(&[5, 9], &[31, 7])]])
}

pub(super) fn adapter_gradients(
    model: &Model,
    packed: &Packed,
    run: Run<'_>,
    lora: &LoraConfig,
) -> Adapter {
    let mut gradients = Adapter::zeros(model.device(), &model.config, lora).unwrap();
    step(model, packed, run, Some(&mut Gradients::Adapter(&mut gradients)));
    gradients
}

fn bits(tensors: Vec<(String, &mut engine::tensor::Tensor)>) -> Vec<u32> {
    let values = tensors.into_iter().flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap());
    values.map(f32::to_bits).collect()
}

#[test]
fn gradients_of_an_adapter_match_finite_differences() {
    for name in MODELS {
        adapter_matches(name, &lora(), None);
    }
}

#[test]
fn gradients_with_dropout_match_finite_differences_under_the_same_masks() {
    let lora = LoraConfig { lora_dropout: 0.3, ..lora() };
    adapter_matches("qwen3", &lora, Some(Dropout { seed: 5, pass: 9 }));
}

/// DoRA, and whole modules of every kind beside it.
pub(super) fn dora() -> LoraConfig {
    let modules = ["embed_tokens", "lm_head", "norm"].map(str::to_owned);
    LoraConfig { use_dora: true, modules_to_save: modules.to_vec(), ..lora() }
}

#[test]
fn gradients_of_dora_and_of_whole_modules_match_finite_differences() {
    // The lengths of the rows stay as they were measured: they are constants in backward.
    // Between them: tied and untied heads, biases, norms of heads, fused layers, norms behind attention and MLP alone or
    // on both sides, weights of norms that are less by 1, multipliers, soft caps.
    let names = [
        "llama_tied",
        "llama_bias",
        "qwen3_window",
        "phi3",
        "gemma2",
        "gemma3",
        "olmo2",
        "granite",
    ];
    for name in names {
        adapter_matches(name, &dora(), None);
    }
    let lora = LoraConfig { lora_dropout: 0.3, ..dora() };
    adapter_matches("qwen3", &lora, Some(Dropout { seed: 5, pass: 9 }));
}

#[test]
fn rows_that_ride_along_keep_the_bases_modules() {
    for name in ["qwen3", "phi3", "gemma2", "gemma3", "olmo2", "granite"] {
        rides_along(name);
    }
}

fn rides_along(name: &str) {
    let device = cpu();
    let (model, packed) = (model(&device, name), packed());
    let policy = adapter(&model, &dora(), 1);
    let with = |first, along| step(&model, &packed, Run::new(&[first, along]), None);
    let (base, mixed, all) =
        (with(None, None), with(Some(&policy), None), with(Some(&policy), Some(&policy)));
    let along = packed.completions.last().unwrap().len();
    let (ours, behind) = mixed.split_at(mixed.len() - along);
    assert_close(&format!("{name}: policy"), ours, &all[..ours.len()], 1e-5);
    assert_close(&format!("{name}: base"), behind, &base[ours.len()..], 1e-5);
    let differ = behind.iter().zip(&all[ours.len()..]).all(|(a, b)| a != b);
    assert!(differ, "{name}: both are the same");
}

fn adapter_matches(name: &str, lora: &LoraConfig, dropout: Option<Dropout>) {
    let device = cpu();
    let (model, packed) = (model(&device, name), packed());
    let mut policy = adapter(&model, lora, 1);
    let mut gradients = {
        let adapters = [Some(&policy), None];
        let run = Run { dropout, ..Run::new(&adapters) };
        adapter_gradients(&model, &packed, run, lora)
    };
    for (i, (tensor, gradient)) in gradients.tensors_mut().into_iter().enumerate() {
        let start = policy.tensors_mut()[i].1.to_vec::<f32>().unwrap();
        gradient_matches(&format!("{name} {tensor}"), &start, gradient.as_slice(), |values| {
            policy.tensors_mut()[i].1.as_mut_slice::<f32>().copy_from_slice(values);
            let adapters = [Some(&policy), None];
            loss(&model, &packed, Run { dropout, ..Run::new(&adapters) })
        });
        policy.tensors_mut()[i].1.as_mut_slice::<f32>().copy_from_slice(&start);
    }
}

#[test]
fn gradients_of_all_weights_match_finite_differences() {
    for name in MODELS {
        let device = cpu();
        let (mut model, packed) = (model(&device, name), packed());
        let mut gradients = Weights::zeros(&device, &model.config).unwrap();
        step(&model, &packed, Run::new(&[None, None]), Some(&mut Gradients::Full(&mut gradients)));
        // The group that rides along has no gradient, and no weight in the loss.
        for (i, (tensor, gradient)) in gradients.tensors_mut().into_iter().enumerate() {
            let start = model.weights.tensors_mut()[i].1.to_vec::<f32>().unwrap();
            gradient_matches(&format!("{name} {tensor}"), &start, gradient.as_slice(), |values| {
                model.weights.tensors_mut()[i].1.as_mut_slice::<f32>().copy_from_slice(values);
                loss(&model, &packed, Run::new(&[None, None]))
            });
            model.weights.tensors_mut()[i].1.as_mut_slice::<f32>().copy_from_slice(&start);
        }
    }
}

#[test]
fn a_block_that_keeps_its_input_has_the_gradients_of_one_that_keeps_everything() {
    for name in MODELS {
        let device = cpu();
        let (model, packed) = (model(&device, name), packed());
        let kinds = [lora(), dora()].map(|kind| LoraConfig { lora_dropout: 0.2, ..kind });
        // With dropout the MLP runs again whole, without in tiles.
        for (lora, dropout) in
            kinds.iter().flat_map(|kind| [(kind, None), (kind, Some(Dropout { seed: 1, pass: 2 }))])
        {
            let policy = adapter(&model, lora, 1);
            let adapters = [Some(&policy), None];
            let of = |keep| {
                let run = Run { keep, dropout, ..Run::new(&adapters) };
                let mut gradients = adapter_gradients(&model, &packed, run, lora);
                let tensors = gradients.tensors_mut().into_iter();
                tensors
                    .flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap())
                    .collect::<Vec<f32>>()
            };
            let again = of(Keep::Input);
            let place = format!("{name}, DoRA {}, dropout {}", lora.use_dora, dropout.is_some());
            // Tiles are summed one after another, which rounds otherwise.
            let once = of(Keep::All);
            let largest = once.iter().fold(10f32, |largest, value| largest.max(value.abs()));
            assert_close(&place, &again, &once, 1e-5 * largest);
            assert!(
                again == of(Keep::Host),
                "{place}: what waited beside the device is what it was"
            );
        }
        let full = |keep| {
            let mut gradients = Weights::zeros(&device, &model.config).unwrap();
            let run = Run { keep, ..Run::new(&[None, None]) };
            step(&model, &packed, run, Some(&mut Gradients::Full(&mut gradients)));
            let tensors = gradients.tensors_mut().into_iter();
            tensors.flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap()).collect::<Vec<f32>>()
        };
        assert_close(name, &full(Keep::Input), &full(Keep::All), 1e-4);
    }
}

#[test]
fn backward_adds_to_gradients() {
    let device = cpu();
    let (model, packed) = (model(&device, "qwen2"), packed());
    let policy = adapter(&model, &lora(), 1);
    let adapters = [Some(&policy), None];
    let mut gradients = adapter_gradients(&model, &packed, Run::new(&adapters), &lora());
    let values = |gradients: &mut Adapter| -> Vec<f32> {
        gradients
            .tensors_mut()
            .into_iter()
            .flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap())
            .collect()
    };
    let once: Vec<f32> = values(&mut gradients).iter().map(|value| 2.0 * value).collect();
    step(&model, &packed, Run::new(&adapters), Some(&mut Gradients::Adapter(&mut gradients)));
    assert_close("twice", &values(&mut gradients), &once, 1e-4);
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let device = cpu();
            let model = model(&device, "qwen3_window");
            let policy = adapter(&model, &lora(), 1);
            let prompt: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 60).collect();
            let trees = [
                Tree { scored: Vec::new(), trained: vec![prompt[..9].to_vec(); 5], prompt },
                Tree::line(&[4, 5], &[6, 7]),
            ];
            let packed = Packed::new(&trees, &[trees.to_vec()]);
            let adapters = [Some(&policy), None];
            let mut gradients = adapter_gradients(&model, &packed, Run::new(&adapters), &lora());
            let mut full = Weights::zeros(&device, &model.config).unwrap();
            let logps = step(
                &model,
                &packed,
                Run::new(&[None, None]),
                Some(&mut Gradients::Full(&mut full)),
            );
            let logps: Vec<u32> = logps.into_iter().map(f32::to_bits).collect();
            (bits(gradients.tensors_mut()), bits(full.tensors_mut()), logps)
        })
    };
    let one = run(1);
    assert!(one == run(3));
    assert!(one == run(2));
}

#[test]
fn plan_takes_what_the_cpu_takes() {
    let nf4 = |double_quant| Quantization::Nf4 { double_quant };
    let forms = [
        (Quantization::None, Storage::F32),
        (Quantization::None, Storage::Bf16),
        (nf4(false), Storage::Bf16),
        (nf4(true), Storage::F32),
        (Quantization::Fp4 { double_quant: true }, Storage::Bf16),
        (Quantization::Int8, Storage::Bf16),
    ];
    for name in MODELS {
        for (quantization, storage) in forms {
            // With dropout the MLP of a block that runs again is computed whole, without in tiles.
            for (keep, kind, p) in [
                (Keep::All, lora(), 0.1),
                (Keep::All, dora(), 0.0),
                (Keep::Input, dora(), 0.1),
                (Keep::Input, dora(), 0.0),
                (Keep::Host, dora(), 0.0),
            ] {
                plan_takes_what_cpu_takes(|device| {
                    let model = held(device, name, quantization, storage);
                    let lora = LoraConfig { lora_dropout: p, ..kind.clone() };
                    let policy = adapter(&model, &lora, 1);
                    let adapters = [Some(&policy), None];
                    let dropout = (p > 0.0).then_some(Dropout { seed: 1, pass: 1 });
                    let run = Run { keep, dropout, ..Run::new(&adapters) };
                    adapter_gradients(&model, &packed(), run, &lora);
                });
            }
        }
        plan_takes_what_cpu_takes(|device: &Device| {
            let model = model(device, name);
            let mut gradients = Weights::zeros(device, &model.config).unwrap();
            let gradients = &mut Gradients::Full(&mut gradients);
            step(&model, &packed(), Run::new(&[None, None]), Some(gradients));
        });
        plan_takes_what_cpu_takes(|device: &Device| {
            let model = model(device, name);
            let request = Request { sampling: Sampling::GREEDY, max_new_tokens: 5, stop: &[] };
            generate(&model, None, &[vec![3; 7], vec![4]], &request, |_, _| {}).unwrap();
        });
    }
}

#[test]
fn dropout_is_drawn_from_the_seed_and_the_pass() {
    let device = cpu();
    let (model, packed) = (model(&device, "llama_tied"), packed());
    let lora = LoraConfig { lora_dropout: 0.5, ..lora() };
    let policy = adapter(&model, &lora, 1);
    let logps = |dropout| {
        let adapters = [Some(&policy), None];
        step(&model, &packed, Run { dropout, ..Run::new(&adapters) }, None)
    };
    let at = |seed, pass| logps(Some(Dropout { seed, pass }));
    let trained = packed.completions[..packed.trained].iter().flatten().count();
    assert_eq!(at(1, 1), at(1, 1));
    for other in [at(1, 2), at(2, 1), logps(None)] {
        assert_ne!(at(1, 1)[..trained], other[..trained]);
    }
    // Rows of the base have nothing to drop.
    let riding = at(1, 1).len() - packed.completions.last().unwrap().len();
    let none = logps(None);
    assert_close("the base", &at(1, 1)[riding..], &none[riding..], 1e-5);
}

#[test]
fn a_base_whose_weights_are_quantized_has_the_gradients_of_its_dequantized_values() {
    for form in [
        Quantization::Nf4 { double_quant: true },
        Quantization::Fp4 { double_quant: false },
        Quantization::Int8,
    ] {
        has_the_gradients_of_its_dequantized_values(form);
    }
}

fn has_the_gradients_of_its_dequantized_values(form: Quantization) {
    let device = cpu();
    let quantized = held(&device, "qwen3", form, Storage::F32);
    let mut dense = model(&device, "qwen3");
    for (from, to) in quantized.weights.layers.iter().zip(&mut dense.weights.layers) {
        for (from, to) in from.linears.iter().zip(&mut to.linears) {
            let (Some(from), Some(to)) = (from, to) else { continue };
            let values = from.visit(&device).unwrap();
            to.dense_mut().unwrap().copy_prefix(values.view());
        }
    }
    let of = |model: &Model| {
        let policy = adapter(model, &lora(), 1);
        let adapters = [Some(&policy), None];
        bits(adapter_gradients(model, &packed(), Run::new(&adapters), &lora()).tensors_mut())
    };
    assert!(of(&quantized) == of(&dense), "{form:?}");
}
