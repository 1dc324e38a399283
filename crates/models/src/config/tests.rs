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
              hint: Prospect knows gemma2, gemma3, gemma3_text, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3; the others compute something else, so they are refused"#]],
    );
    refused(
        json!({"model_type": 3}),
        expect![[r#"
            config.json: model_type is missing
              hint: Prospect knows gemma2, gemma3, gemma3_text, granite, llama, mistral, olmo2, phi3, qwen2, qwen3, smollm3"#]],
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
          hint: Prospect reads bitsandbytes' nf4, fp4 and int8; take the model it was made from, in bf16, which model.quantization = "nf4" quantizes on load"#]],
    );
    refused(
        json!({"quantization_config": {"quant_method": "mxfp4"}}),
        expect![[r#"
        config.json: the weights are quantized by mxfp4
          hint: Prospect reads bitsandbytes' nf4, fp4 and int8; save it dense by `AutoModelForCausalLM.from_pretrained(..., quantization_config=Mxfp4Config(dequantize=True))`, or take the model in bf16, which model.quantization = "nf4" quantizes on load"#]],
    );
    refused(
        json!({"quantization_config": {"bits": 4}}),
        expect![[r#"
        config.json: the weights are quantized by ?
          hint: Prospect reads bitsandbytes' nf4, fp4 and int8; take the model it was made from, in bf16, which model.quantization = "nf4" quantizes on load"#]],
    );
    for quantization in [
        json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
        json!({"load_in_4bit": true}), // as folders of 2023 say it
    ] {
        read(json!({"quantization_config": quantization})).unwrap();
    }
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

/// A config of `model_type` with nothing else but sizes.
fn bare(model_type: &str, changes: Value) -> Result<ModelConfig> {
    let mut all = json!({"model_type": model_type});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    read(all)
}

#[test]
fn gemma_is_read_as_its_code_says_where_its_config_says_nothing() {
    let two = bare("gemma2", json!({"sliding_window": 8})).unwrap();
    assert_eq!(two.windows, [Some(8), None, Some(8)]);
    assert_eq!((two.attention_soft_cap, two.final_soft_cap), (Some(50.0), Some(30.0)));
    assert_eq!(
        (two.attention_scale, two.embedding_multiplier, two.norm_offset),
        (0.0625, 8.0, 1.0)
    );
    assert!(two.tie_word_embeddings && two.norms == Norms::Around && two.head_dim == 256);
    assert_eq!((two.activation, two.eos_token_ids), (Activation::GeluTanh, vec![1]));
    let caps = json!({"attn_logit_softcapping": null, "final_logit_softcapping": 4.0});
    let uncapped = bare("gemma2", caps).unwrap();
    assert_eq!((uncapped.attention_soft_cap, uncapped.final_soft_cap), (None, Some(4.0)));
    let three =
        bare("gemma3_text", json!({"sliding_window_pattern": 3, "query_pre_attn_scalar": 4}));
    let three = three.unwrap();
    assert_eq!(three.windows, [Some(4096), Some(4096), None]);
    assert_eq!(three.layer_ropes, [Some(1), Some(1), Some(0)]);
    assert_eq!((three.ropes[0].theta, three.ropes[1].theta), (1e6, 1e4));
    assert_eq!((three.qk_norm, three.attention_scale), (QkNorm::Heads, 0.5));
    assert_eq!((three.attention_soft_cap, three.final_soft_cap), (None, None));
}

#[test]
fn both_spellings_of_gemma3s_two_embeddings_are_the_same_model() {
    let old = json!({"rope_theta": 5e5, "rope_local_base_freq": 3e3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let new = json!({"rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 3e3}}});
    let [old, new] = [old, new].map(|spelling| bare("gemma3_text", spelling).unwrap());
    assert_eq!(old, new);
    assert_eq!(old.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
}

#[test]
fn phi3_is_fused_and_reads_old_names_of_longrope() {
    let factors = json!([1.0, 2.0, 3.0, 4.0]);
    for name in ["longrope", "su", "yarn"] {
        let scaling = json!({"type": name, "short_factor": factors, "long_factor": factors});
        let phi = json!({"rope_scaling": scaling, "partial_rotary_factor": 0.5,
            "original_max_position_embeddings": 32, "max_position_embeddings": 1024});
        let phi = bare("phi3", phi).unwrap();
        assert!(phi.fused_linears && phi.windows == [None; 3]);
        assert_eq!((phi.ropes[0].dim, phi.ropes[0].switch()), (8, Some(32)));
        // sqrt(1 + ln 32 / ln 32)
        assert_eq!(phi.ropes[0].attention_factor, 2f64.sqrt());
    }
    assert_eq!(bare("phi3", json!({})).unwrap().rms_norm_eps, 1e-5);
}

#[test]
fn layers_that_do_not_turn_are_named_or_every_fourth() {
    let layers = |more: Value| bare("smollm3", more).unwrap().layer_ropes;
    assert_eq!(layers(json!({"num_hidden_layers": 4})), [Some(0), Some(0), Some(0), None]);
    assert_eq!(layers(json!({"no_rope_layer_interval": 2})), [Some(0), None, Some(0)]);
    assert_eq!(layers(json!({"no_rope_layers": [0, 1, 0]})), [None, Some(0), None]);
    let window =
        json!({"no_rope_layers": [0, 1, 1], "use_sliding_window": true, "sliding_window": 5});
    assert_eq!(bare("smollm3", window).unwrap().windows, [Some(5), None, None]);
}

#[test]
fn granites_multipliers_are_one_unless_they_are_said() {
    let plain = bare("granite", json!({})).unwrap();
    assert_eq!((plain.attention_scale, plain.embedding_multiplier), (1.0, 1.0));
    let said = json!({"attention_multiplier": 0.25, "embedding_multiplier": 12, "residual_multiplier": 0.5,
        "logits_scaling": 8.0, "attention_dropout": 0.1});
    let said = bare("granite", said).unwrap();
    assert_eq!((said.attention_scale, said.embedding_multiplier), (0.25, 12.0));
    assert_eq!((said.residual_multiplier, said.logits_scale), (0.5, 0.125));
}

#[test]
fn yarn_infers_its_factor_of_attention() {
    let yarn = |more: Value| {
        let mut scaling =
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
        scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read(json!({"rope_scaling": scaling})).unwrap().ropes[0].attention_factor
    };
    assert_eq!(yarn(json!({})), 0.1 * 4f64.ln() + 1.0);
    assert_eq!(yarn(json!({"attention_factor": 1.5})), 1.5);
    let both = json!({"mscale": 2.0, "mscale_all_dim": 1.0});
    assert_eq!(yarn(both), (0.2 * 4f64.ln() + 1.0) / (0.1 * 4f64.ln() + 1.0));
}

#[test]
fn a_key_that_prospect_does_not_know_is_refused_unless_it_says_nothing() {
    refused(
        json!({"attn_logit_softcapping": 50.0}),
        expect![[r#"
        config.json: Prospect does not know what attn_logit_softcapping = 50.0 does to a llama model
          hint: if it changes nothing that the model computes, take 'attn_logit_softcapping' out of config.json"#]],
    );
    refused(
        json!({"logit_scale": 0.0625}),
        expect![[r#"
        config.json: Prospect does not know what logit_scale = 0.0625 does to a llama model
          hint: if it changes nothing that the model computes, take 'logit_scale' out of config.json"#]],
    );
    refused(
        json!({"model_type": "gemma2", "use_bidirectional_attention": true}),
        expect![[r#"
        config.json: use_bidirectional_attention = true is not supported
          hint: Prospect computes with use_bidirectional_attention = false"#]],
    );
    refused(
        json!({"model_type": "gemma3_text", "rope_parameters": {"rope_type": "linear", "factor": 8.0}}),
        expect![[r#"
            config.json: rope_parameters holds rope_type beside or in place of the layers' kinds
              hint: write it into full_attention or sliding_attention of rope_parameters"#]],
    );
    refused(
        json!({"model_type": "mistral", "layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
        expect![[r#"
            config.json: layer_types says other windows than a mistral model has
              hint: config.json was made for another model type"#]],
    );
    refused(
        json!({"model_type": "gemma2", "layer_types": ["chunked_attention", "full_attention", "full_attention"]}),
        expect![[r#"
            config.json: layer_types names "chunked_attention", which is not known
              hint: Prospect knows full_attention and sliding_attention"#]],
    );
    refused(
        json!({"rope_scaling": {"rope_type": "default", "mrope_section": [1, 2]}}),
        expect![[r#"
            config.json: mrope_section = [1,2] of the rotary embedding is not known
              hint: if it changes nothing that the model computes, take it out of config.json"#]],
    );
    refused(
        json!({"model_type": "smollm3", "no_rope_layers": [1, 0]}),
        expect![[r#"
        config.json: no_rope_layers is not a list of 3 numbers 0 or 1
          hint: download config.json again"#]],
    );
    refused(
        json!({"model_type": "gemma2", "final_logit_softcapping": 0.0}),
        expect![[r#"
        config.json: final_logit_softcapping = 0 is not above 0
          hint: download config.json again"#]],
    );
    refused(
        json!({"model_type": "granite", "logits_scaling": 0}),
        expect![[r#"
        config.json: logits_scaling = 0 leaves nothing of it
          hint: download config.json again"#]],
    );
    refused(
        json!({"model_type": "phi3", "partial_rotary_factor": 1.5}),
        expect![[r#"
        config.json: partial_rotary_factor = 1.5 is not supported
          hint: it is the share of a head that turns, above 0 and at most 1"#]],
    );
    for nothing in [
        json!({"attn_logit_softcapping": null, "lm_head_bias": false, "pruned_heads": {}}),
        json!({"_name_or_path": "x", "unsloth_version": "2026.1", "pretraining_tp": 2}),
        json!({"initializer_range": 0.02, "auto_map": {"AutoConfig": "x"}, "torch_dtype": "float32"}),
    ] {
        assert!(read(nothing).is_ok());
    }
}
