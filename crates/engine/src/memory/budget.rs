//! A global allocator that ends the program, with words, where a piece of work takes more memory or time than it
//! was given.
//!
//! Templates and tokenizers are programs of strangers, run by libraries that know no limit. An allocation that fails
//! in Rust aborts without words, and an allocator must not unwind; so the one thing left to do is to say what
//! happened and end. Work is confined before a run writes anything.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

/// The system's allocator, which counts what confined work takes.
pub struct Budgeted;

/// Work may ask for so many times its bytes in all, given back ones included: what is copied without end takes time
/// without end.
const TURNOVER: usize = 64;

/// How often the watch looks, and how many looks work may take: two minutes for one record or one file. Looks are
/// counted and no clock is read, so that a machine that slept does not end anything.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 1200;

#[derive(Clone, Copy)]
struct Left {
    /// Bytes that may be taken besides those held.
    held: usize,
    /// Bytes that may still be asked for.
    turnover: usize,
    /// What is said when there are none.
    words: (*const u8, usize),
}

const UNLIMITED: Left =
    Left { held: usize::MAX, turnover: usize::MAX, words: (std::ptr::null(), 0) };

thread_local! {
    static LEFT: Cell<Left> = const { Cell::new(UNLIMITED) };
}

/// What is being worked on, by all threads: words, and looks of the watch so far.
static WORKING: Mutex<Vec<(u64, String, u32)>> = Mutex::new(Vec::new());

/// Does `work` with at most `bytes` of memory besides what is held already. If it takes more, or minutes, the program
/// ends with exit code 2, and with `words` as its last.
pub fn within(bytes: usize, words: &str, work: &mut dyn FnMut()) {
    let number = enter(words);
    let before = LEFT.get();
    LEFT.set(Left {
        held: bytes,
        turnover: bytes.saturating_mul(TURNOVER),
        words: (words.as_ptr(), words.len()),
    });
    // If `work` panics, the limits go all the same.
    struct Leave(u64, Left);
    impl Drop for Leave {
        fn drop(&mut self) {
            LEFT.set(self.1);
            working().retain(|(number, _, _)| *number != self.0);
        }
    }
    let _leave = Leave(number, before);
    work();
}

fn working() -> std::sync::MutexGuard<'static, Vec<(u64, String, u32)>> {
    WORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Enters work into the list, and starts the watch with the first.
fn enter(words: &str) -> u64 {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // Without a watch the memory is limited all the same.
        let _ = std::thread::Builder::new().name("watch".to_owned()).spawn(watch);
    });
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    working().push((number, words.to_owned(), 0));
    number
}

fn watch() {
    loop {
        std::thread::sleep(LOOK);
        for (_, words, looks) in working().iter_mut() {
            *looks += 1;
            if *looks > LOOKS {
                end(words.as_bytes());
            }
        }
    }
}

/// Says the words and ends the program. Threads that work on one thing run out together: the first one speaks, and the
/// others wait for the end.
fn end(words: &[u8]) -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        loop {
            std::thread::sleep(LOOK);
        }
    }
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(words);
    let _ = stderr.write_all(b"\n");
    #[allow(clippy::exit, reason = "an allocator can neither fail with words nor unwind")]
    std::process::exit(2)
}

/// Takes `bytes` from what is left, or ends.
fn spend(bytes: usize) {
    let left = LEFT.get();
    if left.held == usize::MAX {
        return;
    }
    match (left.held.checked_sub(bytes), left.turnover.checked_sub(bytes)) {
        (Some(held), Some(turnover)) => LEFT.set(Left { held, turnover, ..left }),
        _ => {
            LEFT.set(UNLIMITED);
            // SAFETY: the words are those of the `within` that this is called in, which outlives the call.
            #[allow(unsafe_code)]
            let words = unsafe { std::slice::from_raw_parts(left.words.0, left.words.1) };
            end(words)
        }
    }
}

/// Gives back; what was taken outside is not counted twice.
fn give(bytes: usize) {
    let left = LEFT.get();
    if left.held != usize::MAX {
        // Less than the mark of no limit, whatever is given back.
        LEFT.set(Left { held: left.held.saturating_add(bytes).min(usize::MAX - 1), ..left });
    }
}

// SAFETY: every call goes to the system's allocator as it came; the counters are the thread's own and take no memory.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Budgeted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        spend(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        spend(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        spend(size);
        give(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_what_it_takes_and_gives_back_and_nothing_is_counted_outside() {
        spend(1 << 40);
        within(1000, "words", &mut || {
            spend(900);
            give(900);
            spend(999);
            assert_eq!(LEFT.get().held, 1);
            assert_eq!(LEFT.get().turnover, 64 * 1000 - 1899);
            give(usize::MAX);
            assert_ne!(LEFT.get().held, usize::MAX, "still limited");
        });
        assert_eq!(LEFT.get().held, usize::MAX);
        let panicked = std::panic::catch_unwind(|| within(10, "words", &mut || panic!("oh")));
        assert!(panicked.is_err());
        assert_eq!(LEFT.get().held, usize::MAX);
        assert!(working().is_empty());
    }
}
