//! Files quantized here against those that transformers and bitsandbytes wrote of the same model.

use expect_test::{Expect, expect};

use super::*;
use crate::testing::fixture;

fn request(code_book: CodeBook, double_quant: bool, skip: &[String]) -> Request<'_> {
    Request { code_book, double_quant, skip }
}

fn skipped() -> Vec<String> {
    SKIPPED.map(str::to_owned).to_vec()
}

fn quantized(form: CodeBook, double_quant: bool) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let input = fixture("models/llama_f16/model.safetensors");
    let written = quantize(&input, &request(form, double_quant, &skipped()), &out).unwrap();
    assert_eq!((written.quantized, written.kept), (14, 7));
    std::fs::read(out).unwrap()
}

#[test]
fn a_file_in_fp4_is_that_of_bitsandbytes_to_the_byte() {
    let theirs = std::fs::read(fixture("models/bnb_fp4/model.safetensors")).unwrap();
    assert!(quantized(CodeBook::Fp4, false) == theirs);
}

#[test]
fn with_double_quantization_all_but_the_last_bits_of_the_mean_and_what_follows_from_them_is_the_same()
 {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    std::fs::write(&out, quantized(CodeBook::Fp4, true)).unwrap();
    let ours = Checkpoint::open_file(&out).unwrap();
    let theirs = Checkpoint::open(&fixture("models/bnb_fp4_dq")).unwrap();
    assert!(ours.names().eq(theirs.names()));
    for name in ours.names() {
        let (ours, theirs) = (ours.get(name).unwrap(), theirs.get(name).unwrap());
        assert_eq!(ours.dtype, theirs.dtype, "{name}");
        if name.contains(".quant_state.") {
            let text = |stored: &Stored<'_>| String::from_utf8(stored.bytes.to_vec()).unwrap();
            let (ours, theirs) = (text(&ours), text(&theirs));
            let split = |text: &str| {
                let (head, offset) = text.rsplit_once(": ").unwrap();
                (head.to_owned(), offset.trim_end_matches('}').parse::<f32>().unwrap())
            };
            let ((head, offset), (their_head, their_offset)) = (split(&ours), split(&theirs));
            assert_eq!(head, their_head, "{name}");
            assert!((offset - their_offset).abs() <= 2e-7 * their_offset, "{name}: {offset}");
            continue;
        }
        assert_eq!(ours.shape, theirs.shape, "{name}");
        if name.ends_with(".absmax") {
            let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
            assert!(ours.bytes.iter().zip(theirs.bytes).all(near), "{name}");
        } else if name.ends_with(".nested_absmax") {
            let value = |stored: &Stored<'_>| {
                let mut value = [0f32];
                stored.to_f32(name, &mut value).unwrap();
                value[0]
            };
            let (ours, theirs) = (value(&ours), value(&theirs));
            assert!((ours - theirs).abs() <= 1e-5 * theirs, "{name}: {ours}, {theirs}");
        } else {
            assert!(ours.bytes == theirs.bytes, "{name}");
        }
    }
}

#[test]
fn what_is_skipped_stays_as_it_is_and_the_model_is_still_one() {
    use crate::config::ModelConfig;
    use crate::weights::{self, Linear, Quantization, Storage, Weight};
    let folder = tempfile::tempdir().unwrap();
    let base = fixture("models/llama_f16");
    let mut skip = skipped();
    skip.push("layers.1.mlp".to_owned());
    let request = request(CodeBook::Nf4, true, &skip);
    let out = folder.path().join("model.safetensors");
    let written = quantize(&base.join("model.safetensors"), &request, &out).unwrap();
    assert_eq!((written.quantized, written.kept), (11, 10));
    assert!(written.after < written.before);
    std::fs::copy(base.join("config.json"), folder.path().join("config.json")).unwrap();
    let config = ModelConfig::load(folder.path()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let device = engine::testing::cpu();
    let form = Quantization::None;
    let weights = weights::load(&device, &config, Some(&checkpoint), form, Storage::F32).unwrap();
    let held = |layer: usize, linear: Linear| weights.layers[layer].weight(linear);
    assert!(matches!(held(1, Linear::Up), Weight::Dense(_)));
    assert!(matches!(held(1, Linear::Q), Weight::FourBit(_)));
}

#[test]
fn files_that_cannot_be_quantized_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, tensor: &str, dtype: &'static str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        let width = if dtype == "F32" { 4 } else { 1 };
        let entry = Entry {
            name: tensor.to_owned(),
            dtype,
            shape: vec![2, bytes.len() / width / 2],
            bytes: Box::new(move || Ok(bytes.clone())),
        };
        export::write_safetensors(&path, &[entry]).unwrap();
        path
    };
    let refused = |input: &Path, out: &str, expected: Expect| {
        let out = folder.path().join(out);
        let request = Request { code_book: CodeBook::Nf4, double_quant: false, skip: &[] };
        let error = quantize(input, &request, &out).unwrap_err().to_string();
        let error = error.replace(&folder.path().display().to_string(), "FOLDER");
        expected.assert_eq(&error.replace(&fixture("models").display().to_string(), "MODELS"));
    };
    let mut values = vec![0u8; 32];
    values[20..24].copy_from_slice(&f32::INFINITY.to_le_bytes());
    refused(
        &file("infinite", "a.weight", "F32", values),
        "out",
        expect![[r#"
            a.weight in 'FOLDER/infinite' is not finite at element 5
              hint: the file is damaged, or the model was broken when it was saved: download it again"#]],
    );
    refused(
        &file("bytes", "a.weight", "U8", vec![0; 8]),
        "out",
        expect![[r#"
            a.weight in 'FOLDER/bytes' holds U8
              hint: weights are read from F32, BF16 and F16"#]],
    );
    refused(
        &file("other", "a.bias", "F32", vec![0; 32]),
        "out",
        expect![[r#"
            'FOLDER/other' has no tensor to quantize
              hint: what is quantized has two dimensions and a name that ends with weight"#]],
    );
    refused(
        &folder.path().join("other"),
        "bytes",
        expect![[r#"
            'FOLDER/bytes' exists already
              hint: choose another file"#]],
    );
    refused(
        &fixture("models/bnb_int8/model.safetensors"),
        "out",
        expect![[r#"
            'MODELS/bnb_int8/model.safetensors' is stored as int8 already
              hint: take the model it was made from: what is rounded twice is off twice"#]],
    );
}
