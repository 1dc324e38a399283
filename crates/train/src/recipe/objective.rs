//! `[objective]`: what is minimized.

use super::setting::choice;
use super::source::Tree;
use super::table::{ABOVE_0, AT_LEAST_0, FROM_0_TO_BELOW_HALF, Limit, Table, table};
use crate::error::{Error, Result};

/// A temperature above 1 lets DiscoPOP's exponential grow without bound.
const ABOVE_0_TO_1: Limit = Limit { words: "above 0, up to 1", holds: |x| x > 0.0 && x <= 1.0 };

table! {
    /// `[objective]`: what is learnt from the feedback. A key that the chosen objective has no use for is
    /// an error.
    pub struct Objective["objective"] {
        /// From single ratings learn `"kto"` (arXiv 2402.01306), `"apo_zero_unpaired"` (arXiv 2408.06266;
        /// cheaper, no KL estimate) and `"bco"` (arXiv 2404.04656; a classifier against the running mean of
        /// rewards). From pairs learn `"dpo"` (arXiv 2305.18290) and, faster because they have no reference
        /// to compute, `"orpo"` (arXiv 2403.07691), `"simpo"` (arXiv 2405.14734) and `"cpo"` (arXiv
        /// 2401.08417).
        /// `"sft"` imitates every completion.
        pub name: ObjectiveName = ObjectiveName::Kto;
        /// Which loss of a pair's log-ratios is minimized. Only in `"dpo"`; `"cpo"` has `"sigmoid"`,
        /// `"hinge"` and `"ipo"` of them.
        pub loss_type: LossType = LossType::Sigmoid;
        /// How closely the policy is held to the reference: a smaller value lets it move farther for the
        /// same reward. In `"orpo"` the weight of the comparison (the paper's lambda), in `"simpo"` that of
        /// a mean log-probability (the paper takes 2 to 2.5). Not in `"sft"`.
        pub beta: f64 = 0.1, ABOVE_0;
        /// The weight of a thumbs-up example. With many more ups than downs, lower it (or raise the
        /// other) until `weight * count` of the two classes are within 1 to 4/3 of each other. Only in
        /// `"kto"` and `"apo_zero_unpaired"`.
        pub desirable_weight: f64 = 1.0, AT_LEAST_0;
        /// The weight of a thumbs-down example. Only in `"kto"` and `"apo_zero_unpaired"`.
        pub undesirable_weight: f64 = 1.0, AT_LEAST_0;
        /// The chance that a pair is labelled the wrong way round; above 0 the loss stops pushing pairs
        /// that are already well apart. In `"dpo"` with `"sigmoid"` (where trl 1.16 leaves it aside),
        /// `"robust"` and `"exo_pair"`, in `"simpo"`, and in `"cpo"` with `"sigmoid"`.
        pub label_smoothing: f64 = 0.0, FROM_0_TO_BELOW_HALF;
        /// The margin of rewards by which a chosen completion is to lead. Only in `"simpo"`.
        pub simpo_gamma: f64 = 0.5, AT_LEAST_0;
        /// The temperature of `loss_type = "discopop"`.
        pub discopop_tau: f64 = 0.05, ABOVE_0_TO_1;
        /// Adds this times the mean negative log-probability per token of chosen or thumbs-up completions,
        /// so that what is preferred also becomes likelier: `cpo_alpha`, `rpo_alpha` and `pref_ftx`
        /// elsewhere, `"sft"` among TRL's loss types. 1 in `"orpo"`, where the prompt counts too, and in
        /// `"cpo"`, 0 in the others unless written. Not in `"sft"`.
        pub sft_weight: Option<f64>, AT_LEAST_0;
        /// What rewards are measured against: `"base"`, the model without an adapter, or `"start"`, a
        /// frozen copy of the state that training started from (with `adapter.init_from`, TRL's rule for
        /// a PeftModel). Not in `"orpo"`, `"simpo"`, `"cpo"` and `"sft"`, which have no reference.
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
        /// Binary Classifier Optimization.
        Bco = "bco",
        /// Direct Preference Optimization.
        Dpo = "dpo",
        /// Odds Ratio Preference Optimization.
        Orpo = "orpo",
        /// Simple Preference Optimization.
        Simpo = "simpo",
        /// Contrastive Preference Optimization.
        Cpo = "cpo",
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

    /// Whether log-probabilities are measured against those of a frozen reference.
    pub fn needs_reference(self) -> bool {
        use ObjectiveName::{ApoZeroUnpaired, Bco, Dpo, Kto};
        matches!(self, Kto | ApoZeroUnpaired | Bco | Dpo)
    }

    /// Whether the gradient of one example depends on the log-probabilities of its whole group.
    pub fn needs_whole_groups(self) -> bool {
        self == ObjectiveName::Bco
    }

    /// Whether an example is a chosen and a rejected completion of one prompt.
    pub fn has_pairs(self) -> bool {
        use ObjectiveName::{Cpo, Dpo, Orpo, Simpo};
        matches!(self, Dpo | Orpo | Simpo | Cpo)
    }

    /// Whether an example is a completion with a rating.
    pub fn has_ratings(self) -> bool {
        use ObjectiveName::{ApoZeroUnpaired, Bco, Kto};
        matches!(self, Kto | ApoZeroUnpaired | Bco)
    }

    /// Whether each class of single ratings has a weight.
    pub fn has_weights(self) -> bool {
        matches!(self, ObjectiveName::Kto | ObjectiveName::ApoZeroUnpaired)
    }
}

choice! {
    /// The losses of a pair's log-ratios, by TRL's names.
    pub enum LossType {
        /// DPO itself (arXiv 2305.18290).
        Sigmoid = "sigmoid",
        /// DPO on log-ratios per token (arXiv 2411.15124).
        SigmoidNorm = "sigmoid_norm",
        /// SLiC's hinge (arXiv 2305.10425).
        Hinge = "hinge",
        /// IPO: a squared distance from a fixed margin, per token (arXiv 2310.12036).
        Ipo = "ipo",
        /// EXO's reverse KL (arXiv 2402.00856).
        ExoPair = "exo_pair",
        /// NCA: each completion against noise (arXiv 2402.05369).
        NcaPair = "nca_pair",
        /// DPO without the bias of wrong labels (arXiv 2403.00409).
        Robust = "robust",
        /// BCO of a pair, without its running mean (arXiv 2404.04656).
        BcoPair = "bco_pair",
        /// SPPO with hard probabilities (arXiv 2405.00675).
        SppoHard = "sppo_hard",
        /// APO-zero: the chosen one up, the rejected one down (arXiv 2408.06266).
        ApoZero = "apo_zero",
        /// APO-down: both down, the rejected one more (arXiv 2408.06266).
        ApoDown = "apo_down",
        /// DiscoPOP: logistic and exponential, mixed by the log-ratio (arXiv 2406.08414).
        Discopop = "discopop",
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
    /// Whether the objective has a use for a key of `[objective]`.
    fn uses(&self, key: &str) -> bool {
        use ObjectiveName::{Cpo, Dpo, Sft, Simpo};
        let (name, loss_type) = (self.name, self.loss_type);
        match key {
            "beta" | "sft_weight" => name != Sft,
            "reference" => name.needs_reference(),
            "desirable_weight" | "undesirable_weight" => name.has_weights(),
            "loss_type" => matches!(name, Dpo | Cpo),
            "label_smoothing" => match name {
                Dpo => {
                    matches!(loss_type, LossType::Sigmoid | LossType::Robust | LossType::ExoPair)
                }
                Cpo => loss_type == LossType::Sigmoid,
                _ => name == Simpo,
            },
            "simpo_gamma" => name == Simpo,
            "discopop_tau" => name == Dpo && loss_type == LossType::Discopop,
            _ => true,
        }
    }

    /// How the objective is called in messages.
    fn title(&self) -> String {
        match self.uses("loss_type") && self.loss_type != LossType::Sigmoid {
            true => {
                format!("{} with loss_type = \"{}\"", self.name.as_str(), self.loss_type.as_str())
            }
            false => self.name.as_str().to_owned(),
        }
    }

    /// An error if a key was written that the objective has no use for, or a loss that it does not have; fills in the
    /// weight of SFT if it was not written.
    pub(super) fn resolve(&mut self, tree: &Tree) -> Result<()> {
        if let Some(entry) = tree.given("objective", "loss_type")
            && self.uses("loss_type")
        {
            self.check_loss_type(&entry.place)?;
        }
        let unused = tree.table("objective").iter().find(|entry| !self.uses(&entry.key));
        if let Some(entry) = unused {
            let title = self.title();
            let used: Vec<&str> = Self::keys()
                .iter()
                .map(|key| key.name)
                .filter(|key| *key != "name" && self.uses(key))
                .collect();
            let hint = match used.is_empty() {
                true => format!("remove it; {title} has no further keys"),
                false => format!("remove it; {title} has {}", used.join(", ")),
            };
            return Err(Error::input(
                format!("[objective] {} has no effect in {title}, {}", entry.key, entry.place),
                hint,
            ));
        }
        if self.uses("sft_weight") {
            let whole = matches!(self.name, ObjectiveName::Orpo | ObjectiveName::Cpo);
            self.sft_weight.get_or_insert(if whole { 1.0 } else { 0.0 });
        }
        Ok(())
    }

    /// What [`Objective::loss_type`] may not be; `place` is where it is written.
    fn check_loss_type(&self, place: &impl std::fmt::Display) -> Result<()> {
        let written = self.loss_type.as_str();
        let of_cpo = [LossType::Sigmoid, LossType::Hinge, LossType::Ipo];
        if self.name == ObjectiveName::Cpo && !of_cpo.contains(&self.loss_type) {
            return Err(Error::input(
                format!("[objective] loss_type = \"{written}\" is no loss of cpo, {place}"),
                "write \"sigmoid\", \"hinge\" or \"ipo\", or name = \"dpo\"",
            ));
        }
        if self.loss_type == LossType::ExoPair && self.label_smoothing == 0.0 {
            return Err(Error::input(
                format!(
                    "[objective] loss_type = \"{written}\" needs a label_smoothing above 0, {place}"
                ),
                "write label_smoothing = 1e-3, as its paper does",
            ));
        }
        Ok(())
    }

    /// The keys that the objective has a use for, as TOML.
    pub(super) fn write_used(&self) -> Vec<(&'static str, String)> {
        self.write().into_iter().filter(|(key, _)| self.uses(key)).collect()
    }
}
