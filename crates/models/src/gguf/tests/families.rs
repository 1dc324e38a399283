//! What stands in the files of families that are no Llama. That llama.cpp computes the same of them is proved by
//! fixtures/gguf/prove.py.

use super::*;

/// The keys that the families differ in, and the tensors of the first block, of a file made of `name`.
fn check(name: &str, of_config: Json, expected: Expect) {
    let base = model(name, json!({}), of_config);
    let (_out, file, exported) = exported(base.path(), TensorType::F32);
    let shared = ["vocab_size", "length", "count", "epsilon"];
    let mut shown = String::new();
    for (key, value) in file.keys() {
        let of_family = key
            .split_once('.')
            .is_some_and(|(first, _)| first != "general" && first != "tokenizer");
        if of_family && !shared.iter().any(|ending| key.ends_with(ending))
            || key.contains("original")
        {
            shown += &format!("{key}: {value:?}\n");
        }
    }
    let names: Vec<&str> = file
        .tensors()
        .map(|it| it.name)
        .filter(|it| !it.starts_with("blk.") || it.starts_with("blk.0."))
        .collect();
    shown += &names.join(" ");
    shown = shown.replace("blk.0.", "").replace(".weight", "");
    exported.notes.iter().for_each(|note| shown += &format!("\n{note}"));
    expected.assert_eq(&shown);

    // Norms as they are multiplied with, rows of queries in the order that they are turned in.
    let (config, checkpoint) =
        (ModelConfig::load(base.path()).unwrap(), Checkpoint::open(base.path()).unwrap());
    let norm: Vec<f32> =
        values(&checkpoint, "model.norm.weight").iter().map(|it| it + config.norm_offset).collect();
    assert_eq!(file.tensor("output_norm.weight").unwrap().to_f32(), norm, "{name}");
    if !config.fused_linears {
        let before = values(&checkpoint, "model.layers.1.self_attn.q_proj.weight");
        let after = file.tensor("blk.1.attn_q.weight").unwrap().to_f32();
        let turned = ["smollm3", "granite"].contains(&name);
        let heads = config.num_attention_heads;
        let before = if turned { interleaved(&before, heads, config.hidden_size) } else { before };
        assert_eq!(after, before, "{name}");
    }
}

#[test]
fn every_family_has_llama_cpps_names_and_factors() {
    check(
        "gemma2",
        json!({"query_pre_attn_scalar": 12}),
        expect![[r#"
        gemma2.attention.head_count_kv: U32(2)
        gemma2.rope.freq_base: F32(10000.0)
        gemma2.attention.sliding_window: U32(5)
        gemma2.attention.sliding_window_pattern: Array([Bool(true), Bool(false), Bool(true)])
        gemma2.attn_logit_softcapping: F32(2.0)
        gemma2.final_logit_softcapping: F32(5.0)
        token_embd attn_norm ffn_down ffn_gate ffn_up post_attention_norm post_ffw_norm ffn_norm attn_k attn_output attn_q attn_v output_norm"#]],
    );
    check(
        "gemma3",
        json!({"query_pre_attn_scalar": 8}),
        expect![[r#"
        gemma3.attention.head_count_kv: U32(2)
        gemma3.rope.freq_base: F32(500000.0)
        gemma3.rope.scaling.type: String("linear")
        gemma3.rope.scaling.factor: F32(8.0)
        gemma3.attention.sliding_window: U32(5)
        gemma3.attention.sliding_window_pattern: Array([Bool(true), Bool(false), Bool(true)])
        gemma3.rope.freq_base_swa: F32(5000.0)
        token_embd attn_norm ffn_down ffn_gate ffn_up post_attention_norm post_ffw_norm ffn_norm attn_k_norm attn_k attn_output attn_q_norm attn_q attn_v output_norm"#]],
    );
    check(
        "gemma3_multimodal_5",
        json!({"text_config": text_config(8)}),
        expect![[r#"
        gemma3.attention.head_count_kv: U32(2)
        gemma3.rope.freq_base: F32(1000000.0)
        gemma3.attention.sliding_window: U32(5)
        gemma3.attention.sliding_window_pattern: Array([Bool(true), Bool(false)])
        gemma3.rope.freq_base_swa: F32(10000.0)
        output token_embd attn_norm ffn_down ffn_gate ffn_up post_attention_norm post_ffw_norm ffn_norm attn_k_norm attn_k attn_output attn_q_norm attn_q attn_v output_norm
        the file holds the text model: what reads images is a file of its own in llama.cpp"#]],
    );
    check(
        "phi3",
        json!({}),
        expect![[r#"
        phi3.attention.head_count_kv: U32(4)
        phi3.rope.freq_base: F32(10000.0)
        output token_embd attn_norm ffn_down ffn_up ffn_norm attn_output attn_qkv output_norm
        llama.cpp has no sliding window for phi3: the context is 6 positions, up to which it computes the same"#]],
    );
    check(
        "phi3_longrope",
        json!({}),
        expect![[r#"
        phi3.attention.head_count_kv: U32(2)
        phi3.rope.freq_base: F32(10000.0)
        phi3.rope.scaling.original_context_length: U32(20)
        phi3.rope.scaling.attn_factor: F32(1.360524)
        token_embd attn_norm ffn_down ffn_up ffn_norm attn_output attn_qkv output_norm rope_factors_long rope_factors_short
        llama.cpp takes the long divisors of LongRoPE wherever its context is longer than the original one, transformers where the text is"#]],
    );
    check(
        "olmo2",
        json!({}),
        expect![[r#"
        olmo2.attention.head_count_kv: U32(2)
        olmo2.rope.freq_base: F32(10000.0)
        output token_embd ffn_down ffn_gate ffn_up post_attention_norm post_ffw_norm attn_k_norm attn_k attn_output attn_q_norm attn_q attn_v output_norm"#]],
    );
    check(
        "smollm3",
        json!({"no_rope_layer_interval": 4}),
        expect![[r#"
        smollm3.attention.head_count_kv: U32(2)
        smollm3.rope.freq_base: F32(2000000.0)
        token_embd attn_norm ffn_down ffn_gate ffn_up ffn_norm attn_k attn_output attn_q attn_v output_norm"#]],
    );
    check(
        "granite",
        json!({}),
        expect![[r#"
        granite.attention.head_count_kv: U32(2)
        granite.rope.freq_base: F32(10000.0)
        granite.rope.scaling.type: String("linear")
        granite.rope.scaling.factor: F32(2.0)
        granite.attention.scale: F32(0.2)
        granite.embedding_scale: F32(6.0)
        granite.residual_scale: F32(0.3)
        granite.logit_scale: F32(2.5)
        output token_embd attn_norm ffn_down.bias ffn_down ffn_gate.bias ffn_gate ffn_up.bias ffn_up ffn_norm attn_k.bias attn_k attn_output.bias attn_output attn_q.bias attn_q attn_v.bias attn_v output_norm"#]],
    );
}

/// The `text_config` of fixtures/models/gemma3_multimodal_5 with another factor of attention.
fn text_config(query_pre_attn_scalar: usize) -> Json {
    let path = fixture("models/gemma3_multimodal_5/config.json");
    let config: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut text = config["text_config"].clone();
    text["query_pre_attn_scalar"] = json!(query_pre_attn_scalar);
    text
}

#[test]
fn what_a_family_cannot_say_to_llama_cpp_is_refused() {
    let refused = |name: &str, of_config: Json, expected: Expect| {
        let base = model(name, json!({}), of_config);
        let out = base.path().join("out.gguf");
        let Err(error) = export(base.path(), None, &out, TensorType::F16) else {
            panic!("it was written")
        };
        assert!(!out.exists());
        assert!(error.hint.contains("`prospect merge`"));
        expected.assert_eq(&error.message);
    };
    refused(
        "gemma2",
        json!({}),
        expect!["llama.cpp's gemma2 does not compute the factors of this model's config.json"],
    );
    let uncapped = json!({"query_pre_attn_scalar": 12, "attn_logit_softcapping": null});
    refused(
        "gemma2",
        uncapped,
        expect!["llama.cpp's gemma2 does not compute such a bound of attention scores"],
    );
    let own = json!({"query_pre_attn_scalar": 12, "tie_word_embeddings": false});
    refused(
        "gemma2",
        own,
        expect!["llama.cpp's gemma2 does not compute a head that is not the embedding table"],
    );
    refused(
        "gemma3_capped",
        json!({"query_pre_attn_scalar": 12}),
        expect!["llama.cpp's gemma3 does not compute a bias of the attention's output"],
    );
    refused(
        "gemma3_multimodal_5",
        json!({"text_config": text_config(3)}),
        expect!["llama.cpp's gemma3 does not compute the factors of this model's config.json"],
    );
    refused(
        "olmo2",
        json!({"tie_word_embeddings": true}),
        expect!["llama.cpp's olmo2 does not compute a head that is the embedding table"],
    );
    refused(
        "smollm3",
        json!({}),
        expect![
            "llama.cpp's smollm3 does not compute a rotary embedding of some layers or of a part of each head"
        ],
    );
    refused(
        "smollm3_window",
        json!({}),
        expect!["llama.cpp's smollm3 does not compute biases of the MLP"],
    );
    refused(
        "phi3",
        json!({"hidden_act": "gelu_pytorch_tanh"}),
        expect!["llama.cpp's phi3 does not compute another hidden_act than silu"],
    );
}
