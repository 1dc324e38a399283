//! `[adapter]`: low-rank adaptation, by PEFT's names.

use super::paths::Folders;
use super::setting::{Setting, quote};
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
        /// `"all-linear"`, or a list of module names such as `["q_proj", "v_proj"]`. Fewer modules save
        /// memory and time and can express less. `"all-linear"` unless written; with `init_from`, that
        /// adapter's.
        pub target_modules: Option<TargetModules>;
        /// The folder of an adapter to start from, as PEFT writes it. What is written above must then
        /// agree with it. The reference stays the base unless `objective.reference = "start"`.
        pub init_from: Option<PathBuf>;
    }
}

impl Adapter {
    /// Fills in what was not written, unless an adapter to start from says it.
    pub(super) fn fill(&mut self) {
        if self.init_from.is_none() {
            self.r.get_or_insert(16);
            self.lora_alpha.get_or_insert(32.0);
            self.use_rslora.get_or_insert(false);
            self.target_modules.get_or_insert(TargetModules::AllLinear);
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
}

impl Setting for TargetModules {
    fn expects() -> String {
        "\"all-linear\" or a list of module names".to_owned()
    }

    fn read(at: &At, value: &Value, folders: &Folders) -> Result<Self> {
        match &value.kind {
            Kind::String(text) if text == "all-linear" => Ok(TargetModules::AllLinear),
            // A bare name would be read as a regular expression by PEFT; a list says what is meant.
            Kind::String(text) => {
                let hint =
                    format!("write \"all-linear\", or a list: {} = [{}]", at.key, quote(text));
                Err(at.wrong_with(value, "is not known", hint))
            }
            Kind::Array(_) => Vec::read(at, value, folders).map(TargetModules::List),
            _ => Err(at.wrong_type(value)),
        }
    }

    fn write(&self) -> Option<String> {
        match self {
            TargetModules::AllLinear => Some(quote("all-linear")),
            TargetModules::List(names) => names.write(),
        }
    }
}
