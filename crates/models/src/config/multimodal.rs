//! `config.json` of a model that reads images too: the decoder's numbers stand in its `text_config`.
//!
//! Source: `Gemma3Config` and `Gemma3ForConditionalGeneration` of transformers 5.23. The outer `tie_word_embeddings` holds, the
//! inner one is not read; logits are not bounded.

use serde_json::{Map, Value};

use super::families::{MULTIMODAL, Multimodal};
use super::source::Source;
use super::{ModelConfig, keys};
use crate::error::Result;

impl Source {
    /// The model's numbers: those of its decoder.
    pub(super) fn model(&self) -> Result<ModelConfig> {
        let known = |it: &&Multimodal| {
            self.get("model_type").is_some_and(|model_type| model_type == it.model_type)
        };
        match MULTIMODAL.iter().find(known) {
            None => self.config(),
            Some(it) => self.multimodal(it),
        }
    }

    fn multimodal(&self, it: &Multimodal) -> Result<ModelConfig> {
        let text = self.table("text_config")?.unwrap_or(Source::of(&self.path, Map::new()));
        let mut fields = text.fields;
        let model_type = fields.entry("model_type").or_insert_with(|| Value::from(it.text));
        if model_type != it.text {
            let message = format!("text_config has model_type = {model_type}");
            let hint = format!("the decoder of a {} model is a {}", it.model_type, it.text);
            return Err(self.wrong(message, hint));
        }
        let tied = self.flag("tie_word_embeddings", it.tie_word_embeddings)?;
        fields.insert("tie_word_embeddings".to_owned(), Value::from(tied));
        if let Some(ids) = self.get("eos_token_id") {
            fields.insert("eos_token_id".to_owned(), ids.clone());
        }
        self.check_quantization()?;
        keys::refuse_unknown(self, it.model_type)?;
        let decoder = Source::of(&self.path, fields).config()?;
        Ok(ModelConfig { multimodal: true, final_soft_cap: None, ..decoder })
    }
}

#[cfg(test)]
mod tests;
