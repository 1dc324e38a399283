//! Quantized checkpoints that lie: about shapes, scales, tables, or about what wrote them.

use super::*;
use crate::weights::Linear;

const K: &str = "model.layers.0.self_attn.k_proj";

fn stored(name: &str) -> Folder {
    Folder::copy(&format!("models/{name}"))
}

fn weight(suffix: &str) -> String {
    format!("{K}.weight{suffix}")
}

/// As it is stored, what is loaded with `none`.
fn load(folder: &Folder) -> Result<()> {
    folder.load_as(&[Quantization::None])
}

fn refused(folder: &Folder, expected: Expect) {
    let Err(error) = load(folder) else { panic!("the folder was loaded") };
    let message = error.to_string().replace(&folder.path().display().to_string(), "FOLDER");
    expected.assert_eq(&message);
}

/// Another quantization state of the first layer's keys.
fn with_state(change: impl FnOnce(&mut Value)) -> Folder {
    let folder = stored("bnb_fp4_dq");
    folder.change(|tensors| {
        let state = named(tensors, &weight(".quant_state.bitsandbytes__fp4"));
        let mut value: Value = serde_json::from_slice(&state.3).unwrap();
        change(&mut value);
        state.3 = value.to_string().into_bytes();
        state.2 = vec![state.3.len()];
    });
    folder
}

#[test]
fn a_state_that_lies_is_refused() {
    load(&with_state(|_| {})).unwrap();
    refused(
        &with_state(|state| state["shape"] = json!([64, 32])),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' is of shape [64, 32], config.json asks for [32, 64]
              hint: download the checkpoint again"#]],
    );
    refused(
        &with_state(|state| state["shape"] = json!([u64::MAX, u64::MAX])),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' is of shape [18446744073709551615, 18446744073709551615], config.json asks for [32, 64]
              hint: download the checkpoint again"#]],
    );
    refused(
        &with_state(|state| state["shape"] = json!([-1, 2])),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' has a quantization state that is not understood: invalid value: integer `-1`, expected usize at line 1 column 64
              hint: download the checkpoint again"#]],
    );
    refused(
        &with_state(|state| state["blocksize"] = json!(1u64 << 40)),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' has blocks of 1099511627776
              hint: bitsandbytes knows powers of two from 32 to 4096"#]],
    );
    refused(
        &with_state(|state| state["blocksize"] = json!(128)),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.absmax in 'FOLDER/model.safetensors' has shape [32], expected [16]
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &with_state(|state| state["nested_offset"] = json!(1e300)),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' has a quantization state that is not understood: number out of range at line 1 column 139
              hint: download the checkpoint again"#]],
    );
    // Without an offset the scales are meant to be as they are, and in f32.
    refused(
        &with_state(|state| state["nested_offset"] = Value::Null),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.absmax in 'FOLDER/model.safetensors' holds U8, expected F32
              hint: download the checkpoint again"#]],
    );
    refused(
        &with_state(|state| *state = json!([1, 2])),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' has a quantization state that is not understood: invalid type: integer `1`, expected a string at line 1 column 2
              hint: download the checkpoint again"#]],
    );
}

/// The model in fp4, one tensor of the first layer's keys changed.
fn with(suffix: &str, change: impl FnOnce(&mut Tensor)) -> Folder {
    let folder = stored("bnb_fp4_dq");
    folder.change(|tensors| change(named(tensors, &weight(suffix))));
    folder
}

#[test]
fn parts_of_another_length_or_type_are_refused() {
    let shorter = |tensor: &mut Tensor| {
        tensor.2[0] -= 1;
        let bytes = tensor.3.len() / (tensor.2[0] + 1);
        tensor.3.truncate(tensor.3.len() - bytes);
    };
    refused(
        &with("", shorter),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' has 1023 bytes of codes, expected 1024
              hint: download the checkpoint again"#]],
    );
    refused(
        &with(".absmax", shorter),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.absmax in 'FOLDER/model.safetensors' has shape [31], expected [32]
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &with(".nested_absmax", |tensor| {
            tensor.2 = vec![2];
            tensor.3.extend([0; 4]);
        }),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.nested_absmax in 'FOLDER/model.safetensors' has shape [2], expected [1]
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &with(".quant_map", shorter),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.quant_map in 'FOLDER/model.safetensors' has shape [15], expected [16]
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &with(".quant_map", |tensor| tensor.3[4..8].copy_from_slice(&0.01f32.to_le_bytes())),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.quant_map in 'FOLDER' is not bitsandbytes' table
              hint: Prospect reads the standard nf4, fp4 and dynamic 8-bit tables alone"#]],
    );
    refused(
        &with(".nested_quant_map", |tensor| {
            tensor.3[0..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight.nested_quant_map in 'FOLDER' is not bitsandbytes' table
              hint: Prospect reads the standard nf4, fp4 and dynamic 8-bit tables alone"#]],
    );
    let missing = stored("bnb_fp4_dq");
    missing.change(|tensors| tensors.retain(|tensor| tensor.0 != weight(".nested_absmax")));
    refused(
        &missing,
        expect![[r#"
            'FOLDER' has no tensor model.layers.0.self_attn.k_proj.weight.nested_absmax
              hint: config.json and the safetensors belong to different models, or a shard is missing"#]],
    );
    let stateless = stored("bnb_fp4_dq");
    let state = weight(".quant_state.bitsandbytes__fp4");
    stateless.change(|tensors| tensors.retain(|tensor| tensor.0 != state));
    refused(
        &stateless,
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' holds U8 and has no quantization state
              hint: a shard is missing, or another program than bitsandbytes quantized it: take the model in bf16"#]],
    );
    let both = stored("bnb_fp4_dq");
    both.change(|tensors| {
        let mut second = named(tensors, &state).clone();
        second.0 = weight(".quant_state.bitsandbytes__nf4");
        tensors.push(second);
    });
    refused(
        &both,
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' has a quantization state of nf4 and one of fp4
              hint: download the checkpoint again"#]],
    );
}

#[test]
fn a_table_may_differ_in_its_last_bits_and_codes_may_be_stored_as_numbers() {
    let last_bit = |tensor: &mut Tensor| {
        for value in tensor.3.chunks_mut(4) {
            value[0] ^= 1;
        }
        // Zero has no last bits to be off by.
        tensor.3[127 * 4..128 * 4].fill(0);
    };
    load(&with(".nested_quant_map", last_bit)).unwrap();
    // bnb_4bit_quant_storage = "bfloat16": half as many elements.
    let numbers = with("", |tensor| (tensor.1, tensor.2) = ("BF16", vec![512, 1]));
    load(&numbers).unwrap();
    let values = |folder: &Folder| {
        let device = engine::testing::cpu();
        let config = ModelConfig::load(folder.path()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let form = Quantization::None;
        let weights =
            weights::load(&device, &config, Some(&checkpoint), form, Storage::F32).unwrap();
        let held = weights.layers[0].weight(Linear::K).visit(&device).unwrap();
        held.view().to_vec::<f32>().unwrap()
    };
    assert_eq!(values(&numbers), values(&stored("bnb_fp4_dq")));
}

#[test]
fn rows_in_8_bits_that_lie_are_refused() {
    let part = |name: &'static str, change: fn(&mut Tensor)| {
        let folder = stored("bnb_int8");
        folder.change(|tensors| change(named(tensors, &format!("{K}.{name}"))));
        folder
    };
    load(&part("SCB", |_| {})).unwrap();
    refused(
        &part("SCB", |tensor| {
            tensor.2 = vec![31];
            tensor.3.truncate(31 * 4);
        }),
        expect![[r#"
            model.layers.0.self_attn.k_proj.SCB in 'FOLDER/model.safetensors' has shape [31], expected [32]
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &part("SCB", |tensor| tensor.0 = "model.layers.0.self_attn.k_proj.SCC".to_owned()),
        expect![[r#"
            'FOLDER' holds model.layers.0.self_attn.k_proj.SCC, which a llama model of this config.json does not have
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &part("weight_format", |tensor| tensor.3 = vec![3]),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' is in a weight_format of a GPU's generation, not in rows
              hint: load and save it with bitsandbytes 0.45 or newer, which writes rows"#]],
    );
    refused(
        &part("weight", |tensor| tensor.2.reverse()),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER/model.safetensors' has shape [64, 32], expected [32, 64]
              hint: config.json and the safetensors belong to different models"#]],
    );
    refused(
        &part("weight", |tensor| tensor.1 = "U8"),
        expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER' holds U8 and has no quantization state
              hint: a shard is missing, or another program than bitsandbytes quantized it: take the model in bf16"#]],
    );
}

#[test]
fn a_value_beyond_f16_is_not_quantized_to_8_bits() {
    let folder = Folder::copy("models/qwen3");
    folder.change(|tensors| {
        let tensor = named(tensors, &weight(""));
        let at = tensor.3.len() / 2;
        tensor.3[at..at + 4].copy_from_slice(&70_000f32.to_le_bytes());
    });
    let error = folder.load_as(&[Quantization::Int8]).unwrap_err();
    expect![[r#"
        row 16 of model.layers.0.self_attn.k_proj.weight has a value beyond f16, through which int8 goes
          hint: write model.quantization = "nf4", which has no such limit"#]]
    .assert_eq(&error.to_string());
    folder.load().unwrap();
}

#[test]
fn other_methods_are_named() {
    for (ending, expected) in [
        (
            ".qweight",
            expect![[r#"
                'FOLDER' is quantized by gptq or awq: it holds model.layers.0.self_attn.k_proj.qweight
                  hint: Prospect reads bitsandbytes' nf4, fp4 and int8; take the model it was made from, in bf16, which model.quantization = "nf4" quantizes on load"#]],
        ),
        (
            ".weight_scale_inv",
            expect![[r#"
                'FOLDER' is quantized by fp8: it holds model.layers.0.self_attn.k_proj.weight_scale_inv
                  hint: Prospect reads bitsandbytes' nf4, fp4 and int8; save it dense by `AutoModelForCausalLM.from_pretrained(..., quantization_config=FineGrainedFP8Config(dequantize=True))`, or take the model in bf16, which model.quantization = "nf4" quantizes on load"#]],
        ),
    ] {
        let folder = small();
        folder.change(|tensors| named(tensors, &weight("")).0 = format!("{K}{ending}"));
        refused(&folder, expected);
    }
    let head = stored("bnb_int8");
    head.change(|tensors| {
        let head = named(tensors, "lm_head.weight");
        (head.1, head.3) = ("I8", vec![0; head.3.len() / 2]);
    });
    refused(
        &head,
        expect![[r#"
            lm_head.weight in 'FOLDER/model.safetensors' is quantized
              hint: Prospect holds embeddings and head dense: quantize the model again with llm_int8_skip_modules=["lm_head"]"#]],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_of_a_quantized_checkpoint_are_an_error_or_a_model(
        form in 0..3usize,
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1u8.., any::<bool>()), 1..4),
    ) {
        let folder = stored(["bnb_fp4_dq", "bnb_int8", "bnb_nf4_dynamic"][form]);
        let mut bytes = std::fs::read(folder.path().join(MODEL)).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        // The states are text between the numbers.
        let states: Vec<usize> = bytes
            .windows(12)
            .enumerate()
            .filter(|(_, window)| window == b"{\"quant_type")
            .map(|(at, _)| at)
            .collect();
        for (index, flip, anywhere) in flips {
            let at = match states.is_empty() || anywhere {
                true => index.index(header),
                false => states[index.index(states.len())] + usize::from(flip) % 166,
            };
            // A state may be the last of the file, and shorter than others.
            let last = bytes.len() - 1;
            bytes[at.min(last)] ^= flip;
        }
        let _ = load(folder.write(MODEL, bytes));
    }
}
