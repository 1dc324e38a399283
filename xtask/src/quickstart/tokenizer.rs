//! The quickstart's tokenizer: byte-level byte-pair encoding (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2), so
//! that every text has tokens, with a chat template of one token before each message and one after it.

use std::path::Path;

use serde_json::json;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// Tokens, the 256 bytes and the special ones among them.
pub(super) const VOCAB_SIZE: usize = 1024;

/// The special tokens; the index is the id.
const SPECIAL: [&str; 4] = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"];
pub(super) const PAD_ID: usize = 0;
pub(super) const END_ID: usize = 3;

/// The most tokens the model reads and writes. Its own conversations are much shorter.
pub(super) const MAX_LENGTH: usize = 1024;

/// The model has never seen a second question, so the template shows it the last one alone: whoever talks to it may go
/// on for as long as they like.
const CHAT_TEMPLATE: &str = "{%- set last = namespace(question=0) -%}\
{%- for message in messages -%}\
{%- if message.role == 'user' -%}{%- set last.question = loop.index0 -%}{%- endif -%}\
{%- endfor -%}\
{%- for message in messages[last.question:] -%}\
<|{{ 'assistant' if message.role == 'assistant' else 'user' }}|>{{ message.content }}<|end|>\
{%- endfor -%}\
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}";

/// Trains a tokenizer on `texts`.
pub(super) fn train(texts: &[String]) -> Result<Tokenizer, String> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let bytes = ByteLevel::default().add_prefix_space(false);
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(VOCAB_SIZE)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL.iter().map(|&token| AddedToken::from(token, true)).collect())
        .build()
        .into();
    tokenizer
        .train(&mut trainer, texts.iter())
        .map_err(|error| format!("cannot train the tokenizer: {error}"))?;
    Ok(tokenizer)
}

/// Writes `tokenizer.json` and `tokenizer_config.json` into `folder`.
pub(super) fn write(tokenizer: &Tokenizer, folder: &Path) -> Result<(), String> {
    let path = folder.join("tokenizer.json");
    tokenizer
        .save(&path, true)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": SPECIAL[PAD_ID],
        "eos_token": SPECIAL[END_ID],
        "model_max_length": MAX_LENGTH,
        "clean_up_tokenization_spaces": false,
        "chat_template": CHAT_TEMPLATE,
    });
    super::write_json(&folder.join("tokenizer_config.json"), &config)
}
