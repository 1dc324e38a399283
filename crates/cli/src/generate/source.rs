//! Which model is meant: a folder as Hugging Face writes it, or a run folder, whose model and adapter are taken.

use std::path::{Path, PathBuf};

use ::train::checkpoint;
use ::train::error::{Error, Result};
use ::train::inputs;
use ::train::recipe::Recipe;
use ::train::recipe::model::Dtype;
use models::adapter;
use models::checkpoint::Checkpoint;
use models::lora::LoraConfig;
use models::lora::start::Start;
use models::weights::{Quantization, Storage};

use crate::hub;

/// A model, perhaps with an adapter.
pub(crate) struct Source {
    /// The model's folder.
    pub(crate) model: PathBuf,
    /// The adapter's.
    pub(crate) adapter: Option<PathBuf>,
    /// How linear layers are held: as they were in training.
    pub(crate) quantization: Quantization,
    /// What other weights are held in, where a recipe says so.
    pub(crate) storage: Option<Storage>,
}

impl Source {
    /// `adapter` goes before that of a run.
    pub(crate) fn find(model: &Path, adapter: Option<&Path>) -> Result<Source> {
        if !model.is_dir() {
            return Err(Error::input(
                format!("there is no model folder '{}'", model.display()),
                "give a folder with config.json and safetensors, or a run folder such as runs/quickstart",
            ));
        }
        let mut source = Source {
            model: model.to_path_buf(),
            adapter: adapter.map(Path::to_path_buf),
            quantization: Quantization::None,
            storage: None,
        };
        let recipe = model.join("recipe.toml");
        if recipe.exists() && !model.join("config.json").exists() {
            source.take_run(&Recipe::read_without_files(&recipe, &[])?)?;
        }
        source.take_the_adapters_base();
        Ok(source)
    }

    /// A LoftQ adapter belongs to its base in nf4, whoever names the two. What is wrong with its files is said where they
    /// are read.
    fn take_the_adapters_base(&mut self) {
        let config = self.adapter.as_deref().map(adapter::read_config);
        if let (
            Some(Ok(LoraConfig { start: Start::Loftq { double_quant }, .. })),
            Quantization::None,
        ) = (config, self.quantization)
        {
            self.quantization = Quantization::Nf4 { double_quant };
        }
    }

    fn take_run(&mut self, recipe: &Recipe) -> Result<()> {
        let run = std::mem::take(&mut self.model);
        if recipe.adapter.is_none() && self.adapter.is_none() {
            self.model = run.join("model");
            if !self.model.is_dir() {
                return Err(Error::input(
                    format!("the run in '{}' has not written its model yet", run.display()),
                    "go on with it by `prospect train ... --resume`",
                ));
            }
            return Ok(());
        }
        self.model = hub::model(&recipe.model.path)?;
        self.quantization = inputs::quantization(&recipe.model);
        self.storage = Some(match recipe.model.dtype {
            Dtype::F32 => Storage::F32,
            Dtype::Bf16 => Storage::Bf16,
        });
        if self.adapter.is_none() {
            let finished = run.join("adapter");
            let last = || checkpoint::newest(&run).0.map(|(_, folder)| folder);
            self.adapter = if finished.is_dir() { Some(finished) } else { last() };
            if self.adapter.is_none() {
                return Err(Error::input(
                    format!(
                        "the run in '{}' has neither an adapter nor a checkpoint yet",
                        run.display()
                    ),
                    "go on with it by `prospect train ... --resume`",
                ));
            }
        }
        Ok(())
    }
}

/// What weights are held in where nobody says: as narrow as they are stored.
pub(crate) fn storage(checkpoint: &Checkpoint) -> Storage {
    let wide = checkpoint.names().filter_map(|name| checkpoint.get(name)).any(|stored| {
        stored.shape.len() == 2 && stored.bytes.len() == 4 * stored.shape.iter().product::<usize>()
    });
    if wide { Storage::F32 } else { Storage::Bf16 }
}
