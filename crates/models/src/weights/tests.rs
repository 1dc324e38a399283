//! Weights in 4 bits against bitsandbytes 0.50.2: checkpoints as it stored them, and models quantized on load.

use engine::device::Device;
use engine::ops::nf4::{Quantized, Scales};
use engine::testing::cpu;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::testing::fixture;

fn open(device: &Device, folder: &str, quantization: Quantization, storage: Storage) -> Weights {
    let folder = fixture(folder);
    let config = ModelConfig::load(&folder).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    load(device, &config, Some(&checkpoint), quantization, storage).unwrap()
}

fn quantized(weights: &Weights, layer: usize, linear: Linear) -> &Quantized {
    match weights.layers[layer].weight(linear) {
        Weight::Nf4(quantized) => quantized,
        Weight::Dense(_) => panic!("block {layer} holds {linear:?} dense"),
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.as_slice::<u8>().to_vec()
}

fn floats(tensor: &Tensor) -> Vec<u32> {
    tensor.as_slice::<f32>().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_model_quantized_on_load_in_bf16_is_what_bitsandbytes_stored() {
    for (folder, double_quant) in [("models/bnb4_plain", false), ("models/bnb4_dq", true)] {
        let device = cpu();
        let stored = open(&device, folder, Quantization::None, Storage::Bf16);
        let nf4 = Quantization::Nf4 { double_quant };
        let ours = open(&device, "kto/model", nf4, Storage::Bf16);
        for layer in 0..2 {
            for linear in Linear::SEPARATE {
                let place = format!("{folder}, block {layer}, {linear:?}");
                let (ours, stored) =
                    (quantized(&ours, layer, linear), quantized(&stored, layer, linear));
                assert_eq!(bytes(&ours.codes), bytes(&stored.codes), "{place}");
                match (&ours.scales, &stored.scales) {
                    (Scales::Plain { absmax: ours }, Scales::Plain { absmax: stored }) => {
                        assert_eq!(floats(ours), floats(stored), "{place}");
                    }
                    (
                        Scales::Double { codes: ours, nested_absmax, offset },
                        Scales::Double { codes: stored, nested_absmax: theirs, offset: mean },
                    ) => {
                        let near = |(a, b): (u8, u8)| a.abs_diff(b) <= 1;
                        assert!(bytes(ours).into_iter().zip(bytes(stored)).all(near), "{place}");
                        // Its mean is summed in another order.
                        let close = |a: &Tensor, b: &Tensor| {
                            let (a, b) = (a.as_slice::<f32>()[0], b.as_slice::<f32>()[0]);
                            (a - b).abs() <= 2e-7 * b.abs()
                        };
                        assert!(close(offset, mean), "{place}");
                        assert!(close(nested_absmax, theirs), "{place}");
                    }
                    _ => panic!("{place}: one of them has double quantization"),
                }
            }
        }
    }
}

#[test]
fn dequantized_values_are_those_of_bitsandbytes() {
    for folder in ["models/bnb4_plain", "models/bnb4_dq"] {
        let device = cpu();
        let weights = open(&device, folder, Quantization::None, Storage::F32);
        let theirs =
            Checkpoint::open_file(&fixture(folder).join("dequantized.safetensors")).unwrap();
        for (layer, linear) in [(0, Linear::K), (1, Linear::Down)] {
            let name = format!("model.layers.{layer}.{}.weight", linear.path());
            let ours = weights.layers[layer].weight(linear).visit(&device).unwrap();
            let ours: Vec<u32> =
                ours.view().as_slice::<f32>().iter().map(|value| value.to_bits()).collect();
            let theirs: Vec<u32> = theirs
                .get(&name)
                .unwrap()
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .collect();
            assert_eq!(ours, theirs, "{folder}, {name}");
        }
    }
}

#[test]
fn f32_and_bf16_hold_what_the_file_says() {
    let device = cpu();
    let wide = open(&device, "kto/model", Quantization::None, Storage::F32);
    let narrow = open(&device, "kto/model", Quantization::None, Storage::Bf16);
    let file = Checkpoint::open(&fixture("kto/model")).unwrap();
    let stored = file.get("model.embed_tokens.weight").unwrap();
    let mut values = vec![0f32; wide.embed_tokens.shape().len()];
    stored.to_f32("table", &mut values).unwrap();
    assert_eq!(wide.embed_tokens.as_slice::<f32>(), values);
    let rounded: Vec<half::bf16> = values.into_iter().map(half::bf16::from_f32).collect();
    assert_eq!(narrow.embed_tokens.as_slice::<half::bf16>(), rounded);
    assert_eq!(narrow.norm.dtype(), DType::F32, "norms stay exact");
}

#[test]
fn the_number_of_parameters_counts_every_tensor_once() {
    let device = cpu();
    for name in crate::testing::MODELS {
        let mut model = crate::testing::model(&device, name);
        let count: usize =
            model.weights.tensors_mut().iter().map(|(_, tensor)| tensor.shape().len()).sum();
        assert_eq!(model.config.num_parameters(), count, "{name}");
    }
}
