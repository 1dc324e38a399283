//! `prospect plan --table`: models of the usual sizes on a GPU.

use ::train::error::Result;
use ::train::fit::bytes;
use ::train::machine::Machine;
use planner::table::{self, EXAMPLE, LONG, Prediction};

use crate::ending::Done;
use crate::terminal::{json, print};
use crate::words::count;

/// How far a predicted time is to be trusted.
pub(super) const TRUST: &str = "at shares that are fitted to 21 runs of 1B to 32B on an H200: those it gives within 8 %, with standard attention within 15 %, and 12 later ones there within 9 %. It was tried on no other card";

/// Prints the table.
pub(super) fn show(machine: &Machine, as_json: bool) -> Result<Done> {
    let rows = table::of(machine)?;
    if as_json {
        print(&json(&rows));
        return Ok(Done::Well);
    }
    print(&machine.description);
    print("");
    print("model  shape of         least      arena      tokens/s   with standard attention");
    for row in &rows {
        let [flash, standard] = [row.flash, row.standard].map(|prediction| {
            prediction.map_or(("-".to_owned(), "does not fit".to_owned()), |prediction| {
                let Prediction { bytes: arena, tokens_per_second } = prediction;
                (bytes(arena as u64), count(tokens_per_second as usize))
            })
        });
        print(&format!(
            "{:<5}  {:<15}  {:<9}  {:<9}  {:<9}  {}",
            row.name,
            row.like,
            bytes(row.least_bytes as u64),
            flash.0,
            flash.1,
            standard.1
        ));
    }
    print("");
    print(&format!(
        "KTO, NF4 with double quantization, r = 16 on all linear layers, 8-bit AdamW. least: the arena for examples of {LONG} tokens, one in a pass. arena and\n\
         tokens/s: 8 examples of {EXAMPLE} tokens a step, half of each prompt, as much kept as fits; rated tokens, prompt and completion. Memory is\n\
         what a run would reserve, to the byte; speed is predicted from the GPU's figures, {TRUST}."
    ));
    Ok(Done::Well)
}
