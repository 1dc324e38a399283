//! How many threads the CPU's work is given to. The result is the same for any number.

use ::train::error::{Error, Result};
use ::train::recipe::training::Train;

/// More than any machine has cores.
const MOST: usize = 1024;

/// Refuses a variable that would start more threads than the machine can hold.
pub(crate) fn check_environment() -> Result<()> {
    let written = std::env::var("RAYON_NUM_THREADS").unwrap_or_default();
    match written.parse::<usize>() {
        Ok(threads) if threads > MOST => Err(Error::input(
            format!("RAYON_NUM_THREADS = {threads} is out of range"),
            format!("unset it to use all cores, or set it to {MOST} at the most"),
        )),
        _ => Ok(()),
    }
}

/// Starts as many as the recipe says.
pub(crate) fn start(train: &Train) -> Result<()> {
    let Some(threads) = train.threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| {
        Error::machine(
            format!("cannot start {threads} threads: {error}"),
            "lower train.threads, or remove it to use all cores",
        )
    })
}
