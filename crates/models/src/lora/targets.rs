//! Which modules get matrices, of what rank and scale: PEFT 0.21's rules (`check_target_module_exists` in
//! peft/tuners/tuners_utils.py, `get_pattern_key` in peft/utils/other.py).
//!
//! * a list names modules by their whole path or by its last parts; a string is a regular expression for the whole
//!   path, in the syntax of Python's `re` as far as `fancy-regex` has it; what it has not is refused
//! * `exclude_modules` takes out, and so does `modules_to_save`
//! * a key of `rank_pattern` or `alpha_pattern` is a regular expression for a path or for its last parts

use fancy_regex::Regex;

use super::LoraConfig;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::weights::{LINEARS, Linear, Norm};

/// A regular expression for module paths.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Pattern {
    /// For whole paths, as Python's `re.fullmatch`.
    pub fn of_path(text: &str) -> Result<Pattern> {
        Pattern::compile(text, &format!(r"\A(?:{text})\z"))
    }

    /// For whole paths or their last parts: a key of `rank_pattern`.
    pub fn of_ending(text: &str) -> Result<Pattern> {
        Pattern::compile(text, &format!(r"\A(?:.*\.)?(?:{text})\z"))
    }

    fn compile(text: &str, whole: &str) -> Result<Pattern> {
        // On its own first: an error then tells the place in what was written.
        match Regex::new(text).and_then(|_| Regex::new(whole)) {
            Ok(regex) => Ok(Pattern { text: text.to_owned(), regex }),
            Err(error) => Err(Error::input(
                format!("'{text}' is no regular expression: {error}"),
                "it is read as Python's re reads it: a dot is any letter, \\. is a dot",
            )),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn matches(&self, path: &str) -> Result<bool> {
        self.regex.is_match(path).map_err(|error| {
            Error::input(
                format!("the regular expression '{}' cannot be tried: {error}", self.text),
                "write it without nested repetition",
            )
        })
    }
}

/// Modules by name, or by one pattern.
#[derive(Clone, Debug, PartialEq)]
pub enum Names {
    /// Paths, or their last parts.
    List(Vec<String>),
    /// Whole paths.
    Pattern(Pattern),
}

impl Names {
    fn contain(&self, path: &str) -> Result<bool> {
        match self {
            Names::List(names) => Ok(names.iter().any(|name| ends_in(path, name))),
            Names::Pattern(pattern) => pattern.matches(path),
        }
    }
}

/// Which modules get matrices.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Every linear layer but the head.
    AllLinear,
    /// Those of these names.
    Named(Names),
}

/// The path is `name`, or ends in a dot and `name`.
fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// A linear layer that gets matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Their rank.
    pub r: usize,
    /// Their scale.
    pub scale: f32,
}

/// The path of a block's linear layer.
fn path(config: &ModelConfig, layer: usize, linear: Linear) -> String {
    format!("{}.layers.{layer}.{}", config.decoder_path(), linear.path())
}

/// The paths of all modules as transformers has them.
pub(super) fn modules(config: &ModelConfig) -> Vec<String> {
    let decoder = config.decoder_path();
    let mut all = vec!["lm_head".to_owned(), decoder.to_owned()];
    all.extend(
        ["embed_tokens", "layers", "norm", "rotary_emb"].map(|of| format!("{decoder}.{of}")),
    );
    for layer in 0..config.num_hidden_layers {
        let block = format!("{decoder}.layers.{layer}");
        let mut inner = vec!["self_attn", "mlp", "mlp.act_fn"];
        inner.extend(Norm::ALL.into_iter().filter_map(|norm| norm.path(config.norms)));
        if config.qk_norm_sizes().is_some() {
            inner.extend(["self_attn.q_norm", "self_attn.k_norm"]);
        }
        inner.extend(config.linears().iter().map(|linear| linear.path()));
        all.extend(inner.iter().map(|path| format!("{block}.{path}")));
        all.push(block);
    }
    all
}

/// The nearest of `names`, if it is near enough to be what was meant: one edit in three letters.
pub(super) fn nearest<'a>(text: &str, names: &'a [String]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(text, name);
    let near = names.iter().map(String::as_str).min_by_key(|name| distance(name))?;
    (distance(near) <= near.chars().count().div_ceil(3)).then_some(near)
}

impl LoraConfig {
    /// The scale of matrices of rank `r`.
    fn scale(&self, r: usize, lora_alpha: f64) -> f32 {
        let r = r as f64;
        (lora_alpha / if self.use_rslora { r.sqrt() } else { r }) as f32
    }

    /// Rank and scale of every linear layer that gets matrices, by block and [`Linear`].
    pub fn places(&self, config: &ModelConfig) -> Result<Vec<[Option<Place>; LINEARS]>> {
        self.check_names(config)?;
        let saved = self.modules_to_save.iter().map(|name| {
            // The same expression as PEFT's: such a module is never a target.
            Pattern::of_path(&format!(r"(?:|.*\.)(?:{name})(?:|\..*)"))
        });
        let saved: Vec<Pattern> = saved.collect::<Result<_>>()?;
        let mut places = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let mut block = [None; LINEARS];
            for linear in config.linears() {
                let path = path(config, layer, *linear);
                if self.is_target(layer, &path)? && !any(&saved, std::slice::from_ref(&path))? {
                    let r = first(&self.rank_pattern, &path)?.unwrap_or(self.r);
                    let alpha = first(&self.alpha_pattern, &path)?.unwrap_or(self.lora_alpha);
                    block[*linear as usize] = Some(Place { r, scale: self.scale(r, alpha) });
                }
            }
            places.push(block);
        }
        if places.iter().flatten().all(Option::is_none) {
            return Err(Error::input(
                "no linear layer of the model is left to get matrices",
                "see target_modules, exclude_modules, layers_to_transform and modules_to_save",
            ));
        }
        Ok(places)
    }

    /// The same where a regular expression for targets was written before transformers 4.52, in which the decoder of a
    /// model that reads images was called `language_model.model`: what it names there, in a list by today's names.
    pub(crate) fn by_todays_names(mut self, config: &ModelConfig) -> Result<LoraConfig> {
        let Targets::Named(targets @ Names::Pattern(_)) = &self.target_modules else {
            return Ok(self);
        };
        let mut named = Vec::new();
        for layer in 0..config.num_hidden_layers {
            for linear in config.linears() {
                let path = path(config, layer, *linear);
                let older = path.replace("model.language_model.", "language_model.model.");
                if older == path || targets.contain(&path)? {
                    return Ok(self);
                }
                let excluded = self.exclude_modules.as_ref();
                let excluded = excluded.map_or(Ok(false), |names| names.contain(&older))?;
                if targets.contain(&older)? && !excluded {
                    named.push(path);
                }
            }
        }
        if !named.is_empty() {
            self.target_modules = Targets::Named(Names::List(named));
            self.exclude_modules = None;
        }
        Ok(self)
    }

    fn is_target(&self, layer: usize, path: &str) -> Result<bool> {
        if let Some(excluded) = &self.exclude_modules
            && excluded.contain(path)?
        {
            return Ok(false);
        }
        match &self.target_modules {
            Targets::AllLinear => Ok(true),
            Targets::Named(names) => {
                let layers = self.layers_to_transform.as_ref();
                // PEFT reads an empty list as none.
                let layers = layers.filter(|layers| !layers.is_empty());
                Ok(names.contain(path)? && layers.is_none_or(|layers| layers.contains(&layer)))
            }
        }
    }

    /// Refuses names that mean nothing of the model, or something that takes no matrices.
    fn check_names(&self, config: &ModelConfig) -> Result<()> {
        if let Some(layers) = &self.layers_to_transform {
            if let Some(beyond) = layers.iter().find(|layer| **layer >= config.num_hidden_layers) {
                return Err(Error::input(
                    format!(
                        "layers_to_transform names block {beyond}, the model has {}",
                        config.num_hidden_layers
                    ),
                    "blocks are counted from 0",
                ));
            }
            if !matches!(&self.target_modules, Targets::Named(Names::List(_))) {
                return Err(Error::input(
                    "layers_to_transform stands beside a target_modules that is no list, which PEFT refuses",
                    "list the modules' names, or write the blocks into the regular expression",
                ));
            }
        }
        if let Some(other) = self.layers_pattern.iter().find(|name| *name != "layers") {
            return Err(Error::input(
                format!("layers_pattern names '{other}', which the model has not"),
                "the list of blocks is called layers",
            ));
        }
        let linears: Vec<String> = (0..config.num_hidden_layers)
            .flat_map(|layer| {
                config.linears().iter().map(move |linear| path(config, layer, *linear))
            })
            .collect();
        let names: Vec<String> =
            config.linears().iter().map(|linear| linear.name().to_owned()).collect();
        let hint = format!(
            "the modules are {}; the head and the embeddings take no adapter",
            names.join(", ")
        );
        match &self.target_modules {
            Targets::AllLinear => {}
            Targets::Named(Names::List(list)) => {
                for suffix in list {
                    if !linears.iter().any(|path| ends_in(path, suffix)) {
                        return Err(Error::input(
                            format!(
                                "target_modules names '{suffix}', which no linear layer of the model is called"
                            ),
                            match nearest(suffix, &names) {
                                Some(near) => format!("did you mean '{near}'? {hint}"),
                                None => hint,
                            },
                        ));
                    }
                }
            }
            Targets::Named(Names::Pattern(pattern)) => {
                for path in modules(config) {
                    if pattern.matches(&path)? && !linears.contains(&path) {
                        return Err(Error::input(
                            format!(
                                "target_modules = '{}' matches '{path}', which takes no adapter",
                                pattern.as_str()
                            ),
                            hint,
                        ));
                    }
                }
                if !any(std::slice::from_ref(pattern), &linears)? {
                    return Err(Error::input(
                        format!(
                            "target_modules = '{}' matches the whole path of no linear layer",
                            pattern.as_str()
                        ),
                        format!("paths look like '{}'; begin with '.*'", linears[0]),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Refuses patterns, exclusions and the like that change nothing: in a recipe they are slips; in an
    /// adapter that was trained they do no harm.
    pub fn check_all_used(&self, config: &ModelConfig) -> Result<()> {
        let places = self.places(config)?;
        let mut targets = Vec::new();
        for (layer, block) in places.iter().enumerate() {
            for (linear, place) in Linear::ALL.into_iter().zip(block) {
                if place.is_some() {
                    targets.push(path(config, layer, linear));
                }
            }
        }
        let ranks = self.rank_pattern.iter().map(|(pattern, _)| ("rank_pattern", pattern));
        let alphas = self.alpha_pattern.iter().map(|(pattern, _)| ("alpha_pattern", pattern));
        for (key, pattern) in ranks.chain(alphas) {
            if !any(std::slice::from_ref(pattern), &targets)? {
                return Err(Error::input(
                    format!(
                        "{key} has '{}', which no module with matrices is called",
                        pattern.as_str()
                    ),
                    unused(pattern.as_str(), &targets),
                ));
            }
        }
        let excluded: Vec<Names> = match &self.exclude_modules {
            None => Vec::new(),
            Some(Names::List(names)) => {
                names.iter().map(|name| Names::List(vec![name.clone()])).collect()
            }
            Some(pattern) => vec![pattern.clone()],
        };
        for names in excluded {
            let mut hits = false;
            for layer in 0..config.num_hidden_layers {
                for linear in config.linears() {
                    hits |= names.contain(&path(config, layer, *linear))?;
                }
            }
            if !hits {
                let name = match &names {
                    Names::List(names) => names.concat(),
                    Names::Pattern(pattern) => pattern.as_str().to_owned(),
                };
                return Err(Error::input(
                    format!("exclude_modules has '{name}', which no linear layer is called"),
                    unused(&name, &targets),
                ));
            }
        }
        Ok(())
    }
}

fn unused(name: &str, paths: &[String]) -> String {
    let last = paths.iter().filter_map(|path| path.rsplit('.').next().map(str::to_owned));
    match nearest(name, &last.collect::<Vec<_>>()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("modules are called like '{}'", paths.first().map_or("", String::as_str)),
    }
}

/// Whether one of the patterns matches one of the paths.
fn any(patterns: &[Pattern], paths: &[String]) -> Result<bool> {
    for path in paths {
        for pattern in patterns {
            if pattern.matches(path)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The value of the first pattern that matches.
fn first<T: Copy>(patterns: &[(Pattern, T)], path: &str) -> Result<Option<T>> {
    for (pattern, value) in patterns {
        if pattern.matches(path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}
