//! Mutated files: thousands for each reader of what strangers wrote, the same ones each time. No reader panics, takes
//! memory by a number it did not check, or leaves its folder. `fuzz/` gives the same readers to libFuzzer.
//!
//! PROSPECT_FUZZ_INPUTS sets how many files each reader is given.

#[path = "readers/mutator.rs"]
mod mutator;
#[allow(unreachable_pub, reason = "the fuzz targets share it")]
#[path = "../../../fuzz/src/readers.rs"]
mod readers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use engine::memory::budget::{self, Budgeted};
use mutator::Mutator;
use readers::{READERS, Reader};

/// Counts what a reader takes, and ends the program where it takes too much.
#[global_allocator]
static ALLOCATOR: Budgeted = Budgeted;

/// Files for each reader, if the environment does not say otherwise.
const INPUTS: u64 = 1500;

/// What a reader may take: its tables, and this much for each byte of its file.
const LEAST: usize = 64 << 20;
const PER_BYTE: usize = 256;

/// What a batch of Arrow may say that it has, and its columns beside it: the reader believes no more.
const ARROW: usize = 6 << 30;

/// Work of libraries is confined as the program confines it, only closer.
fn confine(_: usize, words: &str, work: &mut dyn FnMut()) {
    let room = if words.contains("data.arrow") { ARROW } else { LEAST };
    budget::within(room, words, work);
}

fn seeds(reader: &Reader) -> Vec<Vec<u8>> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut paths: Vec<_> = reader.seeds.iter().map(|seed| fixtures.join(seed)).collect();
    if let Ok(entries) = std::fs::read_dir(fixtures.join("fuzz").join(reader.name)) {
        let mut own: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
        own.sort();
        paths.extend(own);
    }
    let read = |path| std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    paths.into_iter().map(read).collect()
}

/// Gives a reader its seeds and mutated files; an input that breaks it is kept for a look.
fn give(reader: &Reader, inputs: u64) {
    let folder = tempfile::tempdir().expect("folder");
    let seeds = seeds(reader);
    for index in 0..inputs {
        let bytes = match seeds.get(index as usize) {
            Some(seed) => seed.clone(),
            None => Mutator::new(reader.name, index).mutated(&seeds),
        };
        let words = format!("{}, input {index}: takes too much memory or time", reader.name);
        let room = LEAST + PER_BYTE * bytes.len();
        let result = catch_unwind(AssertUnwindSafe(|| {
            budget::within(room, &words, &mut || (reader.read)(&bytes, folder.path()));
        }));
        if result.is_err() {
            let kept = std::env::temp_dir().join(format!("prospect-{}-{index}", reader.name));
            std::fs::write(&kept, &bytes).expect("kept");
            panic!("{}, input {index} breaks the reader: {}", reader.name, kept.display());
        }
    }
}

#[test]
fn no_mutated_file_breaks_its_reader() {
    data::confined::by(confine);
    // Libraries panic on some broken files and are caught right there; what is said of it takes memory as well.
    std::panic::set_hook(Box::new(|_| {}));
    let inputs = std::env::var("PROSPECT_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok());
    let inputs = inputs.unwrap_or(INPUTS);
    let mut broken = Vec::new();
    // Threads have the two mebibytes of stack that a worker of the program has.
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for reader in READERS {
            threads.push(scope.spawn(move || give(reader, inputs)));
        }
        broken.extend(threads.into_iter().filter_map(|thread| thread.join().err()));
    });
    let _ = std::panic::take_hook();
    let words = broken.iter().filter_map(|panic| panic.downcast_ref::<String>());
    assert!(broken.is_empty(), "{}", words.cloned().collect::<Vec<_>>().join("\n"));
}
