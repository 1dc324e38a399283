//! Checkpoints that are broken, incomplete, of another model or hostile: each an error that says so, never a panic.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

mod quantized;

use super::*;
use crate::config::ModelConfig;
use crate::decoder::Model;
use crate::export::{self, Entry};
use crate::generate::{Request, Sampling, generate};
use crate::testing::fixture;
use crate::weights::{self, Quantization, Storage};

const MODEL: &str = "model.safetensors";

/// A model folder of its own, to be damaged.
struct Folder(tempfile::TempDir);

impl Folder {
    fn copy(from: &str) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture(from)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Folder(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes the tensors again as `change` leaves them: name, element type, shape, bytes.
    fn change(&self, change: impl FnOnce(&mut Vec<Tensor>)) -> &Folder {
        let path = self.path().join(MODEL);
        let mut tensors: Vec<Tensor> = {
            let stored = Checkpoint::open_file(&path).unwrap();
            let copy = |name: &str| {
                let stored = stored.get(name).unwrap();
                let dtype = match stored.dtype {
                    Dtype::F32 => "F32",
                    Dtype::F16 => "F16",
                    Dtype::U8 => "U8",
                    Dtype::I8 => "I8",
                    _ => "BF16",
                };
                (name.to_owned(), dtype, stored.shape.to_vec(), stored.bytes.to_vec())
            };
            stored.names().map(copy).collect()
        };
        change(&mut tensors);
        let entries: Vec<Entry<'_>> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Entry {
                name: name.clone(),
                dtype,
                shape: shape.clone(),
                bytes: Box::new(|| Ok(bytes.clone())),
            })
            .collect();
        export::write_safetensors(&path, &entries).unwrap();
        self
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Folder {
        std::fs::write(self.path().join(name), bytes).unwrap();
        self
    }

    /// Writes a safetensors file of this header, with `data` zeros behind it.
    fn header(&self, header: &Value, data: usize) -> &Folder {
        let text = header.to_string();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend(vec![0; data]);
        self.write(MODEL, bytes)
    }

    /// Loads it as a run does: first on `plan`, then with as many bytes as that took.
    fn load(&self) -> Result<()> {
        self.load_as(&[Quantization::None, Quantization::Nf4 { double_quant: true }])
    }

    fn load_as(&self, forms: &[Quantization]) -> Result<()> {
        let config = ModelConfig::load(self.path())?;
        let checkpoint = Checkpoint::open(self.path())?;
        for quantization in forms.iter().copied() {
            let on = |device: &engine::device::Device| {
                weights::load(device, &config, Some(&checkpoint), quantization, Storage::Bf16)
            };
            let plan = engine::device::Device::plan_for(engine::device::Kind::Cpu);
            on(&plan)?;
            on(&engine::device::Device::cpu(plan.peak_bytes())?)?;
        }
        Ok(())
    }

    fn refused(&self, expected: Expect) {
        let Err(error) = self.load() else { panic!("the folder was loaded") };
        expected
            .assert_eq(&error.to_string().replace(&self.path().display().to_string(), "FOLDER"));
    }
}

type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

fn small() -> Folder {
    Folder::copy("models/qwen3_window")
}

fn named<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

#[test]
fn tensors_that_are_not_the_models_are_refused() {
    small().load().unwrap();
    small()
        .change(|tensors| tensors.retain(|t| t.0 != "model.layers.1.mlp.up_proj.weight"))
        .refused(expect![[r#"
            'FOLDER' has no tensor model.layers.1.mlp.up_proj.weight
              hint: config.json and the safetensors belong to different models, or a shard is missing"#]]);
    small()
        .change(|tensors| named(tensors, "model.layers.0.self_attn.k_proj.weight").2.reverse())
        .refused(expect![[r#"
            model.layers.0.self_attn.k_proj.weight in 'FOLDER/model.safetensors' has shape [32, 24], expected [24, 32]
              hint: config.json and the safetensors belong to different models"#]]);
    small()
        .change(|tensors| {
            let bias = "model.layers.0.self_attn.q_proj.bias".to_owned();
            tensors.push((bias, "BF16", vec![4], vec![0; 8]));
        })
        .refused(expect![[r#"
            'FOLDER' holds model.layers.0.self_attn.q_proj.bias, which a qwen3 model of this config.json does not have
              hint: config.json and the safetensors belong to different models"#]]);
    small()
        .change(|tensors| {
            let norm = named(tensors, "model.norm.weight");
            (norm.1, norm.3) = ("I16", norm.3.clone());
        })
        .refused(expect![[r#"
            model.norm.weight in 'FOLDER/model.safetensors' holds I16
              hint: weights are read from F32, BF16 and F16"#]]);
    small()
        .change(|tensors| {
            let head = named(tensors, "model.embed_tokens.weight").clone();
            tensors.push(("lm_head.weight".to_owned(), head.1, head.2, vec![0; head.3.len()]));
        })
        .refused(expect![[r#"
            'FOLDER' holds lm_head.weight with other values than model.embed_tokens.weight, which config.json ties
              hint: set tie_word_embeddings to false in config.json if the head was trained on its own"#]]);
}

#[test]
fn a_head_that_repeats_the_tied_embeddings_is_the_same_model() {
    let folder = small();
    folder.change(|tensors| {
        let head = named(tensors, "model.embed_tokens.weight").clone();
        tensors.push(("lm_head.weight".to_owned(), head.1, head.2, head.3));
    });
    folder.load().unwrap();
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let f32s =
        |start: u64, end: u64| json!({"dtype": "F32", "shape": [2], "data_offsets": [start, end]});
    small().write(MODEL, "").refused(expect![[r#"
        'FOLDER/model.safetensors' is not a whole safetensors file: header too small
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small().write(MODEL, "version https://git-lfs.github.com/spec/v1\n").refused(expect![[r#"
        'FOLDER/model.safetensors' is not a whole safetensors file: header too large
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small().write(MODEL, [(1u64 << 60).to_le_bytes().as_slice(), b"{}"].concat()).refused(expect![
        [r#"
            'FOLDER/model.safetensors' is not a whole safetensors file: header too large
              hint: download it again; it may be cut short or be a Git LFS pointer"#]
    ]);
    small()
        .write(MODEL, [8u64.to_le_bytes().as_slice(), b"{\"a\": []"].concat())
        .refused(expect![[r#"
            'FOLDER/model.safetensors' is not a whole safetensors file: invalid JSON in header: EOF while parsing an object at line 1 column 8
              hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small().header(&json!({"a": f32s(0, 8), "b": f32s(4, 12)}), 12).refused(expect![[r#"
        'FOLDER/model.safetensors' is not a whole safetensors file: invalid offset for tensor `b`
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small()
        .header(&json!({"a": f32s(0, 8), "b": f32s(1 << 40, (1 << 40) + 8)}), 16)
        .refused(expect![[r#"
            'FOLDER/model.safetensors' is not a whole safetensors file: invalid offset for tensor `b`
              hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small().header(&json!({"a": f32s(0, 8)}), 4).refused(expect![[r#"
        'FOLDER/model.safetensors' is not a whole safetensors file: incomplete metadata, file not fully covered
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small().header(&json!({"a": f32s(8, 0)}), 8).refused(expect![[r#"
        'FOLDER/model.safetensors' is not a whole safetensors file: invalid offset for tensor `a`
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    let huge = json!({"dtype": "F32", "shape": [1u64 << 62, 1u64 << 62], "data_offsets": [0, 8]});
    small().header(&json!({"a": huge}), 8).refused(expect![[r#"
        'FOLDER/model.safetensors' is not a whole safetensors file: overflow computing buffer size from shape and/or element type
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    let none = small();
    std::fs::remove_file(none.path().join(MODEL)).unwrap();
    none.refused(expect![[r#"
        'FOLDER' has neither model.safetensors nor model.safetensors.index.json
          hint: only safetensors are read, never pickle (.bin, .pt); convert with `AutoModel.from_pretrained(...).save_pretrained(...)`"#]]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = small();
    let whole = std::fs::read(folder.path().join(MODEL)).unwrap();
    let mut random = engine::random::Stream::new(3, 0);
    for _ in 0..50 {
        let length = random.next_u32() as usize % whole.len();
        let error = folder.write(MODEL, &whole[..length]).load().unwrap_err();
        assert!(error.message.contains("is not a whole safetensors file"), "{length}: {error}");
    }
}

#[test]
fn an_index_stays_inside_its_folder_and_its_shards_must_be_there() {
    const INDEX: &str = "model.safetensors.index.json";
    let sharded = || Folder::copy("models/sharded");
    sharded().load().unwrap();
    let index = |place: &str| json!({"weight_map": {"lm_head.weight": place}}).to_string();
    sharded().write(INDEX, index("../x.safetensors")).refused(expect![[r#"
        'FOLDER/model.safetensors.index.json' places lm_head.weight in "../x.safetensors", which is no file name
          hint: download the index again"#]]);
    sharded().write(INDEX, index("/etc/passwd")).refused(expect![[r#"
        'FOLDER/model.safetensors.index.json' places lm_head.weight in "/etc/passwd", which is no file name
          hint: download the index again"#]]);
    sharded().write(INDEX, index("..")).refused(expect![[r#"
        'FOLDER/model.safetensors.index.json' places lm_head.weight in "..", which is no file name
          hint: download the index again"#]]);
    sharded().write(INDEX, "{\"weight_map\": 3}").refused(expect![[r#"
        'FOLDER/model.safetensors.index.json' has no weight_map
          hint: download the index again"#]]);
    sharded().write(INDEX, "{\"weight_m").refused(expect![[r#"
        'FOLDER/model.safetensors.index.json' is not JSON: EOF while parsing a string at line 1 column 10
          hint: download the index again"#]]);
    let missing = sharded();
    std::fs::remove_file(missing.path().join("model-00002-of-00002.safetensors")).unwrap();
    missing.refused(expect![[r#"
        cannot read 'FOLDER/model-00002-of-00002.safetensors': No such file or directory (os error 2)
          hint: check the path; the download may be incomplete"#]]);
    sharded().write(INDEX, index("model-00001-of-00002.safetensors")).refused(expect![[r#"
        'FOLDER' has no tensor model.layers.1.input_layernorm.weight
          hint: config.json and the safetensors belong to different models, or a shard is missing"#]]);
}

#[test]
fn a_config_that_is_cut_short_is_refused() {
    let text = std::fs::read_to_string(fixture("models/qwen3_window/config.json")).unwrap();
    small().write("config.json", &text[..60]).refused(expect![[r#"
        FOLDER/config.json:5:9 is not JSON: EOF while parsing a string at line 5 column 9
          hint: download it again; it may be cut short or be a Git LFS pointer"#]]);
    small().write("config.json", "[]").refused(expect![[r#"
        FOLDER/config.json is not a JSON object
          hint: download it again"#]]);
    small().write("config.json", b"{\"model_type\": \"\xff\"}").refused(expect![[r#"
        FOLDER/config.json:1 is not UTF-8 text (byte 16 of the file)
          hint: save the file as UTF-8, for example with `iconv -t UTF-8`"#]]);
    let none = small();
    std::fs::remove_file(none.path().join("config.json")).unwrap();
    none.refused(expect![[r#"
        'FOLDER' has no config.json
          hint: model.path is a folder as Hugging Face writes it, with config.json, safetensors and tokenizer.json"#]]);
}

#[test]
fn a_broken_quantization_state_is_refused() {
    let state = |from: &str, to: &str| {
        let folder = Folder::copy("models/bnb4_dq");
        let path = folder.path().join(MODEL);
        let bytes = std::fs::read(&path).unwrap();
        // The state's length stays the same, so that the header still fits.
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = bytes;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        folder.write(MODEL, bytes);
        folder
    };
    Folder::copy("models/bnb4_dq").load().unwrap();
    state("\"blocksize\": 64", "\"blocksize\": 00").refused(expect![[r#"
        model.layers.0.mlp.down_proj.weight in 'FOLDER' has a quantization state that is not understood: invalid number at line 1 column 37
          hint: download the checkpoint again"#]]);
    state("\"blocksize\": 64", "\"blocksize\": 63").refused(expect![[r#"
        model.layers.0.mlp.down_proj.weight in 'FOLDER' has blocks of 63
          hint: bitsandbytes knows powers of two from 32 to 4096"#]]);
    state("\"nf4\"", "\"int\"").refused(expect![[r#"
        model.layers.0.mlp.down_proj.weight in 'FOLDER' has a quantization state of nf4 that says int
          hint: download the checkpoint again"#]]);
    state("\"nested_blocksize\": 256", "\"nested_blocksize\": 128").refused(expect![[r#"
        model.layers.0.mlp.down_proj.weight in 'FOLDER' has nested blocks of 128
          hint: bitsandbytes writes 256"#]]);
    state("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4").refused(expect![[r#"
        model.layers.0.mlp.down_proj.weight in 'FOLDER' has a quantization state of fp4 that says nf4
          hint: download the checkpoint again"#]]);
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let device = engine::testing::cpu();
    let model: Model = crate::testing::model(&device, "qwen3_window");
    let refused = |prompt: Vec<u32>, max_new_tokens: usize, expected: Expect| {
        let request = Request { sampling: Sampling::GREEDY, max_new_tokens, stop: &[] };
        let error = generate(&model, None, &[vec![5], prompt], &request, |_, _| {}).unwrap_err();
        expected.assert_eq(&error.to_string());
    };
    refused(
        vec![],
        4,
        expect![[r#"
        a prompt has no token
          hint: give the model at least one token to go on from"#]],
    );
    refused(
        vec![3; 61],
        4,
        expect![[r#"
        a prompt of 61 tokens and 4 new ones exceed 64 positions
          hint: shorten the prompt or write fewer new tokens"#]],
    );
    refused(
        vec![3],
        usize::MAX,
        expect![[r#"
        a prompt of 1 tokens and 18446744073709551615 new ones exceed 64 positions
          hint: shorten the prompt or write fewer new tokens"#]],
    );
    refused(
        vec![64],
        4,
        expect![[r#"
        embedding: id 64 is past the table's last row 63
          hint: the tokenizer has more tokens than the model's vocabulary; use the tokenizer of this model"#]],
    );
    let request = Request { sampling: Sampling::GREEDY, max_new_tokens: 4, stop: &[] };
    assert_eq!(generate(&model, None, &[vec![3; 60]], &request, |_, _| {}).unwrap()[0].len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_of_a_checkpoint_are_an_error_or_a_model(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 1u8.., any::<bool>()), 1..4),
    ) {
        let folder = small();
        let mut bytes = std::fs::read(folder.path().join(MODEL)).unwrap();
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        for (index, flip, anywhere) in flips {
            // Mostly in the header, where a flip means something.
            let at = index.index(if anywhere { bytes.len() } else { header });
            bytes[at] ^= flip;
        }
        let _ = folder.write(MODEL, bytes).load();
    }

    #[test]
    fn flipped_bytes_of_a_config_are_an_error_or_a_model(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        let folder = small();
        let mut bytes = std::fs::read(folder.path().join("config.json")).unwrap();
        for (index, byte, digit) in flips {
            let at = index.index(bytes.len());
            if digit {
                // Sizes that are still numbers: the digit behind `at` becomes another one.
                if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + byte % 10;
                }
            } else {
                bytes[at] = byte;
            }
        }
        let _ = folder.write("config.json", bytes).load();
    }
}
