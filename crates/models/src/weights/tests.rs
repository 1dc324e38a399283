//! Weights in 4 bits against bitsandbytes 0.50.2: checkpoints as it stored them, and models quantized on load.

use engine::device::Device;
use engine::ops::nf4::{Quantized, Scales};
use engine::testing::cpu;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::config::{Stored, stored_quantization};
use crate::testing::fixture;

fn open(device: &Device, folder: &str, quantization: Quantization, storage: Storage) -> Weights {
    let folder = fixture(folder);
    let config = ModelConfig::load(&folder).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    load(device, &config, Some(&checkpoint), quantization, storage).unwrap()
}

fn quantized(weights: &Weights, layer: usize, linear: Linear) -> &Quantized {
    match weights.layers[layer].weight(linear) {
        Weight::FourBit(quantized) => quantized,
        _ => panic!("block {layer} does not hold {linear:?} in 4 bits"),
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.as_slice::<u8>().to_vec()
}

fn floats(tensor: &Tensor) -> Vec<u32> {
    tensor.as_slice::<f32>().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn a_model_quantized_on_load_to_4_bits_is_what_bitsandbytes_stored() {
    let (nf4, fp4) = (
        |double_quant| Quantization::Nf4 { double_quant },
        |double_quant| Quantization::Fp4 { double_quant },
    );
    for (folder, base, form, storage) in [
        ("models/bnb4_plain", "kto/model", nf4(false), Storage::Bf16),
        ("models/bnb4_dq", "kto/model", nf4(true), Storage::Bf16),
        ("models/bnb_fp4", "models/llama_f16", fp4(false), Storage::F32),
        ("models/bnb_fp4_dq", "models/llama_f16", fp4(true), Storage::F32),
    ] {
        let device = cpu();
        let stored = open(&device, folder, Quantization::None, storage);
        let ours = open(&device, base, form, storage);
        for layer in 0..2 {
            for linear in Linear::SEPARATE {
                let place = format!("{folder}, block {layer}, {linear:?}");
                let (ours, stored) =
                    (quantized(&ours, layer, linear), quantized(&stored, layer, linear));
                assert_eq!(ours.code_book, stored.code_book, "{place}");
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
fn a_model_quantized_on_load_to_8_bits_is_what_bitsandbytes_stored() {
    let device = cpu();
    let stored = open(&device, "models/bnb_int8", Quantization::None, Storage::F32);
    let ours = open(&device, "models/llama_f16", Quantization::Int8, Storage::F32);
    let mut seen = 0;
    for (ours, stored) in ours.layers.iter().zip(&stored.layers) {
        for linear in Linear::SEPARATE {
            let (ours, stored) = (ours.weight(linear), stored.weight(linear));
            let Weight::Int8(ours) = ours else { panic!("a layer was left out") };
            let Weight::Int8(stored) = stored else { continue };
            let (a, b): (&[i8], &[i8]) = (ours.codes.as_slice(), stored.codes.as_slice());
            let place = a.iter().zip(b).position(|(a, b)| a != b);
            assert_eq!(place.map(|at| (at, a[at], b[at])), None, "codes, after {seen}");
            assert_eq!(floats(&ours.scb), floats(&stored.scb));
            seen += 1;
        }
    }
    assert_eq!(seen, 13, "all but the one that llm_int8_skip_modules names");
}

#[test]
fn layers_that_were_left_in_16_bits_stay_there() {
    for (folder, asked, left) in [
        (
            "models/bnb_nf4_dynamic",
            Quantization::Nf4 { double_quant: true },
            vec![(0, Linear::Gate), (0, Linear::Up), (0, Linear::Down), (1, Linear::O)],
        ),
        ("models/bnb_int8", Quantization::Int8, vec![(1, Linear::Down)]),
    ] {
        for quantization in [Quantization::None, asked] {
            let weights = open(&cpu(), folder, quantization, Storage::Bf16);
            for (layer, linear) in (0..2).flat_map(|i| Linear::SEPARATE.map(|linear| (i, linear))) {
                let weight = weights.layers[layer].weight(linear);
                let dense = matches!(weight, Weight::Dense(_));
                assert_eq!(dense, left.contains(&(layer, linear)), "{folder}: {layer} {linear:?}");
            }
        }
    }
}

#[test]
fn a_checkpoint_in_one_form_is_not_asked_for_in_another() {
    let folder = fixture("models/bnb_int8");
    let (config, checkpoint) =
        (ModelConfig::load(&folder).unwrap(), Checkpoint::open(&folder).unwrap());
    let asked = Quantization::Fp4 { double_quant: false };
    let got = load(&cpu(), &config, Some(&checkpoint), asked, Storage::F32);
    let Err(error) = got else { panic!("it was loaded") };
    let message = error.to_string().replace(&folder.display().to_string(), "FOLDER");
    expect_test::expect![[r#"
        model.quantization = "fp4", but 'FOLDER' is stored as int8
          hint: write quantization = "none": what is stored quantized is taken as it is"#]]
    .assert_eq(&message);
}

#[test]
fn what_a_weight_takes_is_what_its_form_says() {
    let plan = Device::plan_for(Kind::Cpu);
    let config = ModelConfig::load(&fixture("models/llama_f16")).unwrap();
    let bytes = |quantization| {
        let before = plan.used_bytes();
        let _weights = load(&plan, &config, None, quantization, Storage::Bf16).unwrap();
        plan.used_bytes() - before
    };
    let (dense, int8) = (bytes(Quantization::None), bytes(Quantization::Int8));
    let fp4 = bytes(Quantization::Fp4 { double_quant: false });
    assert_eq!(fp4, bytes(Quantization::Nf4 { double_quant: false }));
    // 2, 1 + 4/64 and 0.5 + 4/64 bytes of each of the 2 * 24,576 weights; the keys' and values' scales are 128 bytes,
    // which take 256.
    assert_eq!(dense - int8, 49_152 * 15 / 16 - 4 * 128);
    assert_eq!(int8 - fp4, 49_152 / 2);
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

#[test]
fn what_config_json_says_of_a_quantized_model_takes_what_its_tensors_take() {
    for name in ["bnb_fp4", "bnb_fp4_dq", "bnb4_plain", "bnb4_dq"] {
        let folder = fixture("models").join(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let Stored::Throughout(said) = stored_quantization(&folder).unwrap() else {
            panic!("{name} is quantized throughout")
        };
        assert_eq!(Some(said.name()), stored_form(&checkpoint), "{name}");
        let config = ModelConfig::load(&folder).unwrap();
        let bytes = |checkpoint: Option<&Checkpoint>, quantization| {
            let plan = Device::plan_for(Kind::Cpu);
            let _weights = load(&plan, &config, checkpoint, quantization, Storage::Bf16).unwrap();
            plan.used_bytes()
        };
        assert_eq!(bytes(None, said), bytes(Some(&checkpoint), Quantization::None), "{name}");
    }
    let stored = |name: &str| stored_quantization(&fixture("models").join(name)).unwrap();
    assert_eq!(stored("qwen3"), Stored::Dense);
    // Blocks have layers that were left dense.
    assert_eq!([stored("bnb_int8"), stored("bnb_nf4_dynamic")], [Stored::InPart; 2]);
}
