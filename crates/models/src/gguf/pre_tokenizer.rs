//! How a text is cut into words before merges, by the names that llama.cpp has for it.
//!
//! llama.cpp carries the splits of known models (`src/llama-vocab.cpp`, llama-cpp-python 0.3.36) and picks one by
//! `tokenizer.ggml.pre`. One that it does not carry would tokenize differently from training, so it is refused.

use serde_json::Value;

/// Splits by a pattern, then bytes: the pattern, whether a whole word of the vocabulary goes before merges
/// (`ignore_merges`), and the name.
const PATTERNS: [(&str, bool, &str); 6] = [
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        true,
        "llama-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
        "smaug-bpe",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
        "qwen2",
    ),
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
        "qwen35",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        true,
        "tekken",
    ),
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
        "gpt-4o",
    ),
];

/// The steps of a normalizer or pre-tokenizer of tokenizer.json, in order.
pub(super) fn steps(value: Option<&Value>) -> Vec<&Value> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Vec::new() };
    let parts = ["pretokenizers", "normalizers"].iter().find_map(|key| value.get(*key));
    match (kind(value), parts.and_then(Value::as_array)) {
        ("Sequence", Some(parts)) => parts.iter().flat_map(|part| steps(Some(part))).collect(),
        _ => vec![value],
    }
}

/// The `type` of a step.
pub(super) fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("?")
}

/// The name of a byte-level split, or what of it is not known.
pub(super) fn name(
    pre_tokenizer: Option<&Value>,
    ignore_merges: bool,
) -> Result<&'static str, String> {
    let steps = steps(pre_tokenizer);
    let Some((bytes, before)) = steps.split_last().filter(|(last, _)| kind(last) == "ByteLevel")
    else {
        let kinds: Vec<&str> = steps.iter().map(|step| kind(step)).collect();
        return Err(format!("its pre-tokenizer is [{}]", kinds.join(", ")));
    };
    if flag(bytes, "add_prefix_space", true) {
        return Err("its pre-tokenizer adds a space before a text".to_owned());
    }
    match (before, flag(bytes, "use_regex", true)) {
        ([], true) if !ignore_merges => Ok("gpt-2"),
        ([digits], true)
            if kind(digits) == "Digits"
                && flag(digits, "individual_digits", false)
                && !ignore_merges =>
        {
            Ok("smollm")
        }
        ([split], false) if kind(split) == "Split" => {
            let pattern = split.pointer("/pattern/Regex").and_then(Value::as_str);
            let pattern = pattern.unwrap_or("a text");
            // The patterns match every character, so keeping what matches and parting by it are the same.
            let parts = match split.get("behavior").and_then(Value::as_str) {
                Some("Isolated") => true,
                Some("Removed") => flag(split, "invert", false),
                _ => false,
            };
            let known = PATTERNS
                .iter()
                .find(|(known, ignore, _)| *known == pattern && *ignore == ignore_merges);
            match known {
                Some((_, _, name)) if parts => Ok(name),
                _ => Err(format!("its pre-tokenizer splits by {pattern}")),
            }
        }
        _ => {
            let kinds: Vec<&str> = steps.iter().map(|step| kind(step)).collect();
            Err(format!("its pre-tokenizer is [{}]", kinds.join(", ")))
        }
    }
}

fn flag(step: &Value, key: &str, default: bool) -> bool {
    step.get(key).and_then(Value::as_bool).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn splits_have_llama_cpps_names() {
        let of = |ignore_merges: bool, value: Json| {
            name(Some(&value), ignore_merges).unwrap_or_else(|why| Box::leak(why.into_boxed_str()))
        };
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
        let sequence = |parts: Json| json!({"type": "Sequence", "pretokenizers": parts});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let qwen2 = llama3.replace("{1,3}", "");
        assert_eq!(of(false, bytes(true)), "gpt-2");
        let digits = json!({"type": "Digits", "individual_digits": true});
        assert_eq!(of(false, sequence(json!([digits, bytes(true)]))), "smollm");
        assert_eq!(of(true, sequence(json!([split(llama3), bytes(false)]))), "llama-bpe");
        assert_eq!(of(false, sequence(json!([split(llama3), bytes(false)]))), "smaug-bpe");
        assert_eq!(of(false, sequence(json!([split(&qwen2), bytes(false)]))), "qwen2");
        assert_eq!(of(true, bytes(true)), "its pre-tokenizer is [ByteLevel]");
        assert_eq!(
            of(false, json!({"type": "ByteLevel"})),
            "its pre-tokenizer adds a space before a text"
        );
    }
}
