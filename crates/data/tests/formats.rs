//! The same rows in every format give the same examples (`fixtures/data/formats`, made by
//! `fixtures/data/formats.py`).

use std::path::{Path, PathBuf};

use data::places::{self, Purpose};
use data::template::Moment;
use data::{DataOptions, Dataset, Error, Form, Report, Tokenizer};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data")
}

fn load(paths: &[PathBuf]) -> Result<(Dataset, Report), Error> {
    let tokenizer = Tokenizer::load(&fixtures().join("tokenizer")).expect("tokenizer");
    let options = DataOptions { form: Form::Unpaired, max_length: None, now: Moment(0) };
    Dataset::load(paths, &tokenizer, &options)
}

type Rows = Vec<(Vec<u32>, Vec<u32>, bool)>;

fn rows(dataset: &Dataset) -> Rows {
    let row = |it: data::Example| (it.prompt_ids, it.completion_ids, it.label);
    dataset.examples().map(row).collect()
}

fn check(name: &str, expected: &Rows, format: &str) {
    let path = fixtures().join("formats").join(name);
    let files = places::expand(&[path], Purpose::Training).expect("files");
    let (dataset, report) = load(&files).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(rows(&dataset), *expected, "{name}");
    assert_eq!(report.parts[0].read.format, format, "{name}");
}

#[test]
fn every_format_gives_the_same_examples() {
    for kind in ["chat", "plain"] {
        let (dataset, _) = load(&[fixtures().join(format!("formats/{kind}.jsonl"))]).expect("rows");
        let expected = rows(&dataset);
        assert!(expected.len() >= 5);
        check(&format!("{kind}.json"), &expected, "a JSON array");
        check(&format!("{kind}.csv"), &expected, "CSV");
        for end in ["gz", "zst"] {
            check(&format!("{kind}.jsonl.{end}"), &expected, "JSON lines");
        }
        for codec in ["none", "snappy", "gzip", "zstd", "lz4"] {
            check(&format!("{kind}.{codec}.parquet"), &expected, "Parquet");
        }
        for codec in ["uncompressed", "lz4", "zstd", "stream"] {
            check(&format!("{kind}.{codec}.arrow"), &expected, "Arrow IPC");
        }
        match kind {
            "chat" => {
                check("hub", &expected, "Parquet");
                check("saved", &expected, "Arrow IPC");
            }
            _ => {
                check("plain.tsv", &expected, "TSV");
                check("plain.dictionary.arrow", &expected, "Arrow IPC");
                check("plain.dictionary.parquet", &expected, "Parquet");
            }
        }
    }
}

#[test]
fn rows_are_named_by_line_or_number_and_columns_that_are_not_read_are_told() {
    let source = |name: &str, index: usize| {
        let path = fixtures().join("formats").join(name);
        let (dataset, report) = load(&[path]).expect("rows");
        (dataset.source(index).line, report.parts[0].read.ignored.clone())
    };
    assert_eq!(source("plain.jsonl", 2), (4, vec!["id".to_owned()]));
    // A row of CSV may have several lines: the fourth begins on the eighth.
    assert_eq!(source("plain.csv", 2), (8, vec!["id".to_owned()]));
    // Of typed columns others than the forms' are not even read.
    assert_eq!(source("plain.snappy.parquet", 2), (4, vec![]));
    assert_eq!(source("plain.stream.arrow", 2), (4, vec![]));
}

fn written(name: &str, content: &[u8]) -> Result<(Dataset, Report), Error> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("written");
    let prefix = format!("{}/", folder.path().display());
    load(&[path]).map_err(|mut error| {
        error.message = error.message.replace(&prefix, "");
        error
    })
}

fn refused(name: &str, content: &[u8], message: &str) {
    let error = written(name, content).expect_err(message);
    assert!(error.message.contains(message), "{name}: {error}");
    assert!(!error.hint.is_empty());
}

#[test]
fn broken_csv_is_refused_by_line() {
    let head = "prompt,completion,label\n";
    let with = |row: &str| format!("{head}a,b,1\n{row}\n").into_bytes();
    refused("a.csv", b"", "there is no record in a.csv");
    refused("a.csv", head.as_bytes(), "there is no record in a.csv");
    refused("a.csv", &with("a,b"), "a.csv:3 has 2 cells, but the first row names 3 columns");
    refused("a.csv", &with("a,b,yes"), "'label' is \"yes\", not a boolean, a.csv:3");
    refused("a.csv", &with("a,b,"), "a.csv:3 has no 'label'");
    refused("a.csv", b"prompt,prompt,label\na,b,1\n", "a.csv:1 names two columns 'prompt'");
    refused("a.csv", &[head.as_bytes(), b"\xff,b,1\n"].concat(), "a.csv:2 is not UTF-8");
    refused("a.csv", b"question,answer,label\na,b,1\n", "a.csv:2 has no 'prompt'");
    // Text that looks like JSON is text; a label is a word or a digit.
    let (dataset, _) = written("a.csv", &with("[1],{},FALSE")).expect("rows");
    assert_eq!(dataset.count(), 2);
}

#[test]
fn what_is_damaged_or_cut_short_is_an_error_and_never_a_panic() {
    let tokenizer = Tokenizer::load(&fixtures().join("tokenizer")).expect("tokenizer");
    let options = DataOptions { form: Form::Unpaired, max_length: None, now: Moment(0) };
    let folder = tempfile::tempdir().expect("folder");
    let names = [
        "chat.snappy.parquet",
        "chat.zstd.parquet",
        "plain.dictionary.parquet",
        "chat.uncompressed.arrow",
        "chat.lz4.arrow",
        "plain.zstd.arrow",
        "chat.stream.arrow",
        "plain.dictionary.arrow",
        "plain.jsonl.gz",
        "plain.jsonl.zst",
        "chat.json",
        "chat.csv",
    ];
    let mut state = 7u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    std::panic::set_hook(Box::new(|_| {})); // the libraries' own panics are caught, and expected
    for name in names {
        let sound = std::fs::read(fixtures().join("formats").join(name)).expect("fixture");
        let path = folder.path().join(name);
        for round in 0..40 {
            let mut bytes = sound.clone();
            if round % 2 == 0 {
                bytes.truncate(draw(sound.len()));
            } else {
                for _ in 0..=draw(3) {
                    let place = draw(bytes.len());
                    bytes[place] = [0, 255, draw(256) as u8][draw(3)];
                }
            }
            std::fs::write(&path, &bytes).expect("written");
            if let Err(error) = Dataset::load(std::slice::from_ref(&path), &tokenizer, &options) {
                assert!(!error.message.is_empty() && !error.hint.is_empty(), "{name}");
            }
        }
    }
    let _ = std::panic::take_hook();
}

#[test]
fn compressed_files_do_not_fill_memory() {
    use std::io::Write;
    let gzip = |fill: &dyn Fn(&mut dyn Write)| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        fill(&mut encoder);
        encoder.finish().expect("compressed")
    };
    let letters = vec![b'a'; 1 << 20];
    // A row of 80 MiB, in some kilobytes.
    let row = gzip(&|out| {
        out.write_all(b"{\"prompt\": \"").expect("written");
        (0..80).for_each(|_| out.write_all(&letters).expect("written"));
    });
    refused("a.jsonl.gz", &row, "a.jsonl.gz:1 is a row of more than 64 MiB");
    refused(
        "a.csv.gz",
        &gzip(&|out| {
            out.write_all(b"prompt,completion,label\n\"").expect("written");
            (0..80).for_each(|_| out.write_all(&letters).expect("written"));
        }),
        "is a row of more than 64 MiB",
    );
    let array = gzip(&|out| {
        out.write_all(b"[\"").expect("written");
        (0..80).for_each(|_| out.write_all(&letters).expect("written"));
    });
    refused("a.json.gz", &array, "a.json.gz:1 is a row of more than 64 MiB");
    refused("a.jsonl.gz", &row[..row.len() / 2], "decompressed");
    // A stream of Arrow that claims a body of an exabyte.
    let mut stream = std::fs::read(fixtures().join("formats/plain.stream.arrow")).expect("fixture");
    let schema = u32::from_le_bytes(*stream[4..].first_chunk().expect("length")) as usize + 8;
    let length = 8u64.to_le_bytes();
    let batch = &mut stream[schema..];
    let claimed: Vec<usize> =
        (8..400).filter(|&at| batch[at..].starts_with(&[0, 0, 0, 0, 0, 0, 0])).collect();
    assert!(!claimed.is_empty() && length.len() == 8);
    for at in claimed {
        let mut changed = stream.clone();
        changed[schema + at + 5] = 0x0f;
        let _ = written("a.arrow", &changed);
    }
}
