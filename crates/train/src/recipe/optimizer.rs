//! `[optimizer]`: how gradients move the weights.

use super::setting::choice;
use super::table::{ABOVE_0, AT_LEAST_0, FROM_0_TO_BELOW_1, table};

table! {
    /// `[optimizer]`: how gradients move the weights.
    pub struct Optimizer["optimizer"] {
        /// `"adamw"` as torch computes it, with two f32 states per trained weight; `"adamw_8bit"` as
        /// bitsandbytes does, with two bytes per trained weight: worth it in full fine-tuning, little
        /// gained with an adapter.
        pub name: OptimizerName = OptimizerName::Adamw;
        /// The step size at its highest; `[schedule]` scales it. 1e-6 is TRL's default for kto and dpo,
        /// and 2e-5 for sft is taken if the objective is sft; with an adapter ten to a hundred times as
        /// much is usual. Too large and the rewards run away and the text falls apart; too small and
        /// nothing changes.
        pub learning_rate: f64 = 1e-6, AT_LEAST_0;
        /// The share of the running mean of gradients that each step keeps.
        pub beta1: f64 = 0.9, FROM_0_TO_BELOW_1;
        /// The share of the running mean of squared gradients that each step keeps.
        pub beta2: f64 = 0.999, FROM_0_TO_BELOW_1;
        /// Added to the root of the squared gradients, so that a weight with tiny gradients does not take
        /// full steps.
        pub eps: f64 = 1e-8, ABOVE_0;
        /// The share, times the learning rate, by which each step pulls weights towards 0.
        pub weight_decay: f64 = 0.0, AT_LEAST_0;
        /// Gradients with a larger norm are scaled down to it, so that one odd batch cannot throw the
        /// weights far. 0 turns clipping off.
        pub max_grad_norm: f64 = 1.0, AT_LEAST_0;
    }
}

choice! {
    /// The optimizers.
    pub enum OptimizerName {
        /// AdamW, states in f32, decay before the update (torch).
        Adamw = "adamw",
        /// AdamW, states in 8 bits by blocks of 256, decay after the update (bitsandbytes on CUDA).
        Adamw8bit = "adamw_8bit",
    }
}
