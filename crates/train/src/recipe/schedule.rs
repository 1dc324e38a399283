//! `[schedule]`: how the learning rate runs over the steps.

use super::setting::choice;
use super::source::Tree;
use super::table::{AT_LEAST_0, FROM_0_TO_1, table};
use crate::error::{Error, Result};

table! {
    /// `[schedule]`: how the learning rate runs over the optimizer steps, as transformers computes it.
    pub struct Schedule["schedule"] {
        /// After the warm-up, `"linear"` falls to 0 in a straight line, `"cosine"` along half a cosine,
        /// `"constant"` stays.
        pub name: ScheduleName = ScheduleName::Linear;
        /// The steps in which the rate rises from 0 in a straight line; the first step then has rate 0. 0
        /// unless either is written.
        pub warmup_steps: Option<usize>, AT_LEAST_0;
        /// The same as a share of all steps, rounded up. Not together with `warmup_steps`.
        pub warmup_ratio: Option<f64>, FROM_0_TO_1;
    }
}

choice! {
    /// The shapes of the learning rate after the warm-up.
    pub enum ScheduleName {
        /// Falls to 0 in a straight line.
        Linear = "linear",
        /// Falls to 0 along half a cosine.
        Cosine = "cosine",
        /// Stays.
        Constant = "constant",
    }
}

impl Schedule {
    /// An error if the warm-up was written twice; fills it in if it was not written.
    pub(super) fn resolve(&mut self, tree: &Tree) -> Result<()> {
        if let (Some(steps), Some(_)) =
            (tree.given("schedule", "warmup_steps"), tree.given("schedule", "warmup_ratio"))
        {
            return Err(Error::input(
                format!("[schedule] has both warmup_steps and warmup_ratio, {}", steps.place),
                "remove one: both say how long the warm-up is",
            ));
        }
        if self.warmup_ratio.is_none() {
            self.warmup_steps.get_or_insert(0);
        }
        Ok(())
    }
}
