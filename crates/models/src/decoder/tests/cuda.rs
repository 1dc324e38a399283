//! Whole models of every family on a GPU, if there is one, beside the CPU: log-probabilities, and the gradients of an
//! adapter.

use engine::device::Device;
use engine::testing::{cpu, cuda};

use super::gradients::{adapter_gradients, dora, packed};
use crate::lora::LoraConfig;
use crate::testing::{MODELS, Run, STORED, adapter, lora, model, step};

/// How far numbers are from others, in parts of their length.
fn distance(ours: &[f32], theirs: &[f32]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = length(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b)));
    apart / length(&mut theirs.iter().map(|b| f64::from(*b)))
}

/// Log-probabilities, and the gradients of an adapter one after the other.
fn run(device: &Device, name: &str, lora: &LoraConfig) -> [Vec<f32>; 2] {
    let (model, packed) = (model(device, name), packed());
    let policy = adapter(&model, lora, 1);
    let adapters = [Some(&policy), None];
    let logps = step(&model, &packed, Run::new(&adapters), None);
    let mut gradients = adapter_gradients(&model, &packed, Run::new(&adapters), lora);
    let tensors = gradients.tensors_mut().into_iter();
    [logps, tensors.flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap()).collect()]
}

#[test]
fn on_cuda_every_family_computes_what_the_cpu_does() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for name in MODELS.into_iter().chain(STORED) {
        if !model(&cpu(), name).config.head_dim.is_multiple_of(8) {
            // Refused on a GPU, by a check of its own.
            continue;
        }
        for lora in [lora(), dora()] {
            let Some(gpu) = cuda() else { return };
            let (exact, ours) = (run(&cpu(), name, &lora), run(&gpu, name, &lora));
            // bf16 rounds by up to 0.4 %, some dozen times on the way.
            for (what, at_most, i) in [("log-probabilities", 0.02, 0), ("gradients", 0.05, 1)] {
                let apart = distance(&ours[i], &exact[i]);
                if apart.is_nan() || apart > at_most {
                    wrong.push(format!("{name}, DoRA {}: {what} {apart}", lora.use_dora));
                }
            }
            if ours != run(&gpu, name, &lora) {
                wrong.push(format!("{name}, DoRA {}: two runs differ", lora.use_dora));
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared >= 40, "only {compared} were compared");
}
