//! Memory: one arena a device, reserved once, and the ledger of what is asked of it.

pub mod arena;
pub mod budget;
pub mod ledger;
pub mod offload;
