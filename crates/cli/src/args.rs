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
