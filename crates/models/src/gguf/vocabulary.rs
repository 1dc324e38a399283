//! A tokenizer in llama.cpp's words: tokens with types, merges or scores, special tokens, the chat template.
//!
//! * BPE over bytes is `gpt2`: tokens as tokenizer.json spells them, merges in their order.
//! * BPE with byte fallback, which is SentencePiece written as tokenizer.json, is `llama`: there the pair with the
//!   highest score of its union is merged first, so a token's score is minus the rank of the first merge that makes it.
//! * Ids without a token, up to the rows of the embedding table, are `[PAD<id>]` of type unused.

use std::collections::{BTreeSet, HashMap};

use data::{Tokenizer, files};
use serde_json::Value as Json;

use super::format::Value;
use super::pre_tokenizer;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::generate;

/// Types of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The score of a token that no merge makes: below all that one makes.
const NEVER_MERGED: f32 = -1e9;

/// SentencePiece's mark of a space.
const MARK: &str = "\u{2581}";

/// The tokenizer's keys.
pub(super) fn keys(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<Vec<(String, Value)>> {
    let path = tokenizer.folder().join("tokenizer.json");
    let refused = |why: String| {
        Error::input(
            format!("the tokenizer of '{}' cannot be written as GGUF: {why}", path.display()),
            "llama.cpp knows BPE over bytes with the splits of GPT-2, SmolLM, Llama 3, Qwen 2, Tekken and GPT-4o, \
             and SentencePiece's BPE with byte fallback; `prospect merge` writes the model as safetensors",
        )
    };
    let json: Json = serde_json::from_str(&files::read_to_string(&path)?)
        .map_err(|error| refused(format!("it is not JSON: {error}")))?;
    let Some(model) = json.get("model") else { return Err(refused("it has no model".to_owned())) };
    let on = |key: &str| model.get(key).and_then(Json::as_bool).unwrap_or(false);
    let kind = model.get("type").and_then(Json::as_str).unwrap_or("BPE");
    let absent = |key: &str| model.get(key).is_none_or(|value| value.is_null() || value == "");
    if kind != "BPE" || !absent("continuing_subword_prefix") || !absent("end_of_word_suffix") {
        return Err(refused(format!("it is {kind}")));
    }
    let mut keys = Vec::new();
    let mut put = |key: &str, value: Value| keys.push((format!("tokenizer.ggml.{key}"), value));
    let table = Table::read(&json, config.vocab_size).map_err(&refused)?;
    let merges = merges(model).map_err(&refused)?;
    if on("byte_fallback") {
        put("model", Value::String("llama".to_owned()));
        put("pre", Value::String("default".to_owned()));
        let scores = table.scores(&merges);
        put("add_space_prefix", Value::Bool(prefix(&json).map_err(&refused)?));
        put("tokens", Value::strings(table.tokens));
        put("scores", Value::Array(scores.into_iter().map(Value::F32).collect()));
    } else {
        for step in pre_tokenizer::steps(json.get("normalizer")) {
            if pre_tokenizer::kind(step) != "NFC" {
                let kind = pre_tokenizer::kind(step);
                return Err(refused(format!("it normalizes by {kind}")));
            }
        }
        let name = pre_tokenizer::name(json.get("pre_tokenizer"), on("ignore_merges"));
        put("model", Value::String("gpt2".to_owned()));
        put("pre", Value::String(name.map_err(&refused)?.to_owned()));
        put("tokens", Value::strings(table.tokens));
        let joined = merges.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
        put("merges", Value::strings(joined));
    }
    put("token_type", Value::Array(table.types.into_iter().map(Value::I32).collect()));
    special(tokenizer, config, &mut put)?;
    templates(tokenizer, &mut keys);
    Ok(keys)
}

/// Tokens by id, with their types.
struct Table {
    tokens: Vec<String>,
    types: Vec<i32>,
}

impl Table {
    fn read(json: &Json, vocab_size: usize) -> std::result::Result<Table, String> {
        let mut tokens: Vec<Option<(String, i32)>> = vec![None; vocab_size];
        let mut set = |id: Option<u64>, token: &str, kind: i32| {
            let place = id.and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
            let Some(place) = place else {
                let id = id.map_or("none".to_owned(), |id| id.to_string());
                return Err(format!(
                    "the token '{token}' has the id {id}, the embedding table has {vocab_size} rows"
                ));
            };
            *place = Some((token.to_owned(), kind));
            Ok(())
        };
        let vocabulary = json.pointer("/model/vocab").and_then(Json::as_object);
        let unknown = json.pointer("/model/unk_token").and_then(Json::as_str);
        for (token, id) in vocabulary.ok_or("its model has no vocab")? {
            let kind = match token.as_str() {
                token if Some(token) == unknown => UNKNOWN,
                token if byte(token) => BYTE,
                _ => NORMAL,
            };
            set(id.as_u64(), token, kind)?;
        }
        for added in json.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let Some(token) = added.get("content").and_then(Json::as_str) else {
                return Err("an added token has no content".to_owned());
            };
            let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            let kind = match token {
                token if Some(token) == unknown => UNKNOWN,
                // llama.cpp looks for turns in text that is shaped so; the same rule as its converter's.
                token if special || (token.starts_with("<|") && token.ends_with("|>")) => CONTROL,
                _ => USER_DEFINED,
            };
            // Text that a user defined is matched as it is written, spaces and all.
            let token =
                if kind == USER_DEFINED { token.replace(MARK, " ") } else { token.to_owned() };
            set(added.get("id").and_then(Json::as_u64), &token, kind)?;
        }
        let (mut names, mut types, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (id, token) in tokens.into_iter().enumerate() {
            let (token, kind) = token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
            if !seen.insert(token.clone()) {
                return Err(format!("the token '{token}' has two ids"));
            }
            names.push(token);
            types.push(kind);
        }
        Ok(Table { tokens: names, types })
    }

    fn scores(&self, merges: &[(String, String)]) -> Vec<f32> {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        for (rank, (a, b)) in merges.iter().enumerate() {
            ranks.entry(format!("{a}{b}")).or_insert(rank);
        }
        let score = |token: &String| ranks.get(token).map_or(NEVER_MERGED, |rank| -(*rank as f32));
        self.tokens.iter().map(score).collect()
    }
}

/// `<0x0A>` and its kin.
fn byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Merges in either spelling: `"a b"`, or `["a", "b"]`.
fn merges(model: &Json) -> std::result::Result<Vec<(String, String)>, String> {
    let merges = model.get("merges").and_then(Json::as_array).ok_or("its model has no merges")?;
    let pair = |merge: &Json| match merge {
        Json::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Json::Array(pair) => match pair.as_slice() {
            [Json::String(a), Json::String(b)] => Some((a.clone(), b.clone())),
            _ => None,
        },
        _ => None,
    };
    let all: Option<Vec<_>> = merges.iter().map(pair).collect();
    all.ok_or("a merge is not a pair of tokens".to_owned())
}

/// Whether SentencePiece's tokenizer puts a space before a text, by normalizer or by Metaspace.
fn prefix(json: &Json) -> std::result::Result<bool, String> {
    let text =
        |step: &Json, key: &str| step.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
    let (mut prepends, mut replaces) = (false, false);
    for step in pre_tokenizer::steps(json.get("normalizer")) {
        match pre_tokenizer::kind(step) {
            "Prepend" if text(step, "prepend") == MARK => prepends = true,
            "Replace" if step.pointer("/pattern/String") == Some(&Json::from(" ")) => {
                replaces = text(step, "content") == MARK;
            }
            other => return Err(format!("it normalizes by {other}")),
        }
    }
    for step in pre_tokenizer::steps(json.get("pre_tokenizer")) {
        match pre_tokenizer::kind(step) {
            "Metaspace" if step.get("split") == Some(&Json::from(false)) => {
                replaces = true;
                prepends |= text(step, "prepend_scheme") != "never";
            }
            // Gemma's parts by spaces that its normalizer has replaced: it parts nothing.
            "Split" if replaces && step.pointer("/pattern/String") == Some(&Json::from(" ")) => {}
            other => return Err(format!("its pre-tokenizer is {other}")),
        }
    }
    if replaces { Ok(prepends) } else { Err("it does not mark spaces".to_owned()) }
}

/// Ids of special tokens, and what is put around a text.
fn special(
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    put: &mut impl FnMut(&str, Value),
) -> Result<()> {
    let mut stops = generate::stop_tokens(config, tokenizer);
    let eos = tokenizer.eos_token_id().or(stops.first().copied());
    let named = |name: &str| {
        let token = tokenizer.special_tokens().find(|(key, _)| *key == name);
        token.and_then(|(_, token)| tokenizer.id(token))
    };
    let ids = [
        ("bos_token_id", tokenizer.bos_token_id()),
        ("eos_token_id", eos),
        ("unknown_token_id", named("unk_token")),
        ("padding_token_id", tokenizer.pad_token_id()),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            put(key, Value::U32(id));
        }
    }
    // What else ends an answer: llama.cpp has a place for the end of a turn and one for the end of a message.
    stops.retain(|id| Some(*id) != eos);
    let message = |id: &u32| tokenizer.token(*id).as_deref() == Some("<|eom_id|>");
    for (key, wanted) in [("eot_token_id", false), ("eom_token_id", true)] {
        if let Some(id) = stops.iter().find(|id| message(id) == wanted) {
            put(key, Value::U32(*id));
        }
    }
    let (plain, whole) = (tokenizer.encode("a", false)?, tokenizer.encode("a", true)?);
    let adds = |id: Option<u32>, found: Option<&u32>| id.is_some() && found == id.as_ref();
    let longer = whole.len() > plain.len();
    put("add_bos_token", Value::Bool(longer && adds(tokenizer.bos_token_id(), whole.first())));
    put("add_eos_token", Value::Bool(longer && adds(eos, whole.last())));
    Ok(())
}

/// The chat template, and the one for conversations with tools where that is another.
fn templates(tokenizer: &Tokenizer, keys: &mut Vec<(String, Value)>) {
    let Some(default) = tokenizer.chat_template(false) else { return };
    keys.push(("tokenizer.chat_template".to_owned(), Value::String(default.to_owned())));
    if let Some(tools) = tokenizer.chat_template(true).filter(|tools| *tools != default) {
        let name = "tool_use";
        let text = Value::String(tools.to_owned());
        keys.push((format!("tokenizer.chat_template.{name}"), text));
        let names = Value::strings(vec![name.to_owned()]);
        keys.push(("tokenizer.chat_templates".to_owned(), names));
    }
}
