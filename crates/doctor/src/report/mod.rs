//! What the doctor says: one page for people, JSON for programs, a rule explained.

pub mod explain;
pub mod json;
pub mod page;
mod prospect;
