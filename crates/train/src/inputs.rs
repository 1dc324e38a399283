//! What a recipe names, read into host memory once: for the plan and for the run.

mod starting;

use std::path::{Path, PathBuf};

pub use data::template::Moment;
use data::{Batching, DataOptions, Dataset, Form, Order, Origin, Report, Tokenizer};
use models::checkpoint::Checkpoint;
use models::config::{ModelConfig, Stored, stored_quantization};
use models::lora::LoraConfig;
use models::weights::{Quantization, Storage, stored_form};

use crate::error::{Error, Result};
use crate::judge::{Prompts, beyond_vocabulary};
use crate::recipe::model::{Dtype, Model as RecipeModel, Quantization as RecipeQuantization};
use crate::recipe::objective::ObjectiveName;
use crate::recipe::sources::DataPath;
use crate::recipe::training::Train;
use crate::recipe::{ModelPath, Recipe, data::Order as RecipeOrder};

/// Everything a run reads.
pub struct Inputs {
    /// What to do.
    pub recipe: Recipe,
    /// The model's folder.
    pub folder: PathBuf,
    /// The model's numbers.
    pub config: ModelConfig,
    /// The model's tensors; a plan can be made without.
    pub checkpoint: Option<Checkpoint>,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// The adapter to train; none in full fine-tuning.
    pub lora: Option<LoraConfig>,
    /// The feedback.
    pub dataset: Dataset,
    /// What was read, dropped and cut of it.
    pub report: Report,
    /// Held-out feedback.
    pub eval: Option<(Dataset, Report)>,
    /// Prompts to answer before and after.
    pub prompts: Option<Prompts>,
    /// Prompt and completion tokens of every example, where they are made up.
    made_up: Option<(usize, usize)>,
    /// How the linear layers are stored, as config.json says, where the model's tensors are not there.
    stored: Option<Quantization>,
}

/// The most steps of a run.
const MOST_STEPS: usize = 10_000_000;

impl Inputs {
    /// Reads all of it. `now` is the moment a chat template may write into prompts: a resumed run gives the moment
    /// of the run it goes on with.
    pub fn load(recipe: Recipe, now: Moment) -> Result<Inputs> {
        let folder = model_folder(&recipe.model.path)?;
        let checkpoint = Some(Checkpoint::open(&folder)?);
        Inputs::read(recipe, folder, checkpoint, now)
    }

    /// As [`Inputs::load`], for a plan: of a model whose weights are not there the configuration is enough, and
    /// feedback that is not there is taken to be as long as `data.max_length` allows.
    pub fn load_to_plan(recipe: Recipe, now: Moment) -> Result<Inputs> {
        let folder = model_folder(&recipe.model.path)?;
        let checkpoint = match Checkpoint::is_in(&folder) {
            true => Some(Checkpoint::open(&folder)?),
            false => None,
        };
        let stored = match checkpoint {
            Some(_) => None,
            None => left_to_quantize(&recipe, &folder)?,
        };
        if recipe.data.train.iter().flat_map(|source| &source.files).all(DataPath::finds) {
            let inputs = Inputs::read(recipe, folder, checkpoint, now)?;
            return Ok(Inputs { stored, ..inputs });
        }
        let config = ModelConfig::load(&folder)?;
        // As short a prompt as there is: then most is scored, and the mismatched completion is as long.
        let longest = recipe.data.max_length.min(config.max_position_embeddings);
        let inputs = Inputs::made_up(recipe, config, 1, longest - 1)?;
        Ok(Inputs { folder, checkpoint, stored, ..inputs })
    }

    /// A step or two of made-up examples of one length, on a model of which only the configuration is known.
    pub fn made_up(
        recipe: Recipe,
        config: ModelConfig,
        prompt: usize,
        completion: usize,
    ) -> Result<Inputs> {
        let lora = starting::lora_config(&recipe, &config)?;
        let form = form(recipe.objective.name);
        let examples = if form == Form::Paired { 2 } else { 1 } * recipe.train.batch_size;
        let count = examples * recipe.train.gradient_accumulation_steps;
        let (dataset, report) = Dataset::made_up(form, count, prompt, completion);
        let recipe = Recipe {
            generate: None,
            train: Train { max_steps: Some(1), ..recipe.train },
            ..recipe
        };
        Ok(Inputs {
            recipe,
            folder: PathBuf::new(),
            config,
            checkpoint: None,
            tokenizer: Tokenizer::blank(),
            lora,
            dataset,
            report,
            eval: None,
            prompts: None,
            made_up: Some((prompt, completion)),
            stored: None,
        })
    }

    /// The same under another recipe.
    pub fn changed(&self, recipe: Recipe) -> Result<Inputs> {
        let Some((prompt, completion)) = self.made_up else {
            return Inputs::load_to_plan(recipe, Moment::now());
        };
        let completion = completion.min(recipe.data.max_length.saturating_sub(prompt)).max(1);
        let (folder, config) = (self.folder.clone(), self.config.clone());
        let stored = self.stored;
        Ok(Inputs { folder, stored, ..Inputs::made_up(recipe, config, prompt, completion)? })
    }

    /// Whether the examples are made up, for a plan without data.
    pub fn are_made_up(&self) -> bool {
        self.made_up.is_some()
    }

    fn read(
        recipe: Recipe,
        folder: PathBuf,
        checkpoint: Option<Checkpoint>,
        now: Moment,
    ) -> Result<Inputs> {
        let config = ModelConfig::load(&folder)?;
        let tokenizer = Tokenizer::load(&folder)?;
        let lora = starting::lora_config(&recipe, &config)?;
        let form = form(recipe.objective.name);
        if let (None, Some(form)) = (&lora, checkpoint.as_ref().and_then(stored_form)) {
            return Err(Error::input(
                format!(
                    "no [adapter], and '{}' is stored as {form}: quantized weights cannot be trained",
                    folder.display()
                ),
                "add an [adapter] table, or take the model in bf16",
            ));
        }
        let options = DataOptions { form, max_length: Some(recipe.data.max_length), now };
        let cache = recipe.data.tokens();
        let load =
            |origins: &[Origin]| Dataset::open(origins, cache.as_ref(), &tokenizer, &options);
        let (dataset, report) = load(&recipe.data.origins()?)?;
        let eval = match recipe.data.held_out()?.as_slice() {
            [] => None,
            origins => Some(load(origins)?),
        };
        if recipe.data.max_length > config.max_position_embeddings {
            return Err(Error::input(
                format!(
                    "[data] max_length = {} is longer than the {} positions the model was made for",
                    recipe.data.max_length, config.max_position_embeddings
                ),
                format!("write max_length = {} or less", config.max_position_embeddings),
            ));
        }
        let prompts = match &recipe.generate {
            None => None,
            Some(generate) => Some(Prompts::load(generate, &tokenizer, now)?),
        };
        for dataset in eval.iter().map(|(eval, _)| eval).chain([&dataset]) {
            if let Some(source) = dataset.first_beyond(config.vocab_size) {
                return Err(beyond_vocabulary(&source.to_string(), config.vocab_size));
            }
        }
        if let Some(prompts) = &prompts {
            prompts.check_tokens(config.vocab_size)?;
            prompts.check(config.max_position_embeddings)?;
        }
        let inputs = Inputs {
            recipe,
            folder,
            config,
            checkpoint,
            tokenizer,
            lora,
            dataset,
            report,
            eval,
            prompts,
            made_up: None,
            stored: None,
        };
        if inputs.steps() > MOST_STEPS {
            let train = &inputs.recipe.train;
            let written = match (train.max_steps, train.epochs) {
                (Some(steps), _) => format!("train.max_steps = {steps}"),
                (None, epochs) => format!("train.epochs = {:e}", epochs.unwrap_or(1.0)),
            };
            return Err(Error::input(
                format!("{written} makes a run of more than {MOST_STEPS} steps"),
                "every step is planned before the first: split a longer run by adapter.init_from",
            ));
        }
        Ok(inputs)
    }

    /// How examples become steps, under a token budget.
    pub fn batching(&self, token_budget: usize) -> Batching {
        Batching {
            order: match self.recipe.data.order {
                RecipeOrder::Shuffled => Order::Shuffled,
                RecipeOrder::Sequential => Order::Sequential,
            },
            seed: self.recipe.seed,
            batch_size: self.recipe.train.batch_size,
            gradient_accumulation_steps: self.recipe.train.gradient_accumulation_steps,
            token_budget,
            mismatched: self.recipe.objective.name.needs_kl(),
            together: false,
            scored_prompts: self.recipe.objective.name == ObjectiveName::Orpo
                && self.recipe.objective.sft_weight.is_some_and(|weight| weight > 0.0),
        }
    }

    /// Optimizer steps of the run.
    pub fn steps(&self) -> usize {
        let per_epoch = self.dataset.steps_per_epoch(&self.batching(usize::MAX));
        match (self.recipe.train.max_steps, self.recipe.train.epochs) {
            (Some(steps), _) => steps,
            (None, epochs) => ((epochs.unwrap_or(1.0) * per_epoch as f64).ceil() as usize).max(1),
        }
    }

    /// How the linear layers are held.
    pub fn quantization(&self) -> Quantization {
        self.stored.unwrap_or(quantization(&self.recipe.model))
    }

    /// What the other weights are held in. What is trained is held in f32.
    pub fn storage(&self) -> Storage {
        match self.recipe.model.dtype {
            Dtype::Bf16 if self.lora.is_some() => Storage::Bf16,
            _ => Storage::F32,
        }
    }
}

/// How a model whose tensors are not there is stored, if it is quantized: then it is taken as it is.
fn left_to_quantize(recipe: &Recipe, folder: &Path) -> Result<Option<Quantization>> {
    let stored = match stored_quantization(folder)? {
        Stored::Dense => return Ok(None),
        Stored::Throughout(stored) => stored,
        Stored::InPart => {
            return Err(Error::input(
                format!(
                    "'{}' is stored quantized in part, and its tensors are not there",
                    folder.display()
                ),
                "fetch model.safetensors as well: only the tensors say which layers are dense",
            ));
        }
    };
    let asked = quantization(&recipe.model);
    let (wrong, hint) = match (&recipe.adapter, asked) {
        (None, _) => (
            format!("no [adapter], and '{}' is stored as {}", folder.display(), stored.name()),
            "add an [adapter] table, or take the model in bf16",
        ),
        (_, asked) if asked != Quantization::None && asked.name() != stored.name() => (
            format!(
                "model.quantization = \"{}\", but '{}' is stored as {}",
                asked.name(),
                folder.display(),
                stored.name()
            ),
            "write quantization = \"none\": what is stored quantized is taken as it is",
        ),
        _ => return Ok(Some(stored)),
    };
    Err(Error::input(wrong, hint))
}

/// What an objective learns from.
fn form(objective: ObjectiveName) -> Form {
    match objective {
        ObjectiveName::Sft => Form::Sft,
        name if name.has_pairs() => Form::Paired,
        _ => Form::Unpaired,
    }
}

/// How a recipe has linear layers held.
pub fn quantization(model: &RecipeModel) -> Quantization {
    let double_quant = model.double_quant;
    match model.quantization {
        RecipeQuantization::None => Quantization::None,
        RecipeQuantization::Nf4 => Quantization::Nf4 { double_quant },
        RecipeQuantization::Fp4 => Quantization::Fp4 { double_quant },
        RecipeQuantization::Int8 => Quantization::Int8,
    }
}

/// The folder of a model.
pub fn model_folder(path: &ModelPath) -> Result<PathBuf> {
    match path {
        ModelPath::Folder(folder) => Ok(folder.clone()),
        ModelPath::Hub(id) => Err(Error::input(
            format!("model.path = \"{id}\" is a hub id, and there is no folder of that name"),
            format!(
                "fetch it with `huggingface-cli download {id} --local-dir models/{id}` and write that folder"
            ),
        )),
    }
}
