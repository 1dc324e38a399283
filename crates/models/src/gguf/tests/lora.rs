//! What of an adapter a GGUF adapter can say, and that the rest is refused.

use super::*;
use crate::adapter;
use crate::weights::Linear;

fn adapter_of(name: &str) -> std::path::PathBuf {
    fixture("adapters").join(name)
}

/// `(alpha / r) B A`, as llama.cpp adds it.
fn product(alpha: f32, a: &[f32], b: &[f32], r: usize) -> Vec<f32> {
    let cols = a.len() / r;
    let mut all = Vec::new();
    for b in b.chunks(r) {
        for col in 0..cols {
            let sum: f32 = b.iter().zip(a.iter().skip(col).step_by(cols)).map(|(b, a)| b * a).sum();
            all.push(alpha / r as f32 * sum);
        }
    }
    all
}

#[test]
fn ranks_and_scales_of_each_module_and_starts_from_the_weights_are_what_llama_cpp_adds() {
    for (name, some) in [("patterns", 2..10), ("pissa/prospect", 14..15)] {
        let (base, folder) = (fixture("models/qwen3"), adapter_of(name));
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("lora.gguf");
        export_adapter(&base, &folder, &path).unwrap();
        let file = File::open(&path).unwrap();
        let Some(Value::F32(alpha)) = file.value("adapter.lora.alpha") else { panic!("no alpha") };
        let device = engine::testing::cpu();
        let config = ModelConfig::load(&base).unwrap();
        let adapter = adapter::read(&device, &config, &folder).unwrap();
        let mut scales = std::collections::BTreeSet::new();
        let mut pairs = 0;
        for (i, layer) in adapter.layers.iter().enumerate() {
            for (linear, lora) in Linear::ALL.into_iter().zip(layer) {
                let Some(lora) = lora else { continue };
                let theirs = match linear {
                    Linear::Q => "attn_q",
                    Linear::K => "attn_k",
                    Linear::V => "attn_v",
                    Linear::O => "attn_output",
                    Linear::Gate => "ffn_gate",
                    Linear::Up => "ffn_up",
                    Linear::Down => "ffn_down",
                    other => panic!("qwen3 has no {other:?}"),
                };
                let of = |kind: &str| {
                    file.tensor(&format!("blk.{i}.{theirs}.weight.lora_{kind}")).unwrap()
                };
                let (a, b) = (of("a"), of("b"));
                let (r, cols) = (lora.a.rows(), lora.a.cols());
                assert_eq!((a.shape, b.shape), (&[r, cols][..], &[lora.b.rows(), r][..]), "{name}");
                let expected = lora.scale * r as f32;
                let (x, y) = (lora.a.as_slice::<f32>(), lora.b.as_slice::<f32>());
                let place = format!("{name}, block {i}, {theirs}");
                engine::testing::assert_close(
                    &place,
                    &product(*alpha, &a.to_f32(), &b.to_f32(), r),
                    &product(expected, x, y, r),
                    1e-6,
                );
                scales.insert((r, expected.to_bits()));
                pairs += 1;
            }
        }
        assert!(some.contains(&pairs) && 2 * pairs == file.tensors().count(), "{name}: {pairs}");
        assert_eq!(scales.len() > 1, name == "patterns", "{name}: {scales:?}");
    }
}

#[test]
fn what_a_gguf_adapter_cannot_say_is_refused() {
    let refused = |base: &str, folder: &Path, expected: Expect| {
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("lora.gguf");
        let Err(error) = export_adapter(&fixture("models").join(base), folder, &path) else {
            panic!("it was written")
        };
        assert!(!path.exists());
        let text = error.to_string().replace(&folder.display().to_string(), "ADAPTER");
        let base = fixture("models").join(base).display().to_string();
        expected.assert_eq(&text.replace(&base, "BASE"));
    };
    refused(
        "llama_bias",
        &adapter_of("dora"),
        expect![[r#"
        'ADAPTER' is a DoRA: a GGUF adapter has matrices, and no lengths for the rows of the sum
          hint: merge it into the model: prospect export --model BASE --adapter ADAPTER --to gguf model.gguf"#]],
    );
    refused(
        "sharded",
        &adapter_of("head"),
        expect![[r#"
        'ADAPTER' holds modules that were trained whole (modules_to_save): a GGUF adapter has matrices alone
          hint: merge it into the model: prospect export --model BASE --adapter ADAPTER --to gguf model.gguf"#]],
    );
    // What Prospect writes of an adapter that was started by LoftQ says so.
    let loftq = tempfile::tempdir().unwrap();
    let (from, config) = (fixture("models/adapter"), "adapter_config.json");
    let text = std::fs::read_to_string(from.join(config)).unwrap();
    let mut fields: Json = serde_json::from_str(&text).unwrap();
    fields["loftq_config"] = json!({"double_quant": true, "loftq_bits": 4, "loftq_iter": 1});
    std::fs::write(loftq.path().join(config), fields.to_string()).unwrap();
    let weights = "adapter_model.safetensors";
    std::fs::copy(from.join(weights), loftq.path().join(weights)).unwrap();
    refused(
        "llama_tied",
        loftq.path(),
        expect![[r#"
        'ADAPTER' makes up for what nf4 lost of its base (LoftQ): llama.cpp would add it to a base that lost nothing, or something else
          hint: merge it into the model: prospect export --model BASE --adapter ADAPTER --to gguf model.gguf"#]],
    );
}
