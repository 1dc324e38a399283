//! Work on what strangers wrote, templates and tokenizers, in bounded memory and time.
//!
//! This crate cannot bound the libraries it calls; the program can, by its allocator, and gives a function here.
//! Without one, in a library's tests, work is done as it is.

use std::sync::OnceLock;

/// Does work with so many bytes at most; if it takes more, or minutes, ends the program with these words.
pub type Confine = fn(usize, &str, &mut dyn FnMut());

static CONFINE: OnceLock<Confine> = OnceLock::new();

/// What any work may take, however little it begins with.
const LEAST: usize = 512 << 20;

/// Bytes per byte that work begins with: a tokenizer's tables are some tens of times its file.
const PER_BYTE: usize = 64;

/// Says how work is confined from now on; the first call counts.
pub fn by(confine: Confine) {
    let _ = CONFINE.set(confine);
}

/// Does work that begins with `bytes` bytes; `what` takes too much, if it does.
pub(crate) fn confined<R>(bytes: usize, what: &str, hint: &str, work: impl FnOnce() -> R) -> R {
    let Some(confine) = CONFINE.get() else { return work() };
    let (mut work, mut result) = (Some(work), None);
    let words =
        format!("error: {what} takes more memory or time than anything sound does\n  hint: {hint}");
    confine(LEAST.saturating_add(bytes.saturating_mul(PER_BYTE)), &words, &mut || {
        result = work.take().map(|work| work());
    });
    match result {
        Some(result) => result,
        None => panic!("what confines work does it"), // a mistake of the program that gave the function
    }
}
