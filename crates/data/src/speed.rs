//! How fast data is read and tokenized; figures, not tests:
//!
//! ```text
//! cargo test --release -p prospect-data speed -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `PROSPECT_TOKENIZER` names another tokenizer folder than the small one of the fixtures.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use rayon::prelude::*;
use serde_json::json;

use crate::load;
use crate::reader::Reader;
use crate::records;
use crate::template::Moment;
use crate::tokens::Bytes;
use crate::{Cache, Columns, DataOptions, Dataset, Form, Origin, Source, Tokenizer, random};

const WORDS: [&str; 24] = [
    "the",
    "sky",
    "is",
    "blue",
    "and",
    "language",
    "models",
    "learn",
    "from",
    "feedback",
    "of",
    "people",
    "who",
    "rate",
    "answers",
    "with",
    "thumbs",
    "up",
    "or",
    "down",
    "because",
    "tokenization",
    "matters",
    "naïve",
];

/// Text of about so many bytes.
fn text(seed: u64, bytes: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        let draw = random::bits(&[seed, number]) as usize;
        text += WORDS[draw % WORDS.len()];
        text += if draw.is_multiple_of(13) { ".\n" } else { " " };
        if text.len() >= bytes {
            break;
        }
    }
    text
}

/// Rows of prompt, completion and label.
fn rows(count: usize) -> Vec<(String, String, bool)> {
    (0..count as u64)
        .map(|row| (text(2 * row, 500), text(2 * row + 1, 1000), row % 3 == 0))
        .collect()
}

fn write_all(folder: &Path, rows: &[(String, String, bool)]) -> (usize, Vec<PathBuf>) {
    let line = |(prompt, completion, label): &(String, String, bool)| {
        json!({"prompt": prompt, "completion": completion, "label": label}).to_string()
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    let jsonl = lines.join("\n");
    let path = |name: &str| folder.join(name);
    fs::write(path("a.jsonl"), &jsonl).expect("written");
    fs::write(path("a.json"), format!("[{}]", lines.join(",\n"))).expect("written");
    let mut gzip = flate2::write::GzEncoder::new(
        fs::File::create(path("a.jsonl.gz")).expect("file"),
        flate2::Compression::default(),
    );
    gzip.write_all(jsonl.as_bytes()).and_then(|()| gzip.finish().map(drop)).expect("written");
    fs::write(path("a.jsonl.zst"), zstd::encode_all(jsonl.as_bytes(), 3).expect("zstd"))
        .expect("written");
    let mut csv = csv::Writer::from_path(path("a.csv")).expect("file");
    csv.write_record(["prompt", "completion", "label"]).expect("written");
    for (prompt, completion, label) in rows {
        csv.write_record([prompt.as_str(), completion, &label.to_string()]).expect("written");
    }
    csv.flush().expect("written");
    let column = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let labels: Vec<bool> = rows.iter().map(|row| row.2).collect();
    let batch = RecordBatch::try_from_iter([
        ("prompt", column(rows.iter().map(|row| row.0.as_str()).collect())),
        ("completion", column(rows.iter().map(|row| row.1.as_str()).collect())),
        ("label", Arc::new(BooleanArray::from(labels)) as ArrayRef),
    ])
    .expect("batch");
    let file = || fs::File::create(path("a.arrow")).expect("file");
    let mut stream =
        arrow_ipc::writer::StreamWriter::try_new(file(), &batch.schema()).expect("stream");
    for start in (0..rows.len()).step_by(1000) {
        stream.write(&batch.slice(start, 1000.min(rows.len() - start))).expect("written");
    }
    stream.finish().expect("written");
    for (name, compression) in [
        ("snappy", parquet::basic::Compression::SNAPPY),
        ("zstd", parquet::basic::Compression::ZSTD(Default::default())),
    ] {
        let file = fs::File::create(path(&format!("a.{name}.parquet"))).expect("file");
        let options = parquet::file::properties::WriterProperties::builder()
            .set_compression(compression)
            .build();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(options))
            .expect("writer");
        writer.write(&batch).and_then(|()| writer.close().map(drop)).expect("written");
    }
    let names = [
        "a.jsonl",
        "a.json",
        "a.jsonl.gz",
        "a.jsonl.zst",
        "a.csv",
        "a.arrow",
        "a.snappy.parquet",
        "a.zstd.parquet",
    ];
    (jsonl.len(), names.map(path).into())
}

#[test]
#[ignore = "prints figures"]
fn speed_of_reading() {
    let folder = tempfile::tempdir().expect("folder");
    let (bytes, paths) = write_all(folder.path(), &rows(60_000));
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        for path in &paths {
            let mut seconds = f64::INFINITY;
            for _ in 0..3 {
                let began = Instant::now();
                let mut reader = Reader::open(path, &|_| true).expect("open");
                let mut count = 0;
                while let Some(piece) = reader.read().expect("rows") {
                    let source = Source { file: Arc::from(path.as_path()), line: 1 };
                    let parsed: Vec<usize> = pool.install(|| {
                        let row = |row: crate::reader::RawRow| {
                            let fields = load::fields(row.body, &source, &Columns::default())
                                .expect("fields");
                            let row = records::parse(Form::Unpaired, source.clone(), fields)
                                .expect("row");
                            row.completions.len()
                        };
                        piece.rows.into_par_iter().map(row).collect()
                    });
                    count += parsed.len();
                }
                assert_eq!(count, 60_000);
                seconds = seconds.min(began.elapsed().as_secs_f64());
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            report(&format!(
                "{name:<18} {threads} thread(s): {:>6.0} MB/s of text, {:>6.0} MB/s of file",
                bytes as f64 / seconds / 1e6,
                fs::metadata(path).expect("file").len() as f64 / seconds / 1e6
            ));
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn speed_of_tokenizing() {
    let folder = tempfile::tempdir().expect("folder");
    let rows = rows(6_000);
    let (_, paths) = write_all(folder.path(), &rows);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/tokenizer");
    let model = std::env::var_os("PROSPECT_TOKENIZER").map_or(fixtures, PathBuf::from);
    let tokenizer = Tokenizer::load(&model).expect("tokenizer");
    let bare = tokenizers::Tokenizer::from_file(model.join("tokenizer.json")).expect("tokenizer");
    let eos = tokenizer.eos_token().expect("eos").to_owned();
    let texts: Vec<String> = rows
        .iter()
        .flat_map(|(prompt, completion, _)| [prompt.clone(), format!("{prompt}{completion}{eos}")])
        .collect();
    let bytes: usize = texts.iter().map(String::len).sum();
    let options = DataOptions { form: Form::Unpaired, max_length: None, now: Moment(0) };
    let held = |path: &Path| -> std::io::Result<Bytes> { Ok(Arc::new(fs::read(path)?)) };
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let (mut alone, mut ours, mut cached) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        for round in 0..3 {
            alone = alone.min(time(|| {
                let encode =
                    |text: &String| bare.encode_fast(text.as_str(), true).expect("ids").len();
                let counts: Vec<usize> = pool.install(|| texts.par_iter().map(encode).collect());
                assert_eq!(counts.len(), texts.len());
            }));
            let kept = folder.path().join(format!("tokens-{threads}-{round}"));
            let cache = Cache { folder: kept, least: 0, map: held };
            let origin = Origin { files: vec![paths[0].clone()], ..Origin::default() };
            let open = || {
                let origin = std::slice::from_ref(&origin);
                let open = || Dataset::open(origin, Some(&cache), &tokenizer, &options);
                assert_eq!(pool.install(open).expect("dataset").0.count(), rows.len());
            };
            ours = ours.min(time(open));
            cached = cached.min(time(open));
        }
        let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
        report(&format!(
            "{threads} thread(s): bare tokenizers {:.2} MB/s, from file to cache {:.2} MB/s ({:.0} %), from the cache {:.0} MB/s",
            rate(alone),
            rate(ours),
            100.0 * alone / ours,
            rate(cached)
        ));
    }
}

fn time(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

#[allow(clippy::print_stdout, reason = "figures are printed to be read")]
fn report(line: &str) {
    println!("{line}");
}
