//! `[train]`: how long, in what portions, on what machine.

use super::objective::Objective;
use super::setting::{Bytes, choice};
use super::source::Tree;
use super::table::{A_MILLION, ABOVE_0, AT_LEAST_0, AT_LEAST_1, Limit, table};
use crate::error::{Error, Result};

/// More threads than any machine has cores.
const THREADS: Limit = Limit { words: "from 1 to 1024", holds: |x| (1.0..=1024.0).contains(&x) };

/// A pass counts its rows in 32 bits.
const TOKENS: Limit = Limit { words: "from 1 to 1000000000", holds: |x| (1.0..=1e9).contains(&x) };

table! {
    /// `[train]`: how long, in what portions, on what machine.
    pub struct Train["train"] {
        /// How often all examples are learnt from; a fraction ends within an epoch. 3 unless `max_steps`
        /// is written (transformers).
        pub epochs: Option<f64>, ABOVE_0;
        /// The number of optimizer steps, instead of `epochs`. Ten million at the most: every step is planned.
        pub max_steps: Option<usize>, AT_LEAST_1;
        /// Examples per group: what the KL estimate of kto is a mean over, TRL's per-device batch. kto
        /// needs 2. It does not bound memory: `token_budget` does. A pair is one example.
        pub batch_size: usize = 8, A_MILLION;
        /// Groups per optimizer step: the effective batch is `batch_size` times this. A larger one makes
        /// steps steadier and fewer.
        pub gradient_accumulation_steps: usize = 1, A_MILLION;
        /// A line is shown every so many steps; `metrics.jsonl` has every step.
        pub log_every: usize = 10, AT_LEAST_1;
        /// Held-out data is measured every so many steps, and at the end. 0: at the end alone.
        pub eval_every: usize = 500, AT_LEAST_0;
        /// A checkpoint to resume from is written every so many steps, and at the end. 0: none by steps.
        pub save_every: usize = 500, AT_LEAST_0;
        /// A checkpoint is also written when this many minutes have passed since the last: the most work
        /// that a power cut can cost. 0: none by time. It changes nothing in the result.
        pub save_minutes: f64 = 5.0, AT_LEAST_0;
        /// How many of the newest checkpoints stay on disk. 0: all.
        pub keep_checkpoints: usize = 2, AT_LEAST_0;
        /// Steps whose loss or gradient is not finite are skipped and counted; one more than this many
        /// ends the run.
        pub max_bad_batches: usize = 10, AT_LEAST_0;
        /// `"flash"` never holds the scores of all pairs of tokens; `"standard"` does: slower and larger
        /// for long texts, there to compare with.
        pub attention: Attention = Attention::Flash;
        /// `"auto"` takes the GPU if there is one and says what it took.
        pub device: Device = Device::Auto;
        /// The most memory the run may take on the device, such as `"24GiB"`; what the device has free
        /// unless written. The planner keeps or recomputes activations to fit: less memory is slower,
        /// never different in the loss.
        pub memory_limit: Option<Bytes>;
        /// The most tokens in one pass through the model; the planner's choice unless written. A group
        /// that holds more is split, exactly. More is faster and takes more memory for activations.
        pub token_budget: Option<usize>, TOKENS;
        /// Threads on the CPU; all cores unless written. The result is the same for any number.
        pub threads: Option<usize>, THREADS;
    }
}

choice! {
    /// How attention is computed.
    pub enum Attention {
        /// Tile by tile, the scores are never held.
        Flash = "flash",
        /// All scores at once.
        Standard = "standard",
    }
}

choice! {
    /// Where training runs.
    pub enum Device {
        /// On the GPU if there is one, else on the CPU.
        Auto = "auto",
        /// On the CPU.
        Cpu = "cpu",
        /// On an NVIDIA GPU.
        Cuda = "cuda",
    }
}

impl Train {
    /// An error if the length was written twice or a group is too small for the objective; fills in the
    /// length if it was not written.
    pub(super) fn resolve(&mut self, objective: &Objective, tree: &Tree) -> Result<()> {
        if let (Some(epochs), Some(_)) =
            (tree.given("train", "epochs"), tree.given("train", "max_steps"))
        {
            return Err(Error::input(
                format!("[train] has both epochs and max_steps, {}", epochs.place),
                "remove one: both say how long the run is",
            ));
        }
        if self.max_steps.is_none() {
            self.epochs.get_or_insert(3.0);
        }
        if objective.name.needs_kl() && self.batch_size < 2 {
            let place = tree.given("train", "batch_size").map(|entry| format!(", {}", entry.place));
            return Err(Error::input(
                format!(
                    "[train] batch_size = 1 leaves kto no second example to estimate the KL with{}",
                    place.unwrap_or_default()
                ),
                "write batch_size = 2 or more: token_budget bounds the memory, not batch_size; or objective.name = \"apo_zero_unpaired\"",
            ));
        }
        Ok(())
    }
}
