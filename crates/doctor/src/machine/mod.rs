//! The machine's facts: its cards and their driver, and the host around them.

mod gpu;
mod host;

use crate::facts::{Gpu, Machine};
use crate::table::Table;

/// Adds everything about the machine to the table and returns its cards.
pub fn gather(machine: &dyn Machine, table: &mut Table) -> Vec<Gpu> {
    let gpus = gpu::gather(machine, table);
    host::gather(machine, table);
    gpus
}

/// Two numbers of a compute capability.
pub fn capability(gpu: &Gpu) -> Option<(u32, u32)> {
    let (major, minor) = gpu.compute.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
