//! `[data]`: the feedback, and how it is cut and ordered.

use super::setting::choice;
use super::table::{Limit, table};
use std::path::PathBuf;

/// A prompt and a completion have a token each; no model reads more than some millions.
const LENGTH: Limit = Limit { words: "from 2 to 10000000", holds: |x| (2.0..=1e7).contains(&x) };

table! {
    /// `[data]`: the feedback to learn from.
    pub struct Data["data"] {
        /// JSONL files in TRL's forms: `prompt`, `completion`, `label`; or `prompt`, `chosen`,
        /// `rejected`; plain text or messages. `datasets/owner/name` is a data set of the hub: its files named
        /// `train`, or those at the path that follows the name.
        pub train: Vec<PathBuf>;
        /// Held-out files in the same forms, measured during training and never learnt from.
        pub eval: Vec<PathBuf> = Vec::new();
        /// The most tokens of prompt and completion together. A longer completion is cut at the end; a
        /// row whose prompt alone reaches it is dropped; both are counted and reported. Activation memory
        /// and time grow with it.
        pub max_length: usize = 1024, LENGTH;
        /// `"shuffled"` draws a new order for every epoch and spreads the classes over the batches.
        /// `"sequential"` keeps the order of the file, pairs for the KL estimate as trl 1.16 does and
        /// averages as it does, to compare runs; a file sorted by class then trains on one class for
        /// hundreds of steps.
        pub order: Order = Order::Shuffled;
    }
}

choice! {
    /// In what order examples are learnt from.
    pub enum Order {
        /// A new order for every epoch, from the seed, classes spread over the batches.
        Shuffled = "shuffled",
        /// The order of the file, in every epoch, as trl 1.16.
        Sequential = "sequential",
    }
}
