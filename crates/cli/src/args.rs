//! The command line. The doc comments below are its help texts, and the page docs/cli.md.

use std::path::PathBuf;

use ::train::recipe::training::Device;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Fine-tune a language model from thumbs-up / thumbs-down feedback, on your own machine.
#[derive(Parser)]
#[command(name = "prospect", version, max_term_width = 100, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train as a recipe says, and show answers from before and after
    Train(Train),
    /// Say what a run will take, before it runs: memory, work, steps
    Plan(Plan),
    /// Show what training will see of a recipe's data
    Data(Data),
    /// Measure a recipe's held-out data
    Eval(Eval),
    /// Measure which of cuBLASLt's algorithms computes each product of a recipe fastest on this GPU, for all runs to come
    Tune(crate::tune::Tune),
    /// Talk to a model
    Generate(Generate),
    /// Write a model with an adapter merged into its weights
    Merge(Merge),
    /// Write a model or an adapter for llama.cpp (GGUF) or Ollama
    Export(Export),
    /// Look at what a model is given and computes, to port or debug: token ids, logits, rendered conversations, 4-bit codes
    Inspect(Inspect),
    /// Say whether this machine, and the Python stack on it, will train, and what mends what will not
    Doctor(Doctor),
    /// Dated sets of Python packages that work together: show, check, mend
    Stack(doctor::cli::StackArgs),
}

/// The doctor's own flags, and the one that needs the engine.
#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) doctor: doctor::cli::DoctorArgs,

    /// Run each component against its reference on this machine: products, NF4, attention, optimizer, a whole step
    #[arg(long)]
    pub(crate) self_test: bool,

    /// Get NVIDIA's library of matrix products out of its wheel on PyPI (or the index that UV_INDEX_URL names), into
    /// Prospect's own folder
    #[arg(long, value_name = "LIBRARY", conflicts_with = "self_test")]
    pub(crate) fetch: Option<Library>,
}

/// What can be fetched.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Library {
    /// cuBLASLt, from 393 to 594 MB by the driver; NVIDIA's license comes with it.
    Cublas,
}

/// A recipe, and what is changed in it for this once.
#[derive(Args)]
pub(crate) struct RecipeArguments {
    /// The recipe, a TOML file that says what to train and how
    pub(crate) recipe: PathBuf,

    /// Change a key of the recipe for this once, such as --set train.epochs=1
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,

    /// Go on with the run in the recipe's output folder, as if it had never stopped
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Args)]
pub(crate) struct Plan {
    /// The recipe, a TOML file that says what to train and how. Of the model the config.json is enough; without the
    /// data, examples are taken to be as long as data.max_length allows
    #[arg(required_unless_present = "table")]
    pub(crate) recipe: Option<PathBuf>,

    /// Change a key of the recipe for this once, such as --set train.batch_size=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Plan for a GPU that need not be here: its name, such as "RTX 3090", or its memory, such as 24GiB
    #[arg(long, value_name = "NAME|SIZE")]
    pub(crate) gpu: Option<String>,

    /// Instead of a recipe, show what models from 3B to 32B take and how fast they train on the GPU
    #[arg(long, requires = "gpu", conflicts_with_all = ["recipe", "set"])]
    pub(crate) table: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Data {
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Eval {
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,

    /// The adapter to measure, such as runs/quickstart/adapter; without one, the model as training starts
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Generate {
    /// A model folder (config.json, safetensors, tokenizer), a run folder such as runs/quickstart, or a name of the
    /// hub such as Qwen/Qwen3-0.6B
    pub(crate) model: PathBuf,

    /// An adapter folder; a run folder brings its own
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,

    /// Answer this and end; without it, what is typed is answered
    #[arg(long)]
    pub(crate) prompt: Option<String>,

    /// An answer ends here at the latest
    #[arg(long, default_value_t = 256, value_parser = at_least_1)]
    pub(crate) max_new_tokens: usize,

    /// 0 always takes the likeliest token; 0.7 is lively, above 1 is wild
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub(crate) temperature: f32,

    /// Draw only from the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_parser = probability)]
    pub(crate) top_p: f32,

    /// Draw only from this many of the likeliest tokens; 0 for all
    #[arg(long, default_value_t = 0)]
    pub(crate) top_k: usize,

    /// The same seed draws the same answer
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// Give the model the text as it is, without its chat template, and show special tokens
    #[arg(long)]
    pub(crate) raw: bool,

    /// Where to compute; auto takes a GPU if one can be used
    #[arg(long, value_enum, default_value_t = Place::Auto)]
    pub(crate) device: Place,
}

#[derive(Args)]
pub(crate) struct Merge {
    /// The model folder the adapter was trained on, or its name on the hub
    pub(crate) model: PathBuf,

    /// The adapter folder, such as runs/quickstart/adapter
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,

    /// The folder to write; it must not exist yet
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Place {
    Auto,
    Cpu,
    Cuda,
}

impl Place {
    /// As a recipe says it.
    pub(crate) fn device(self) -> Device {
        match self {
            Place::Auto => Device::Auto,
            Place::Cpu => Device::Cpu,
            Place::Cuda => Device::Cuda,
        }
    }
}

#[derive(Args)]
pub(crate) struct Export {
    /// A model folder, a run folder or a name of the hub; without it, what the adapter was trained on
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,

    /// An adapter folder: merged into the model, or with gguf-lora written alone
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,

    /// For which program, and what of it
    #[arg(long, value_enum)]
    pub(crate) to: ExportTo,

    /// How matrices are stored; f16 where nothing is said
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) kind: Option<ExportType>,

    /// The file to write, or with ollama the folder; it must not exist yet
    pub(crate) out: PathBuf,
}

/// What `prospect export` writes.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ExportTo {
    /// One file for llama.cpp: weights, tokenizer, chat template
    Gguf,
    /// The adapter alone, for llama.cpp to lay over the model
    GgufLora,
    /// A folder with such a file and the Modelfile that Ollama reads
    Ollama,
}

/// How matrices are stored in GGUF.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ExportType {
    /// 4 bytes a weight
    F32,
    /// 2 bytes a weight
    F16,
    /// 2 bytes a weight, exact for a model in bf16
    Bf16,
    /// 8 bits and a scale for every 32
    #[value(name = "q8_0")]
    Q8_0,
    /// 4 bits and a scale for every 32; the head has 8
    #[value(name = "q4_0")]
    Q4_0,
}

impl ExportType {
    pub(crate) fn tensor_type(self) -> models::gguf::TensorType {
        use models::gguf::TensorType;
        match self {
            ExportType::F32 => TensorType::F32,
            ExportType::F16 => TensorType::F16,
            ExportType::Bf16 => TensorType::Bf16,
            ExportType::Q8_0 => TensorType::Q8_0,
            ExportType::Q4_0 => TensorType::Q4_0,
        }
    }
}

#[derive(Args)]
pub(crate) struct Inspect {
    #[command(subcommand)]
    pub(crate) what: Inspected,
}

#[derive(Subcommand)]
pub(crate) enum Inspected {
    /// Write the logits behind every token of some lists of token ids
    Logits(Logits),
    /// Print the token ids of a text, as a JSON list
    Tokenize(Tokenize),
    /// Print a conversation as the chat template renders it, and nothing else
    Template(Template),
    /// Quantize a safetensors file to 4 bits, in bitsandbytes' layout and names
    Quantize(crate::inspect::quantize::Quantize),
}

#[derive(Args)]
pub(crate) struct Logits {
    /// A model folder (config.json, safetensors), or a run folder such as runs/quickstart
    pub(crate) model: PathBuf,

    /// A JSON file with a list of lists of token ids, such as [[1, 15, 8], [1, 7]]
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: PathBuf,

    /// The safetensors file to write: logits_0, logits_1, ..., each (tokens, vocabulary) in f32
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,

    /// An adapter folder; a run folder brings its own
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,

    /// Where to compute; auto takes a GPU if one can be used
    #[arg(long, value_enum, default_value_t = Place::Auto)]
    pub(crate) device: Place,

    /// What weights are held in; without it, as they are stored. A GPU computes in bf16, the CPU in f32
    #[arg(long, value_parser = ["f32", "bf16"])]
    pub(crate) dtype: Option<String>,
}

#[derive(Args)]
pub(crate) struct Tokenize {
    /// A model folder with tokenizer.json, or a run folder such as runs/quickstart
    pub(crate) model: PathBuf,

    /// The text
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) text: String,

    /// Print the tokens as the vocabulary spells them, not their ids
    #[arg(long)]
    pub(crate) tokens: bool,

    /// Leave out the special tokens that the tokenizer adds, often one at the start
    #[arg(long)]
    pub(crate) no_special_tokens: bool,
}

#[derive(Args)]
pub(crate) struct Template {
    /// A model folder with a chat template, a run folder, or a template file such as chat_template.jinja
    #[arg(value_name = "MODEL|FILE.jinja")]
    pub(crate) source: PathBuf,

    /// A JSON file: a list of messages, or an object with messages, perhaps tools, and further variables
    #[arg(long, value_name = "FILE")]
    pub(crate) conversation: PathBuf,

    /// End with the beginning of an answer
    #[arg(long)]
    pub(crate) add_generation_prompt: bool,

    /// Set a variable of the template, such as --set enable_thinking=false; the value is JSON, or else text
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value, allow_hyphen_values = true)]
    pub(crate) set: Vec<(String, serde_json::Value)>,
}

fn key_and_value(text: &str) -> Result<(String, serde_json::Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((key.trim().to_owned(), value))
        }
        _ => Err("write it as KEY=VALUE, such as enable_thinking=false".to_owned()),
    }
}

pub(crate) fn at_least_1(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    in_range(text, |value| (0.0..=100.0).contains(&value), "from 0 to 100")
}

fn probability(text: &str) -> Result<f32, String> {
    in_range(text, |value| value > 0.0 && value <= 1.0, "above 0 and at most 1")
}

fn in_range(text: &str, holds: impl Fn(f32) -> bool, words: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if holds(value) => Ok(value),
        _ => Err(format!("a number {words}")),
    }
}
