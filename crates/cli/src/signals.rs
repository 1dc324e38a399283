//! SIGINT (Ctrl-C) and SIGTERM: the first asks the run to finish its step and save, the second ends the program
//! at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::train::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What was asked for so far.
pub(crate) struct Signals {
    /// Set by the first signal.
    pub(crate) stop: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Signals> {
        let (stop, terminated) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let listen = || -> std::io::Result<()> {
            for signal in [SIGINT, SIGTERM] {
                // Asked in this order: the flag of the signal before is what ends the program.
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
                flag::register(signal, Arc::clone(&stop))?;
            }
            flag::register(SIGTERM, Arc::clone(&terminated))?;
            Ok(())
        };
        listen().map_err(|error| {
            Error::machine(
                format!("cannot listen for signals: {error}"),
                "the system refuses signal handlers; run Prospect outside of that sandbox",
            )
        })?;
        Ok(Signals { stop, terminated })
    }

    /// The signal that set `stop`.
    pub(crate) fn signal(&self) -> u8 {
        let signal = if self.terminated.load(Ordering::Relaxed) { SIGTERM } else { SIGINT };
        signal as u8
    }
}
