//! The command line. The doc comments below are its help texts, and the page docs/cli.md.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Talk to a model
    Generate(Generate),
    /// Write a model with an adapter merged into its weights
    Merge(Merge),
    /// Look into models and files, and make them for tests
    Inspect(crate::inspect::Inspect),
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
    #[command(flatten)]
    pub(crate) recipe: RecipeArguments,

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
    /// A model folder (config.json, safetensors, tokenizer), or a run folder such as runs/quickstart
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
}

#[derive(Args)]
pub(crate) struct Merge {
    /// The model folder the adapter was trained on
    pub(crate) model: PathBuf,

    /// The adapter folder, such as runs/quickstart/adapter
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: PathBuf,

    /// The folder to write; it must not exist yet
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

fn at_least_1(text: &str) -> Result<usize, String> {
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
