//! Keys of `config.json` that change nothing of what is computed.
//!
//! What a model type's code does not read changes nothing in transformers, and cannot be told from what changes
//! everything in code of another version. So a key that is neither read by Prospect nor one of these is refused.

use super::source::Source;
use crate::error::Result;

/// Where the model comes from, how it was started and saved, how text is written with it, and heads of other kinds.
const HARMLESS: &[&str] = &[
    "add_cross_attention",
    "architectures",
    // Dropout of the base while it is trained: Prospect trains without it.
    "attention_dropout",
    "embd_pdrop",
    "resid_pdrop",
    "auto_map",
    "begin_suppress_tokens",
    "bos_token",
    "bos_token_id",
    "boi_token_index",
    "cache_implementation",
    "chat_template",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "do_sample",
    "dtype",
    "early_stopping",
    "eoi_token_index",
    "eos_token",
    "eos_token_id",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "image_token_index",
    "initializer_range",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "bad_words_ids",
    "diversity_penalty",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "guidance_scale",
    "length_penalty",
    "min_p",
    "output_scores",
    "penalty_alpha",
    "prefix",
    "suppress_tokens",
    "max_length",
    "max_new_tokens",
    "min_length",
    "mm_tokens_per_image",
    "model_max_length",
    "model_name",
    "model_type",
    "neftune_noise_alpha",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "pad_token",
    "pad_token_id",
    // The same product in slices, which transformers 5 computes whole.
    "pretraining_tp",
    "problem_type",
    "quantization_config",
    "repetition_penalty",
    "return_dict",
    "sep_token_id",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token",
    "use_bfloat16",
    "use_cache",
    "vision_config",
    // What stands in config.json of published Phi models for code that is no longer read.
    "full_attn_mod",
    "interpolate_factor",
];

/// Beginnings of keys that tools leave behind.
const HARMLESS_PREFIXES: [&str; 2] = ["_", "unsloth_"];

/// Refuses the first key that nobody asked for.
pub(super) fn refuse_unknown(source: &Source, family: &str) -> Result<()> {
    let harmless = |key: &str| {
        HARMLESS.contains(&key) || HARMLESS_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
    };
    match source.unknown().find(|(key, _)| !harmless(key)) {
        None => Ok(()),
        Some((key, value)) => {
            let mut text = value.to_string();
            if text.chars().count() > 60 {
                text = text.chars().take(60).chain("...".chars()).collect();
            }
            Err(source.wrong(
                format!("Prospect does not know what {key} = {text} does to a {family} model"),
                format!(
                    "if it changes nothing that the model computes, take '{key}' out of config.json"
                ),
            ))
        }
    }
}
