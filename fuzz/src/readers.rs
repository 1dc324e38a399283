//! Every reader of files that strangers wrote, as a function of the file's bytes. The fuzz targets give it what
//! libFuzzer finds, `crates/models/tests/readers.rs` gives it a bounded number of mutated files. A new format is a
//! line in [`READERS`], and a folder `fixtures/fuzz/<name>` where it has seeds of its own.
//!
//! A reader may return any error. It must not panic, take memory by a number that it did not check, or leave its
//! folder.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use data::template::{ChatTemplate, Conversation, Moment};
use data::{DataOptions, Dataset, Form, Tokenizer};
use engine::device::{Device, Kind};
use models::checkpoint::Checkpoint;
use models::config::ModelConfig;
use models::decoder::Model;
use models::gguf::read::File;
use models::weights::{self, Quantization, Storage};
use models::{adapter, lora};

/// One of them.
pub struct Reader {
    /// What it reads.
    pub name: &'static str,
    /// Sound files to begin with, below `fixtures/`; those in `fixtures/fuzz/<name>` come on top.
    pub seeds: &'static [&'static str],
    /// Reads a file of these bytes in a folder of its own.
    pub read: fn(&[u8], &Path),
}

/// All of them.
pub const READERS: &[Reader] = &[
    Reader {
        name: "jsonl",
        seeds: &[
            "data/rows/chat-tools.jsonl",
            "data/rows/paired-dpo.jsonl",
            "data/rows/unpaired.jsonl",
        ],
        read: jsonl,
    },
    Reader { name: "csv", seeds: &["data/formats/chat.csv"], read: csv },
    Reader {
        name: "parquet",
        seeds: &["data/formats/chat.none.parquet", "data/formats/chat.snappy.parquet"],
        read: parquet,
    },
    Reader {
        name: "arrow",
        seeds: &[
            "data/formats/chat.stream.arrow",
            "data/formats/chat.uncompressed.arrow",
            "data/formats/chat.lz4.arrow",
            "data/formats/chat.zstd.arrow",
            "data/formats/plain.dictionary.arrow",
        ],
        read: arrow,
    },
    Reader {
        name: "template",
        seeds: &[
            "data/templates/python.jinja",
            "data/models/qwen2.5.jinja",
            "data/models/smollm3.jinja",
            "data/models/mistral-v3.jinja",
        ],
        read: template,
    },
    Reader {
        name: "tokenizer",
        seeds: &["kto/tiny/tokenizer.json", "data/tokenizer/tokenizer.json"],
        read: tokenizer,
    },
    Reader {
        name: "tokenizer_config",
        seeds: &["kto/tiny/tokenizer_config.json", "data/tokenizer/tokenizer_config.json"],
        read: tokenizer_config,
    },
    Reader {
        name: "config",
        seeds: &[
            "models/qwen3/config.json",
            "models/llama3_rope/config.json",
            "models/mistral_window/config.json",
        ],
        read: config,
    },
    Reader {
        name: "safetensors",
        seeds: &["models/adapter/adapter_model.safetensors"],
        read: safetensors,
    },
    Reader {
        name: "safetensors_index",
        seeds: &["models/sharded/model.safetensors.index.json"],
        read: safetensors_index,
    },
    Reader { name: "gguf", seeds: &[], read: gguf },
    Reader {
        name: "adapter_config",
        seeds: &["models/adapter/adapter_config.json"],
        read: adapter_config,
    },
];

/// A sound tokenizer, for readers of what lies beside one.
const TOKENIZER: &[u8] = include_bytes!("../../fixtures/kto/tiny/tokenizer.json");
const TOKENIZER_CONFIG: &[u8] = include_bytes!("../../fixtures/kto/tiny/tokenizer_config.json");
/// A sound file of tensors.
const TENSORS: &[u8] = include_bytes!("../../fixtures/models/adapter/adapter_model.safetensors");

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    path
}

/// Rows of a file, tokenized.
fn rows(bytes: &[u8], folder: &Path, name: &str) {
    static TOKENIZERS: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZERS.get_or_init(|| {
        file(folder, "tokenizer.json", TOKENIZER);
        file(folder, "tokenizer_config.json", TOKENIZER_CONFIG);
        Tokenizer::load(folder).expect("the tokenizer is sound")
    });
    let path = file(folder, name, bytes);
    for form in [Form::Unpaired, Form::Paired, Form::Sft] {
        let options = DataOptions { form, max_length: Some(64), now: Moment(0) };
        let _ = Dataset::load(std::slice::from_ref(&path), tokenizer, &options);
    }
}

fn jsonl(bytes: &[u8], folder: &Path) {
    rows(bytes, folder, "data.jsonl");
}

fn csv(bytes: &[u8], folder: &Path) {
    rows(bytes, folder, "data.csv");
}

fn parquet(bytes: &[u8], folder: &Path) {
    rows(bytes, folder, "data.parquet");
}

fn arrow(bytes: &[u8], folder: &Path) {
    rows(bytes, folder, "data.arrow");
}

/// A message of each kind, for templates.
const MESSAGES: &str = r#"[
    {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, true]}}}]},
    {"role": "tool", "content": "t"}, {"role": "assistant", "content": "<think>a</think>b"}
]"#;

fn template(bytes: &[u8], _: &Path) {
    let source = String::from_utf8_lossy(bytes);
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let origin = "fuzz".to_owned();
    let template = ChatTemplate::compile(&source, None, special.into_iter(), Moment(0), origin);
    let Ok(template) = template else { return };
    let messages: Vec<data::records::Message> = serde_json::from_str(MESSAGES).expect("messages");
    let tools =
        serde_json::json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    for tools in [None, Some(&tools)] {
        let _ = template.render(&Conversation {
            messages: &messages.iter().collect::<Vec<_>>(),
            tools,
            template_kwargs: &serde_json::Map::new(),
            add_generation_prompt: true,
        });
    }
}

fn tokenizer(bytes: &[u8], folder: &Path) {
    file(folder, "tokenizer.json", bytes);
    let Ok(tokenizer) = Tokenizer::load(folder) else { return };
    if let Ok(ids) = tokenizer.encode("The sky, 空 w1 w2\n", true) {
        let _ = tokenizer.decode(&ids, false);
    }
    let _ = tokenizer.decode(&[0, 1, u32::MAX], true);
}

fn tokenizer_config(bytes: &[u8], folder: &Path) {
    file(folder, "tokenizer.json", TOKENIZER);
    file(folder, "tokenizer_config.json", bytes);
    let Ok(tokenizer) = Tokenizer::load(folder) else { return };
    let _ = ChatTemplate::of(&tokenizer, Moment(0));
}

fn config(bytes: &[u8], folder: &Path) {
    file(folder, "config.json", bytes);
    let Ok(config) = ModelConfig::load(folder) else { return };
    // What a sound-looking configuration asks for is planned before a byte is taken.
    if config.num_hidden_layers > 64 {
        return;
    }
    let plan = Device::plan_for(Kind::Cpu);
    for quantization in [Quantization::None, Quantization::Nf4 { double_quant: true }] {
        if let Ok(weights) = weights::load(&plan, &config, None, quantization, Storage::Bf16) {
            let _ = Model::new(&plan, config.clone(), weights, 16);
        }
    }
}

/// Every tensor of a checkpoint; none lies outside the folder.
fn look_through(checkpoint: &Checkpoint, folder: &Path) {
    let names: Vec<&str> = checkpoint.names().collect();
    for name in names {
        let Some(stored) = checkpoint.get(name) else { continue };
        assert_eq!(stored.file.parent(), Some(folder), "{name}");
        let mut values = vec![0f32; stored.bytes.len().min(4096)];
        let _ = stored.to_f32(name, &mut values);
        let _ = checkpoint.expect(name, &[1, 2]);
    }
}

fn safetensors(bytes: &[u8], folder: &Path) {
    let path = file(folder, "model.safetensors", bytes);
    if let Ok(checkpoint) = Checkpoint::open_file(&path) {
        look_through(&checkpoint, folder);
    }
}

fn safetensors_index(bytes: &[u8], folder: &Path) {
    let _ = std::fs::remove_file(folder.join("model.safetensors"));
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        file(folder, shard, TENSORS);
    }
    file(folder, "model.safetensors.index.json", bytes);
    if let Ok(checkpoint) = Checkpoint::open(folder) {
        look_through(&checkpoint, folder);
    }
}

fn gguf(bytes: &[u8], folder: &Path) {
    let Ok(file) = File::open(&file(folder, "model.gguf", bytes)) else { return };
    for tensor in file.tensors() {
        assert_eq!(
            tensor.to_f32().len(),
            tensor.shape.iter().product::<usize>(),
            "{}",
            tensor.name
        );
    }
}

fn adapter_config(bytes: &[u8], folder: &Path) {
    file(folder, adapter::CONFIG, bytes);
    let config: models::error::Result<lora::LoraConfig> = adapter::read_config(folder);
    let _ = config;
}
