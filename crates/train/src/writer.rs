//! The thread that writes checkpoints while training goes on.
//!
//! It gets a copy that owns its bytes; the next checkpoint waits for the one before. An error comes back at the next
//! step's end, and at the end of the run at the latest.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::checkpoint::Copied;
use crate::error::{Error, Result};

/// See the module.
pub struct Writer {
    jobs: Option<SyncSender<Copied>>,
    done: Receiver<Result<PathBuf>>,
    /// The step that is being written.
    busy: Option<usize>,
    thread: Option<JoinHandle<()>>,
}

/// A checkpoint that is on disk.
pub struct Saved {
    /// Optimizer steps done.
    pub step: usize,
    /// Where it is.
    pub place: PathBuf,
}

impl Writer {
    /// Starts the thread, which writes into the run folder `output` and leaves `keep` checkpoints there.
    pub fn open(output: &Path, keep: usize) -> Result<Writer> {
        let (jobs, taken) = sync_channel::<Copied>(1);
        let (told, done) = sync_channel(1);
        let output = output.to_path_buf();
        let work = move || {
            for copied in taken {
                if told.send(copied.write(&output, keep)).is_err() {
                    return; // nobody waits any more
                }
            }
        };
        let thread = Builder::new().name("checkpoints".to_owned()).spawn(work);
        let thread = thread.map_err(|error| {
            Error::machine(
                format!("cannot start the thread that writes checkpoints: {error}"),
                "raise the limit of processes (ulimit -u), or end other programs",
            )
        })?;
        Ok(Writer { jobs: Some(jobs), done, busy: None, thread: Some(thread) })
    }

    /// Hands over a copy of step `step`. The one before must have been waited for.
    pub fn start(&mut self, step: usize, copied: Copied) -> Result<()> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(copied).is_ok());
        if !sent {
            return Err(gone());
        }
        self.busy = Some(step);
        Ok(())
    }

    /// What was written since the last call, without waiting.
    pub fn written(&mut self) -> Result<Option<Saved>> {
        let Some(step) = self.busy else { return Ok(None) };
        match self.done.try_recv() {
            Ok(result) => self.saved(step, result).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// Waits until nothing is being written.
    pub fn wait(&mut self) -> Result<Option<Saved>> {
        let Some(step) = self.busy else { return Ok(None) };
        match self.done.recv() {
            Ok(result) => self.saved(step, result).map(Some),
            Err(_) => Err(gone()),
        }
    }

    fn saved(&mut self, step: usize, result: Result<PathBuf>) -> Result<Saved> {
        self.busy = None;
        result.map(|place| Saved { step, place })
    }
}

/// It ends only with the writer, or by a panic.
fn gone() -> Error {
    Error::machine(
        "the thread that writes checkpoints is gone",
        "report this as a mistake of Prospect; the checkpoint before is whole: go on with --resume",
    )
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // What it would say was said, or an error is on its way already.
            let _ = thread.join();
        }
    }
}
