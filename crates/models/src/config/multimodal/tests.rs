//! A published config.json, and what is refused.

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::config::RopeScaling;

/// What `google/gemma-3-4b-it` says, with changes.
fn read(changes: Value) -> Result<ModelConfig> {
    let mut config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255_999,
        "eoi_token_index": 256_000, "eos_token_id": [1, 106], "image_token_index": 262_144,
        "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024},
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152, "image_size": 896, "model_type": "siglip_vision_model"}
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    ModelConfig::from_json(&config.to_string())
}

#[test]
fn what_text_config_leaves_out_is_what_transformers_takes() {
    let config = read(json!({})).unwrap();
    assert!(config.multimodal && config.tie_word_embeddings);
    assert_eq!(config.decoder_path(), "model.language_model");
    assert_eq!((config.num_attention_heads, config.num_key_value_heads), (8, 4));
    assert_eq!((config.head_dim, config.vocab_size), (256, 262_208));
    assert_eq!((config.max_position_embeddings, config.attention_scale), (131_072, 0.0625));
    assert_eq!(config.eos_token_ids, [1, 106]);
    // Five blocks of six have the window and the local embedding, which is not scaled.
    let full: Vec<usize> = (0..34).filter(|layer| config.windows[*layer].is_none()).collect();
    assert_eq!(full, [5, 11, 17, 23, 29]);
    let [of_full, of_window] =
        [5, 0].map(|layer| &config.ropes[config.layer_ropes[layer].unwrap()]);
    assert_eq!((of_full.theta, &of_full.scaling), (1e6, &RopeScaling::Linear { factor: 8.0 }));
    assert_eq!((of_window.theta, &of_window.scaling), (1e4, &RopeScaling::Default));
    // The published size of its decoder.
    assert_eq!(config.num_parameters(), 3_880_263_168);
}

#[test]
fn the_outer_keys_hold_where_both_say_something() {
    let text = json!({"hidden_size": 64, "tie_word_embeddings": true, "final_logit_softcapping": 30.0,
        "eos_token_id": 7});
    let config = read(json!({"tie_word_embeddings": false, "text_config": text})).unwrap();
    assert!(!config.tie_word_embeddings);
    assert_eq!((config.final_soft_cap, config.eos_token_ids), (None, vec![1, 106]));
}

#[test]
fn what_is_another_model_is_refused() {
    let refused = |changes: Value, expected: Expect| {
        expected.assert_eq(&read(changes).unwrap_err().to_string());
    };
    refused(
        json!({"text_config": {"model_type": "llama"}}),
        expect![[r#"
        config.json: text_config has model_type = "llama"
          hint: the decoder of a gemma3 model is a gemma3_text"#]],
    );
    refused(
        json!({"text_config": 3}),
        expect![[r#"
        config.json: text_config = 3 is not an object
          hint: download config.json again"#]],
    );
    refused(
        json!({"audio_config": {"hidden_size": 3}}),
        expect![[r#"
        config.json: Prospect does not know what audio_config = {"hidden_size":3} does to a gemma3 model
          hint: if it changes nothing that the model computes, take 'audio_config' out of config.json"#]],
    );
    refused(
        json!({"text_config": {"altup": 3}}),
        expect![[r#"
        config.json: Prospect does not know what altup = 3 does to a gemma3_text model
          hint: if it changes nothing that the model computes, take 'altup' out of config.json"#]],
    );
}
