//! Config spellings, and what is refused.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn base() -> Value {
    json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100})
}

fn read(changes: Value) -> Result<ModelConfig> {
    let mut config = base();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    ModelConfig::load(folder.path())
}

fn refused(changes: Value, expected: Expect) {
    let text = read(changes).unwrap_err().to_string();
    let at = text.find("config.json").unwrap();
    expected.assert_eq(&text[at..]);
}

#[test]
fn both_spellings_of_the_rotary_embedding_are_the_same_model() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let old = read(json!({"rope_theta": 5e5, "rope_scaling": llama3})).unwrap();
    let mut parameters = llama3;
    parameters["rope_theta"] = json!(5e5);
    assert_eq!(old, read(json!({"rope_parameters": parameters})).unwrap());
    assert_eq!(old.ropes[0].theta, 5e5);
    assert_ne!(old.ropes[0].scaling, RopeScaling::Default);
    let typed = read(json!({"rope_scaling": {"type": "linear", "factor": 2.0}})).unwrap();
    assert_eq!(typed.ropes[0].scaling, RopeScaling::Linear { factor: 2.0 });
}

#[test]
fn frequencies_of_llama3_keep_short_waves_and_divide_long_ones() {
    let rope = Rope {
        dim: 128,
        attention_factor: 1.0,
        theta: 500_000.0,
        scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        },
    };
    let plain = Rope { scaling: RopeScaling::Default, ..rope.clone() }.inverse_frequencies(false);
    let scaled = rope.inverse_frequencies(false);
    assert_eq!(scaled[0], plain[0]);
    assert_eq!(scaled[63], plain[63] / 8.0);
    // The wavelength of pair 30 is 2 pi 500000^(60/128) = 2944, between 2048 and 8192.
    assert!(scaled[30] < plain[30] && scaled[30] > plain[30] / 8.0);
}

#[test]
fn windows_follow_the_family() {
    assert_eq!(read(json!({"sliding_window": 7})).unwrap().windows, [None; 3]);
    assert_eq!(
        read(json!({"model_type": "mistral", "sliding_window": 7})).unwrap().windows,
        [Some(7); 3]
    );
    assert_eq!(
        read(json!({"model_type": "mistral", "sliding_window": null})).unwrap().windows,
        [None; 3]
    );
    let qwen = |more: Value| {
        let mut changes = json!({"model_type": "qwen2", "sliding_window": 7});
        changes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(changes).unwrap().windows
    };
    assert_eq!(qwen(json!({"use_sliding_window": false})), [None; 3]);
    assert_eq!(
        qwen(json!({"use_sliding_window": true, "max_window_layers": 1})),
        [None, Some(7), Some(7)]
    );
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    assert_eq!(
        qwen(json!({"use_sliding_window": true, "layer_types": types})),
        [Some(7), None, Some(7)]
    );
}

#[test]
fn biases_and_norms_follow_the_family() {
    let qwen2 = read(json!({"model_type": "qwen2"})).unwrap();
    assert!(qwen2.qkv_bias && !qwen2.o_bias && qwen2.qk_norm == QkNorm::None);
    let qwen3 = read(json!({"model_type": "qwen3"})).unwrap();
    assert!(!qwen3.qkv_bias && qwen3.qk_norm == QkNorm::Heads && qwen3.head_dim == 128);
    let llama = read(json!({"attention_bias": true, "mlp_bias": true})).unwrap();
    assert!(llama.qkv_bias && llama.o_bias && llama.mlp_bias && llama.head_dim == 16);
}

#[test]
fn what_would_change_the_mathematics_is_refused() {
    refused(
        json!({"model_type": "gpt_neox"}),
        expect![[r#"
            config.json: the architecture 'gpt_neox' is not known
              hint: Prospect knows gemma2, gemma3_text, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3; the others compute something else, so they are refused"#]],
    );
    refused(
        json!({"model_type": 3}),
        expect![[r#"
            config.json: model_type is missing
              hint: Prospect knows gemma2, gemma3_text, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3"#]],
    );
    refused(
        json!({"hidden_act": "relu"}),
        expect![[r#"
        config.json: hidden_act = "relu" is not known
          hint: Prospect knows silu and gelu_pytorch_tanh"#]],
    );
    refused(
        json!({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}),
        expect![[r#"
            config.json: short_factor is not a list of 8 numbers
              hint: download config.json again"#]],
    );
    refused(
        json!({"num_key_value_heads": 3}),
        expect![[r#"
        config.json: num_attention_heads = 4 is no multiple of num_key_value_heads = 3
          hint: every key-value head serves the same number of query heads"#]],
    );
    refused(
        json!({"hidden_size": -1}),
        expect![[r#"
        config.json: hidden_size = -1 is not a size from 1 to 16777216
          hint: download config.json again"#]],
    );
    refused(
        json!({"vocab_size": 1.5}),
        expect![[r#"
        config.json: vocab_size = 1.5 is not a size from 1 to 16777216
          hint: download config.json again"#]],
    );
    refused(
        json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        expect![[r#"
        config.json: partial_rotary_factor = 0.5 is not supported
          hint: Prospect computes with partial_rotary_factor = 1"#]],
    );
    refused(
        json!({"num_hidden_layers": 10_000_000}),
        expect![[r#"
        config.json: num_hidden_layers = 10000000 is above 4096
          hint: download config.json again"#]],
    );
    refused(
        json!({"hidden_size": 1 << 24, "num_attention_heads": 1 << 20, "num_key_value_heads": 1 << 20}),
        expect![[r#"
        config.json: its sizes make a model of 1.4e16 bytes
          hint: download config.json again"#]],
    );
    refused(
        json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        expect![[r#"
        config.json: the weights are quantized by gptq
          hint: Prospect reads bitsandbytes in nf4; take the model in bf16, which model.quantization = "nf4" quantizes on load"#]],
    );
    refused(
        json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true}}),
        expect![[r#"
        config.json: the weights are quantized by bitsandbytes in 8 bits
          hint: Prospect reads bitsandbytes in nf4; take the model in bf16, which model.quantization = "nf4" quantizes on load"#]],
    );
}

#[test]
fn a_missing_key_means_what_the_familys_code_says_and_null_means_none() {
    let heads = json!({"num_attention_heads": 32, "hidden_size": 256});
    let defaults = |model_type: &str| {
        let mut config = base();
        let fields = config.as_object_mut().unwrap();
        fields.extend(heads.as_object().unwrap().clone());
        fields.remove("num_key_value_heads");
        fields.insert("model_type".to_owned(), json!(model_type));
        fields.insert("use_sliding_window".to_owned(), json!(true));
        fields.insert("max_window_layers".to_owned(), json!(2));
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        ModelConfig::load(folder.path()).unwrap()
    };
    let llama = defaults("llama");
    assert_eq!((llama.num_key_value_heads, llama.max_position_embeddings), (32, 2048));
    assert_eq!(llama.eos_token_ids, [2]);
    let mistral = defaults("mistral");
    assert_eq!((mistral.num_key_value_heads, mistral.windows[0]), (8, Some(4096)));
    let qwen2 = defaults("qwen2");
    assert_eq!((qwen2.num_key_value_heads, qwen2.max_position_embeddings), (32, 32_768));
    assert_eq!(qwen2.windows, [None, None, Some(4096)]);
    assert!(qwen2.eos_token_ids.is_empty());
    let null = read(json!({"eos_token_id": null, "num_key_value_heads": null})).unwrap();
    assert_eq!((null.eos_token_ids, null.num_key_value_heads), (vec![], 4));
}

#[test]
fn the_generation_config_has_the_last_word_on_what_ends_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), base().to_string()).unwrap();
    let path = folder.path().join("generation_config.json");
    for (text, ids) in [("{}", vec![2]), (r#"{"eos_token_id": [5, 7]}"#, vec![5, 7])] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(ModelConfig::load(folder.path()).unwrap().eos_token_ids, ids);
    }
}
