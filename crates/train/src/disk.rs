//! Whether the disk has room for all that a run will write, asked before the first step.

use std::path::Path;

use crate::checkpoint::{self, Contents};
use crate::error::{Error, Result};
use crate::fit::bytes;
use crate::inputs::Inputs;
use crate::recipe::model::Dtype;

/// A tensor's line in a header, and a file's last block that is not full.
const PER_TENSOR: u64 = 256;
const PER_FILE: u64 = 8192;
/// A line of `metrics.jsonl`.
const PER_STEP: u64 = 1024;
/// A token of an answer as text, before and after.
const PER_TOKEN: u64 = 32;
/// Recipe, summary and report.
const REST: u64 = 512 * 1024;

/// What a run will write from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// One checkpoint.
    pub checkpoint: u64,
    /// Checkpoints that come to those there are, the one being written included.
    pub checkpoints: u64,
    /// The adapter, or the model.
    pub result: u64,
    /// Metrics, answers and reports.
    pub rest: u64,
}

impl Needs {
    /// Of a run that has what `contents` has to save, and `steps` steps.
    pub fn of(inputs: &Inputs, contents: &Contents<'_>, steps: usize, output: &Path) -> Needs {
        let train = &inputs.recipe.train;
        let headers = contents.tensors() as u64 * PER_TENSOR;
        let saves = match train.save_every {
            0 => 1,
            every => steps.div_ceil(every) as u64,
        };
        // The newest are kept; one more is written beside them before the oldest goes.
        let most = match train.keep_checkpoints {
            0 => saves,
            keep => saves.min(keep as u64 + 1),
        };
        let trained = contents.trained_bytes() as u64;
        let result = match (&inputs.lora, inputs.recipe.model.dtype) {
            (None, Dtype::Bf16) => trained / 2 + companions(&inputs.folder),
            (None, _) => trained + companions(&inputs.folder),
            (Some(_), _) => trained,
        };
        let answers = inputs
            .prompts
            .as_ref()
            .map_or(0, |prompts| (prompts.ids().len() * prompts.longest()) as u64 * PER_TOKEN);
        Needs {
            checkpoint: contents.bytes() as u64 + headers + 4 * PER_FILE,
            checkpoints: most.saturating_sub(checkpoint::all(output).len() as u64),
            result: result + headers + 2 * PER_FILE,
            rest: steps as u64 * PER_STEP + answers + REST,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.checkpoints.saturating_mul(self.checkpoint).saturating_add(self.result + self.rest)
    }

    /// An error if `free` bytes are not enough.
    pub fn check(&self, free: u64, output: &Path) -> Result<()> {
        if self.total() <= free {
            return Ok(());
        }
        Err(Error::machine(
            format!(
                "the run writes up to {} into '{}' (checkpoints: {} of {}, the result {}, logs {}), but {} is free there",
                bytes(self.total()),
                output.display(),
                self.checkpoints,
                bytes(self.checkpoint),
                bytes(self.result),
                bytes(self.rest),
                bytes(free)
            ),
            "free some space, lower train.keep_checkpoints, or choose another disk by --set output=...",
        ))
    }
}

/// Bytes a user may still write to the disk of `folder`; none where the file system does not say.
pub fn free(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    (told.f_blocks > 0).then(|| told.f_bavail.saturating_mul(told.f_frsize))
}

/// Bytes of the files that are copied beside a whole model.
fn companions(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let length = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = [".json", ".jinja", ".txt"].iter().any(|ending| name.ends_with(ending));
        text.then(|| entry.metadata().map_or(0, |metadata| metadata.len()))
    };
    entries.filter_map(length).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_one_byte_too_few_is_refused_and_says_what_for() {
        let needs = Needs { checkpoint: 4096, checkpoints: 3, result: 1024, rest: 512 };
        assert_eq!(needs.total(), 3 * 4096 + 1024 + 512);
        assert!(needs.check(needs.total(), Path::new("run")).is_ok());
        let error = needs.check(needs.total() - 1, Path::new("run")).unwrap_err();
        assert_eq!(
            error.message,
            "the run writes up to 13.5 KiB into 'run' (checkpoints: 3 of 4.0 KiB, the result 1.0 KiB, logs 512 B), but 13.5 KiB is free there"
        );
        assert!(Needs { checkpoint: u64::MAX, ..needs }.check(1 << 60, Path::new("run")).is_err());
    }

    #[test]
    fn the_disk_under_a_folder_says_what_it_has() {
        assert!(free(&std::env::temp_dir()).is_some_and(|free| free > 0));
        assert_eq!(free(Path::new("/there/is/no/such/folder")), None);
    }
}
