//! A Hugging Face tokenizer folder: `tokenizer.json`, `tokenizer_config.json`,
//! `special_tokens_map.json` and `chat_template.jinja`, read as transformers 5.23 reads them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::confined::confined;
use crate::error::{Error, Result};
use crate::files;

/// The attributes transformers calls special tokens; templates see them by these names.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The name of a folder's only or usual chat template.
const DEFAULT_TEMPLATE: &str = "default";

/// The name of a template of its own for conversations with tools.
const TOOL_TEMPLATE: &str = "tool_use";

/// What to do about a tokenizer that takes all memory.
const BROKEN: &str = "download the model's tokenizer.json again; a sound one never does this";

/// Text to token ids and back, with the folder's special tokens and chat templates.
#[derive(Clone)]
pub struct Tokenizer {
    folder: PathBuf,
    inner: tokenizers::Tokenizer,
    special: BTreeMap<&'static str, String>,
    templates: BTreeMap<String, String>,
    vocab_size: usize,
    /// SHA-256 of tokenizer.json.
    sum: String,
}

impl Tokenizer {
    /// Reads the tokenizer of a model folder.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        if folder.is_dir() && !path.exists() {
            return Err(Error::input(
                format!("'{}' has no tokenizer.json", folder.display()),
                "download the model's tokenizer.json too; a slow tokenizer (tokenizer.model) is \
                 converted by `AutoTokenizer.from_pretrained(...).save_pretrained(...)`",
            ));
        }
        let bytes = files::read(&path)?;
        let unusable = |error: String| {
            Error::input(
                format!("'{}' is not a tokenizer: {error}", path.display()),
                "download the file again; it may be cut short or be a Git LFS pointer",
            )
        };
        let what = format!("'{}'", path.display());
        let read = || guarded(|| tokenizers::Tokenizer::from_bytes(&bytes));
        let mut inner = confined(bytes.len(), &what, BROKEN, read).map_err(unusable)?;
        // Cutting and padding belong to the trainer; the file may carry settings of some call.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        // The post-processor is looked at only when a text is encoded.
        guarded(|| inner.encode_fast("", true)).map_err(unusable)?;

        let config_path = folder.join("tokenizer_config.json");
        let config = object_if_there(&config_path)?;
        let map_path = folder.join("special_tokens_map.json");
        let mut special = special_tokens(&config, &config_path)?;
        // A configuration with `added_tokens_decoder` knows all tokens; older folders have
        // their special tokens in a file of their own, which then goes before it.
        if !config.contains_key("added_tokens_decoder") {
            special.extend(special_tokens(&object_if_there(&map_path)?, &map_path)?);
        }
        if let Some(eos) = special.get("eos_token")
            && inner.token_to_id(eos).is_none()
        {
            return Err(Error::input(
                format!(
                    "eos_token '{eos}' of '{}' is not in tokenizer.json",
                    config_path.display()
                ),
                "both files must come from the same model",
            ));
        }
        same_added_tokens(&inner, &config, &config_path)?;
        let templates = templates(folder, &config, &config_path)?;
        let sum = files::hex(&Sha256::digest(&bytes));
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        Ok(Self { folder: folder.to_path_buf(), inner, special, templates, vocab_size, sum })
    }

    /// All that tokens depend on: tokenizer.json, special tokens and chat templates.
    pub(crate) fn identity(&self) -> Vec<String> {
        let special = self.special.iter().map(|(name, token)| format!("{name} {token}"));
        let templates = self.templates.iter().map(|(name, source)| format!("{name} {source}"));
        std::iter::once(self.sum.clone()).chain(special).chain(templates).collect()
    }

    /// One that knows no token, for plans of models of which only the shape is known.
    pub fn blank() -> Self {
        Self {
            folder: PathBuf::new(),
            inner: tokenizers::Tokenizer::new(tokenizers::models::wordlevel::WordLevel::default()),
            special: BTreeMap::new(),
            templates: BTreeMap::new(),
            vocab_size: 0,
            sum: String::new(),
        }
    }

    /// The folder it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The token ids of `text`; `add_special_tokens` lets the post-processor add what it adds
    /// (often a bos token).
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let what = format!("the tokenizer of '{}'", self.folder.display());
        let encode = || guarded(|| self.inner.encode_fast(text, add_special_tokens));
        let encoding = confined(text.len(), &what, BROKEN, encode).map_err(|error| {
            Error::input(
                format!("the tokenizer of '{}' cannot encode a text: {error}", self.folder.display()),
                "a tokenizer without an unknown token cannot encode every text; check the tokenizer",
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special_tokens)).map_err(|error| {
            Error::input(
                format!("the tokenizer of '{}' cannot decode: {error}", self.folder.display()),
                "the ids must come from this tokenizer",
            )
        })
    }

    /// The end-of-sequence token.
    pub fn eos_token(&self) -> Option<&str> {
        self.special("eos_token")
    }

    /// The id of the end-of-sequence token.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.id(self.eos_token()?)
    }

    /// The beginning-of-sequence token.
    pub fn bos_token(&self) -> Option<&str> {
        self.special("bos_token")
    }

    /// The id of the beginning-of-sequence token.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.id(self.bos_token()?)
    }

    /// The padding token.
    pub fn pad_token(&self) -> Option<&str> {
        self.special("pad_token")
    }

    /// The id of the padding token.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.id(self.pad_token()?)
    }

    /// The special tokens with a name (`bos_token`, `eos_token`, ...), as templates see them.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.special.iter().map(|(&name, token)| (name, token.as_str()))
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The source of the chat template; a folder may keep one of its own for conversations with
    /// tools.
    pub fn chat_template(&self, with_tools: bool) -> Option<&str> {
        let tool_use = if with_tools { self.templates.get(TOOL_TEMPLATE) } else { None };
        tool_use.or_else(|| self.templates.get(DEFAULT_TEMPLATE)).map(String::as_str)
    }

    fn special(&self, name: &str) -> Option<&str> {
        self.special.get(name).map(String::as_str)
    }
}

/// Calls the tokenizers crate, which panics on some broken files (merges longer than every token
/// of the vocabulary, for one); such a panic becomes an error like any other.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(match panic.downcast_ref::<String>() {
            Some(message) => message.clone(),
            None => panic.downcast_ref::<&str>().unwrap_or(&"it is inconsistent").to_string(),
        }),
    }
}

fn object_if_there(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let hint = "download the file again";
    match serde_json::from_str(&files::read_to_string(path)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::input(format!("'{}' is not a JSON object", path.display()), hint)),
        Err(error) => Err(Error::input(format!("'{}' is not JSON: {error}", path.display()), hint)),
    }
}

/// The named tokens of a file; each a string or an object with its `content`.
fn special_tokens(
    config: &Map<String, Value>,
    path: &Path,
) -> Result<BTreeMap<&'static str, String>> {
    let mut tokens = BTreeMap::new();
    for name in NAMED {
        let token = match config.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
            Some(token) => token.as_str(),
        };
        let Some(token) = token else {
            return Err(Error::input(
                format!(
                    "'{name}' in '{}' is neither a string nor an object with a 'content'",
                    path.display()
                ),
                "download the file again",
            ));
        };
        tokens.insert(name, token.to_string());
    }
    Ok(tokens)
}

/// Tokens that only the configuration knows would be split into pieces silently.
fn same_added_tokens(
    inner: &tokenizers::Tokenizer,
    config: &Map<String, Value>,
    path: &Path,
) -> Result<()> {
    let Some(Value::Object(added)) = config.get("added_tokens_decoder") else { return Ok(()) };
    for (id, token) in added {
        let Some(content) = token.get("content").and_then(Value::as_str) else { continue };
        let found = inner.token_to_id(content);
        if found.map(|found| found.to_string()).as_deref() != Some(id) {
            let found = found.map_or("does not have".to_string(), |id| format!("has as {id}"));
            return Err(Error::input(
                format!(
                    "'{}' adds the token '{content}' as {id}, which tokenizer.json {found}",
                    path.display()
                ),
                "both files must come from the same model; save them again with \
                 `AutoTokenizer.from_pretrained(...).save_pretrained(...)`",
            ));
        }
    }
    Ok(())
}

/// The chat templates of a folder by name: `chat_template.jinja` and
/// `additional_chat_templates/tool_use.jinja`, or where there is neither, what the configuration
/// has.
fn templates(
    folder: &Path,
    config: &Map<String, Value>,
    config_path: &Path,
) -> Result<BTreeMap<String, String>> {
    let mut templates = BTreeMap::new();
    for (name, file) in [
        (DEFAULT_TEMPLATE, "chat_template.jinja"),
        (TOOL_TEMPLATE, "additional_chat_templates/tool_use.jinja"),
    ] {
        let path = folder.join(file);
        if path.exists() {
            templates.insert(name.to_string(), files::read_to_string(&path)?);
        }
    }
    if !templates.is_empty() {
        return Ok(templates);
    }
    let wrong = |problem: &str, hint: &str| {
        Err(Error::input(format!("{problem} in '{}'", config_path.display()), hint))
    };
    match config.get("chat_template") {
        None | Some(Value::Null) => {}
        Some(Value::String(source)) => {
            templates.insert(DEFAULT_TEMPLATE.to_string(), source.clone());
        }
        Some(Value::Array(list)) => {
            for entry in list {
                let field = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_string);
                let (Some(name), Some(source)) = (field("name"), field("template")) else {
                    return wrong(
                        "an entry of 'chat_template' lacks 'name' or 'template'",
                        "give each template as {\"name\": \"...\", \"template\": \"...\"}",
                    );
                };
                templates.insert(name, source);
            }
        }
        Some(_) => {
            return wrong(
                "'chat_template' is neither a string nor a list",
                "download the file again",
            );
        }
    }
    Ok(templates)
}
