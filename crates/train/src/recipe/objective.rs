//! `[objective]`: what is minimized.

use super::setting::choice;
use super::source::Tree;
use super::table::{ABOVE_0, AT_LEAST_0, FROM_0_TO_BELOW_HALF, Table, table};
use crate::error::{Error, Result};

table! {
    /// `[objective]`: what is learnt from the feedback. A key that the chosen objective has no use for is
    /// an error.
    pub struct Objective["objective"] {
        /// `"kto"` (arXiv 2402.01306) and `"apo_zero_unpaired"` (arXiv 2408.06266; cheaper, no KL
        /// estimate) learn from single ratings, `"dpo"` (arXiv 2305.18290) from pairs, `"sft"` imitates
        /// every completion.
        pub name: ObjectiveName = ObjectiveName::Kto;
        /// How closely the policy is held to the reference: a smaller value lets it move farther for the
        /// same reward. Not in `"sft"`.
        pub beta: f64 = 0.1, ABOVE_0;
        /// The weight of a thumbs-up example. With many more ups than downs, lower it (or raise the
        /// other) until `weight * count` of the two classes are within 1 to 4/3 of each other. Only in
        /// `"kto"` and `"apo_zero_unpaired"`.
        pub desirable_weight: f64 = 1.0, AT_LEAST_0;
        /// The weight of a thumbs-down example. Only in `"kto"` and `"apo_zero_unpaired"`.
        pub undesirable_weight: f64 = 1.0, AT_LEAST_0;
        /// The chance that a pair is labelled the wrong way round; above 0 the loss stops pushing pairs
        /// that are already well apart. Only in `"dpo"`.
        pub label_smoothing: f64 = 0.0, FROM_0_TO_BELOW_HALF;
        /// What rewards are measured against: `"base"`, the model without an adapter, or `"start"`, a
        /// frozen copy of the state that training started from (with `adapter.init_from`, TRL's rule for
        /// a PeftModel). Not in `"sft"`.
        pub reference: Reference = Reference::Base;
    }
}

choice! {
    /// The objectives, by TRL's names.
    pub enum ObjectiveName {
        /// Kahneman-Tversky Optimization.
        Kto = "kto",
        /// APO-zero for single ratings.
        ApoZeroUnpaired = "apo_zero_unpaired",
        /// Direct Preference Optimization, sigmoid loss.
        Dpo = "dpo",
        /// Supervised fine-tuning on completions.
        Sft = "sft",
    }
}

impl ObjectiveName {
    /// Whether the objective compares a prompt's completion with a mismatched one, for which a group
    /// needs two examples.
    pub fn needs_kl(self) -> bool {
        self == ObjectiveName::Kto
    }

    /// Whether the objective has a use for a key of `[objective]`.
    fn uses(self, key: &str) -> bool {
        match key {
            "beta" | "reference" => self != ObjectiveName::Sft,
            "desirable_weight" | "undesirable_weight" => {
                matches!(self, ObjectiveName::Kto | ObjectiveName::ApoZeroUnpaired)
            }
            "label_smoothing" => self == ObjectiveName::Dpo,
            _ => true,
        }
    }
}

choice! {
    /// What rewards are measured against.
    pub enum Reference {
        /// The model without an adapter.
        Base = "base",
        /// The state that training started from.
        Start = "start",
    }
}

impl Objective {
    /// An error if a key was written that the objective has no use for.
    pub(super) fn check(&self, tree: &Tree) -> Result<()> {
        let unused = tree.table("objective").iter().find(|entry| !self.name.uses(&entry.key));
        let Some(entry) = unused else { return Ok(()) };
        let name = self.name.as_str();
        let used: Vec<&str> = Self::keys()
            .iter()
            .map(|key| key.name)
            .filter(|key| *key != "name" && self.name.uses(key))
            .collect();
        let hint = match used.is_empty() {
            true => format!("remove it; {name} has no further keys"),
            false => format!("remove it; {name} has {}", used.join(", ")),
        };
        Err(Error::input(
            format!("[objective] {} has no effect in {name}, {}", entry.key, entry.place),
            hint,
        ))
    }

    /// The keys that the objective has a use for, as TOML.
    pub(super) fn write_used(&self) -> Vec<(&'static str, String)> {
        self.write().into_iter().filter(|(key, _)| self.name.uses(key)).collect()
    }
}
