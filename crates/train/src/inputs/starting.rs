//! The adapter that a recipe asks for: written key by key, or that of a folder, with which the keys must agree.

use models::adapter;
use models::config::ModelConfig;
use models::lora::LoraConfig;
use models::lora::start::Start;
use models::lora::targets::{Names, Pattern, Targets};

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::recipe::adapter::{Adapter, ExcludeModules, Init, TargetModules};
use crate::recipe::objective::ObjectiveName;

/// The adapter to train; none in full fine-tuning.
pub(super) fn lora_config(recipe: &Recipe, config: &ModelConfig) -> Result<Option<LoraConfig>> {
    let Some(adapter) = &recipe.adapter else { return Ok(None) };
    let written = written(adapter, recipe.model.double_quant)?;
    let mut lora = match &adapter.init_from {
        Some(folder) => {
            let theirs = adapter::read_config_for(config, folder)?;
            agree(adapter, &written, &theirs, config)?;
            theirs
        }
        None => {
            written.check_all_used(config)?;
            written
        }
    };
    // Preference objectives compare two passes over the same tokens: no dropout there, as in TRL.
    lora.lora_dropout =
        if recipe.objective.name == ObjectiveName::Sft { adapter.lora_dropout } else { 0.0 };
    lora.check(config)?;
    Ok(Some(lora))
}

/// What the keys say.
fn written(adapter: &Adapter, double_quant: bool) -> Result<LoraConfig> {
    let within = |key: &str, error: models::error::Error| {
        Error::input(format!("[adapter] {key}: {}", error.message), error.hint)
    };
    let of_path =
        |key: &str, text: &str| Pattern::of_path(text).map_err(|error| within(key, error));
    let of_ending =
        |key: &str, text: &str| Pattern::of_ending(text).map_err(|error| within(key, error));
    let mut rank_pattern = Vec::new();
    for (text, r) in adapter.rank_pattern.iter().flat_map(|ranks| &ranks.0) {
        rank_pattern.push((of_ending("rank_pattern", text)?, *r));
    }
    let mut alpha_pattern = Vec::new();
    for (text, alpha) in adapter.alpha_pattern.iter().flat_map(|alphas| &alphas.0) {
        alpha_pattern.push((of_ending("alpha_pattern", text)?, *alpha));
    }
    Ok(LoraConfig {
        r: adapter.r.unwrap_or(16),
        lora_alpha: adapter.lora_alpha.unwrap_or(32.0),
        use_rslora: adapter.use_rslora.unwrap_or(false),
        use_dora: adapter.use_dora.unwrap_or(false),
        lora_dropout: 0.0,
        rank_pattern,
        alpha_pattern,
        target_modules: match &adapter.target_modules {
            Some(TargetModules::List(names)) => Targets::Named(Names::List(names.clone())),
            Some(TargetModules::Pattern(text)) => {
                Targets::Named(Names::Pattern(of_path("target_modules", text)?))
            }
            Some(TargetModules::AllLinear) | None => Targets::AllLinear,
        },
        exclude_modules: match &adapter.exclude_modules {
            Some(ExcludeModules::List(names)) => Some(Names::List(names.clone())),
            Some(ExcludeModules::Pattern(text)) => {
                Some(Names::Pattern(of_path("exclude_modules", text)?))
            }
            None => None,
        },
        layers_to_transform: adapter.layers_to_transform.clone(),
        layers_pattern: Vec::new(),
        modules_to_save: adapter.modules_to_save.clone().unwrap_or_default(),
        start: match adapter.init.unwrap_or(Init::Default) {
            Init::Default => Start::Default,
            Init::Gaussian => Start::Gaussian,
            Init::Pissa => Start::Pissa { niter: None },
            Init::PissaNiter(steps) => Start::Pissa { niter: Some(steps) },
            Init::Olora => Start::Olora,
            Init::Loftq => Start::Loftq { double_quant },
        },
    })
}

/// What is written beside `init_from` must agree with it: say the same of this model, in whatever words.
fn agree(
    adapter: &Adapter,
    ours: &LoraConfig,
    theirs: &LoraConfig,
    config: &ModelConfig,
) -> Result<()> {
    if let Some(init) = adapter.init.filter(|init| *init != Init::Default) {
        return Err(Error::input(
            format!("[adapter] init = {init:?} and init_from both say how the matrices start"),
            "remove one of them",
        ));
    }
    type Field = (&'static str, bool, fn(&LoraConfig) -> String, fn(&mut LoraConfig, LoraConfig));
    let fields: [Field; 10] = [
        ("r", adapter.r.is_some(), |l| l.r.to_string(), |to, from| to.r = from.r),
        (
            "lora_alpha",
            adapter.lora_alpha.is_some(),
            |l| l.lora_alpha.to_string(),
            |to, from| to.lora_alpha = from.lora_alpha,
        ),
        (
            "use_rslora",
            adapter.use_rslora.is_some(),
            |l| l.use_rslora.to_string(),
            |to, from| to.use_rslora = from.use_rslora,
        ),
        (
            "use_dora",
            adapter.use_dora.is_some(),
            |l| l.use_dora.to_string(),
            |to, from| to.use_dora = from.use_dora,
        ),
        (
            "target_modules",
            adapter.target_modules.is_some(),
            |l| match &l.target_modules {
                Targets::AllLinear => "\"all-linear\"".to_owned(),
                Targets::Named(named) => names(named),
            },
            |to, from| to.target_modules = from.target_modules,
        ),
        (
            "exclude_modules",
            adapter.exclude_modules.is_some(),
            |l| l.exclude_modules.as_ref().map_or("none".to_owned(), names),
            |to, from| to.exclude_modules = from.exclude_modules,
        ),
        (
            "layers_to_transform",
            adapter.layers_to_transform.is_some(),
            |l| format!("{:?}", l.layers_to_transform.as_deref().unwrap_or(&[])),
            |to, from| to.layers_to_transform = from.layers_to_transform,
        ),
        (
            "rank_pattern",
            adapter.rank_pattern.is_some(),
            |l| table(&l.rank_pattern),
            |to, from| to.rank_pattern = from.rank_pattern,
        ),
        (
            "alpha_pattern",
            adapter.alpha_pattern.is_some(),
            |l| table(&l.alpha_pattern),
            |to, from| to.alpha_pattern = from.alpha_pattern,
        ),
        (
            "modules_to_save",
            adapter.modules_to_save.is_some(),
            |l| format!("{:?}", l.modules_to_save),
            |to, from| to.modules_to_save = from.modules_to_save,
        ),
    ];
    for (key, is_written, text, replace) in fields {
        let mut with_ours = theirs.clone();
        replace(&mut with_ours, ours.clone());
        let (written, has) = (text(ours), text(theirs));
        if is_written && written != has && !with_ours.is_alike(theirs, config)? {
            return Err(Error::input(
                format!(
                    "[adapter] {key} = {written}, but the adapter of init_from has {key} = {has}"
                ),
                format!("remove {key}: it comes with the adapter"),
            ));
        }
    }
    Ok(())
}

fn names(names: &Names) -> String {
    match names {
        Names::List(names) => format!("{names:?}"),
        Names::Pattern(pattern) => format!("'{}'", pattern.as_str()),
    }
}

fn table<T: std::fmt::Display>(patterns: &[(Pattern, T)]) -> String {
    let pair = |(pattern, value): &(Pattern, T)| format!("'{}' = {value}", pattern.as_str());
    format!("{{ {} }}", patterns.iter().map(pair).collect::<Vec<_>>().join(", "))
}
