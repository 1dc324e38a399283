//! `[adapter]`: low-rank adaptation, by PEFT's names.

use super::paths::Folders;
use super::setting::{Setting, any_of, quote};
use super::source::{Kind, Value};
use super::table::{AT_LEAST_0, At, FROM_0_TO_BELOW_1, Limit, table};
use crate::error::Result;
use std::path::PathBuf;

/// No layer is wider.
const RANK: Limit = Limit { words: "from 1 to 65536", holds: |x| (1.0..=65536.0).contains(&x) };

table! {
    /// `[adapter]`: train low-rank matrices beside the frozen weights (LoRA, arXiv 2106.09685). A recipe
    /// without this table trains all weights.
    pub struct Adapter["adapter"] {
        /// The rank: a larger one can express more and takes proportionally more memory for gradients and
        /// optimizer. 16 unless written (TRL); with `init_from`, that adapter's.
        pub r: Option<usize>, RANK;
        /// The adapter's output is scaled by `lora_alpha / r`: a larger value learns faster at the same
        /// learning rate. 32 unless written (TRL); with `init_from`, that adapter's.
        pub lora_alpha: Option<f64>, AT_LEAST_0;
        /// The share of the adapter's inputs dropped at random in SFT. Preference objectives compare two
        /// passes over the same tokens, so there it is off, as in TRL. 0 is PEFT's default, 0.05 that of
        /// TRL's command line.
        pub lora_dropout: f64 = 0.0, FROM_0_TO_BELOW_1;
        /// Scale by `lora_alpha / sqrt(r)` (arXiv 2312.03732), so that a large rank does not learn ever
        /// more slowly. false unless written (TRL); with `init_from`, that adapter's.
        pub use_rslora: Option<bool>;
        /// DoRA (arXiv 2402.09353): the length of each output's weight row is trained apart from its
        /// direction. Often better at small ranks; keeps every target's outputs a second time for backward,
        /// about twice the activations, and measures all targets once a step. false unless written; with
        /// `init_from`, that adapter's.
        pub use_dora: Option<bool>;
        /// `"all-linear"`, a list of module names such as `["q_proj", "v_proj"]`, or a regular expression
        /// for whole module paths such as `'.*layers\.[0-7]\..*_proj'` (as in PEFT). Fewer modules save
        /// memory and time and can express less. `"all-linear"` unless written; with `init_from`, that
        /// adapter's.
        pub target_modules: Option<TargetModules>;
        /// Modules that get no matrices though `target_modules` names them: a list of names, or a regular
        /// expression for whole paths.
        pub exclude_modules: Option<ExcludeModules>;
        /// The only blocks, counted from 0, whose modules get matrices; `target_modules` must then be a
        /// list. Backward still passes all blocks.
        pub layers_to_transform: Option<Vec<usize>>;
        /// Other ranks for some modules: a table from a module's name, or a regular expression for the end
        /// of its path, to its rank, such as `{ down_proj = 32, '0\.self_attn\..*' = 4 }`. The first that
        /// matches counts.
        pub rank_pattern: Option<Ranks>;
        /// The same for `lora_alpha`.
        pub alpha_pattern: Option<Alphas>;
        /// Modules that are trained whole and written with the adapter: `lm_head`, `embed_tokens`, or norms
        /// by the end of their names (`norm` is all of them, as in PEFT). Each takes 4 bytes a weight for
        /// itself, its gradient and each optimizer state: for a vocabulary of 128k and 4096 channels 8 GiB
        /// with AdamW. Embeddings and head that the model ties become two.
        pub modules_to_save: Option<Vec<String>>;
        /// How the matrices start: `"default"` (the model is the base at first), `"gaussian"` (the same with
        /// other random numbers), `"pissa"` or `"pissa_niter_N"` (the leading part of each weight; learns
        /// faster, arXiv 2404.02948), `"olora"` (a part that is cheaper to find, arXiv 2406.01775), `"loftq"`
        /// (what `model.quantization` loses; arXiv 2310.08659). PiSSA and OLoRA take their part out of the
        /// base, keep a frozen copy of the start, and write an adapter of rank 2 r for the base as it is. A
        /// LoftQ adapter belongs to the base in 4 bits. `"default"` unless written.
        pub init: Option<Init>;
        /// The folder of an adapter to start from, as PEFT writes it. What is written above must then
        /// agree with it. The reference stays the base unless `objective.reference = "start"`.
        pub init_from: Option<PathBuf>;
    }
}

impl Default for Adapter {
    /// Nothing written.
    fn default() -> Adapter {
        Adapter {
            r: None,
            lora_alpha: None,
            lora_dropout: 0.0,
            use_rslora: None,
            use_dora: None,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            rank_pattern: None,
            alpha_pattern: None,
            modules_to_save: None,
            init: None,
            init_from: None,
        }
    }
}

impl Adapter {
    /// Fills in what was not written, unless an adapter to start from says it.
    pub(super) fn fill(&mut self) {
        if self.init_from.is_none() {
            self.r.get_or_insert(16);
            self.lora_alpha.get_or_insert(32.0);
            self.use_rslora.get_or_insert(false);
            self.use_dora.get_or_insert(false);
            self.target_modules.get_or_insert(TargetModules::AllLinear);
            self.init.get_or_insert(Init::Default);
        }
    }
}

/// The modules that get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// Every linear layer but the output head.
    AllLinear,
    /// The modules whose names end in one of these.
    List(Vec<String>),
    /// The modules whose whole paths match.
    Pattern(String),
}

/// A word that is a module's name: as a regular expression it would match no path.
fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Setting for TargetModules {
    fn expects() -> String {
        "\"all-linear\", a list of module names or a regular expression".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::String(text) if text == "all-linear" => Ok(TargetModules::AllLinear),
            // PEFT would read a bare name as a regular expression that matches nothing; a list says what is meant.
            Kind::String(text) if is_name(text) => {
                let hint =
                    format!("write \"all-linear\", or a list: {} = [{}]", at.key, quote(text));
                Err(at.wrong_with(value, "is not known", hint))
            }
            Kind::String(text) => Ok(TargetModules::Pattern(text.clone())),
            Kind::Array(_) => Vec::read(at, value, folders).map(TargetModules::List),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        match self {
            TargetModules::AllLinear => Some(quote("all-linear")),
            TargetModules::List(names) => names.write(),
            TargetModules::Pattern(text) => Some(quote(text)),
        }
    }
}

/// Modules that get no adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExcludeModules {
    /// The modules whose names end in one of these.
    List(Vec<String>),
    /// The modules whose whole paths match.
    Pattern(String),
}

impl Setting for ExcludeModules {
    fn expects() -> String {
        "a list of module names or a regular expression".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::String(text) if is_name(text) => {
                let hint = format!("write a list: {} = [{}]", at.key, quote(text));
                Err(at.wrong_with(value, "is not known", hint))
            }
            Kind::String(text) => Ok(ExcludeModules::Pattern(text.clone())),
            Kind::Array(_) => Vec::read(at, value, folders).map(ExcludeModules::List),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        match self {
            ExcludeModules::List(names) => names.write(),
            ExcludeModules::Pattern(text) => Some(quote(text)),
        }
    }
}

/// Ranks by pattern, in the order they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranks(pub Vec<(String, usize)>);

/// Values of `lora_alpha` by pattern, in the order they are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Alphas(pub Vec<(String, f64)>);

/// Reads a table from patterns to numbers.
fn read_patterns<T: Setting>(
    at: &At,
    value: &Value,
    limit: &Limit,
    folders: &Folders,
) -> Result<Vec<(String, T)>> {
    let Kind::Table(entries) = &value.kind else { return Err(at.wrong_type(value)) };
    let mut patterns = Vec::new();
    for entry in entries {
        let number = T::read(at, &entry.value, folders)?;
        if !number.number().is_some_and(limit.holds) {
            return Err(at.wrong(&entry.value, &format!("for '{}' is out of range", entry.key)));
        }
        patterns.push((entry.key.clone(), number));
    }
    Ok(patterns)
}

fn write_patterns<T: Setting>(patterns: &[(String, T)]) -> Option<String> {
    let pairs: Option<Vec<String>> = patterns
        .iter()
        .map(|(pattern, number)| Some(format!("{} = {}", quote(pattern), number.write()?)))
        .collect();
    (!patterns.is_empty()).then_some(format!("{{ {} }}", pairs?.join(", ")))
}

impl Setting for Ranks {
    fn expects() -> String {
        "a table from patterns to integers from 1 to 65536, such as { down_proj = 32 }".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        read_patterns(at, value, &RANK, folders).map(Ranks)
    }

    fn write(&self) -> Option<String> {
        write_patterns(&self.0)
    }
}

impl Setting for Alphas {
    fn expects() -> String {
        "a table from patterns to numbers of at least 0, such as { down_proj = 64 }".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        read_patterns(at, value, &AT_LEAST_0, folders).map(Alphas)
    }

    fn write(&self) -> Option<String> {
        write_patterns(&self.0)
    }
}

/// How the matrices start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// A random, B zero.
    Default,
    /// A normal, B zero.
    Gaussian,
    /// The leading part of the weight.
    Pissa,
    /// The same by so many steps of subspace iteration.
    PissaNiter(usize),
    /// The first columns of the weight's QR factorization.
    Olora,
    /// The leading part of what quantization loses.
    Loftq,
}

/// The names of [`Init`].
const INITS: [&str; 6] = ["default", "gaussian", "pissa", "pissa_niter_16", "olora", "loftq"];
/// More steps find nothing new.
const MOST_STEPS: usize = 1000;

impl Setting for Init {
    fn expects() -> String {
        any_of(&INITS)
    }

    fn read(at: &At, value: &Value, _: &Folders) -> Result<Self> {
        let steps = match &value.kind {
            Kind::String(text) => text.strip_prefix("pissa_niter_"),
            _ => None,
        };
        if let Some(steps) = steps {
            return match steps.parse() {
                Ok(steps) if steps <= MOST_STEPS => Ok(Init::PissaNiter(steps)),
                _ => Err(at.wrong_with(
                    value,
                    "says no number of steps",
                    format!(
                        "write a number from 0 to {MOST_STEPS} behind pissa_niter_, such as 16"
                    ),
                )),
            };
        }
        Ok(match super::setting::read_choice(at, value, &INITS)? {
            "gaussian" => Init::Gaussian,
            "pissa" => Init::Pissa,
            "olora" => Init::Olora,
            "loftq" => Init::Loftq,
            _ => Init::Default,
        })
    }

    fn write(&self) -> Option<String> {
        Some(match self {
            Init::Default => quote("default"),
            Init::Gaussian => quote("gaussian"),
            Init::Pissa => quote("pissa"),
            Init::PissaNiter(steps) => quote(&format!("pissa_niter_{steps}")),
            Init::Olora => quote("olora"),
            Init::Loftq => quote("loftq"),
        })
    }
}
