//! From files to tokens: one thread reads rows, all others parse and tokenize them, and what comes out is written in
//! the order of the files. Memory holds some pieces of some megabytes, however long the files are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::families::Families;
use crate::reader::{Body, RawRow, Reader};
use crate::records::formats;
use crate::records::reading::{self, Columns, Reading};
use crate::records::{self, Form, Ordered, Row, Shape, Source};
use crate::tokenize::{Fate, Kept, Tokenization, Tokenized};
use crate::tokens::{Entry, Sink};

/// How many places are kept of each kind of finding.
const NAMED: usize = 5;

/// Pieces that wait for being tokenized.
const WAITING: usize = 2;

/// Files whose rows are read alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// The form of their rows.
    pub reading: Reading,
    /// Which of their columns are meant.
    pub columns: Columns,
    /// Their share of an epoch, beside the weights of others; either all origins have one or none has.
    pub weight: Option<f64>,
}

/// How an origin was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginReport {
    /// What the first file is: JSON lines, Parquet.
    pub format: String,
    /// The form of the rows.
    pub form: String,
    /// Whether they are messages, which go through the chat template.
    pub conversational: bool,
    /// Why they are of that form.
    pub why: String,
    /// Columns that are not read.
    pub ignored: Vec<String>,
    /// Rows.
    pub rows: usize,
}

/// What was found of one kind: how often, and the files and lines of the first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) count: usize,
    pub(crate) first: Vec<(u32, u64)>,
}

impl Found {
    fn add(&mut self, place: (u32, u64)) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(place);
        }
    }
}

/// What tokenizing found out, beside the entries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Records read; a pair counts as two.
    pub(crate) records: usize,
    pub(crate) empty: Found,
    pub(crate) halves: Found,
    pub(crate) origins: Vec<OriginReport>,
    /// Whether the chat template was used and may show the clock.
    pub(crate) reads_clock: bool,
    /// What the chat template was told of the clock: formats and answers.
    pub(crate) clock: Vec<(String, String)>,
}

/// Tokenized origins; the tokens themselves are where the sink put them.
pub(crate) struct Made {
    pub(crate) entries: Vec<Entry>,
    pub(crate) summary: Summary,
}

/// Why there is nothing.
pub(crate) enum Stopped {
    /// The data is wrong, or cannot be read.
    Data(Error),
    /// The tokens cannot be written.
    Sink(io::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Data(error)
    }
}

/// What the reading thread tells.
enum Told {
    /// A file is open.
    Opened { origin: usize, format: &'static str },
    /// Rows of a file.
    Rows { origin: usize, file: usize, rows: Vec<RawRow> },
    /// It cannot go on.
    Failed(Error),
}

/// Reads and tokenizes the origins. `files` are all their files, in order, as sources name them.
pub(crate) fn make(
    origins: &[Origin],
    files: &[Arc<Path>],
    tokenization: &Tokenization<'_>,
    sink: &mut Sink<'_>,
) -> Result<Made, Stopped> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(WAITING);
        let reading = std::thread::Builder::new().name("reading".to_owned());
        let started = reading.spawn_scoped(scope, move || read(origins, &sender));
        if let Err(error) = started {
            return Err(Stopped::Data(Error::machine(
                format!("cannot start a thread to read the data: {error}"),
                "raise the limits of processes and memory (ulimit -u, ulimit -v)",
            )));
        }
        let mut maker = Maker::new(origins, files, tokenization);
        for told in receiver {
            match told {
                Told::Opened { origin, format } => maker.opened(origin, format),
                Told::Rows { origin, file, rows } => maker.rows(origin, file, rows, sink)?,
                Told::Failed(error) => return Err(error.into()),
            }
        }
        maker.end(sink)
    })
}

/// Reads all files, until the end or until nobody listens.
fn read(origins: &[Origin], sender: &SyncSender<Told>) {
    let mut file = 0;
    for (origin, Origin { files, columns, .. }) in origins.iter().enumerate() {
        for path in files {
            if let Err(told) = read_file(path, columns, (origin, file), sender) {
                let _ = sender.send(told);
                return;
            }
            file += 1;
        }
    }
}

fn read_file(
    path: &Path,
    columns: &Columns,
    (origin, file): (usize, usize),
    sender: &SyncSender<Told>,
) -> Result<(), Told> {
    let mut reader = Reader::open(path, &|column| columns.wants(column)).map_err(Told::Failed)?;
    // What cannot be sent has nobody who listens.
    let send = |told| sender.send(told).map_err(|unsent| unsent.0);
    send(Told::Opened { origin, format: reader.format() })?;
    while let Some(piece) = reader.read().map_err(Told::Failed)? {
        send(Told::Rows { origin, file, rows: piece.rows })?;
    }
    Ok(())
}

/// A completion in the order of learning, with the file and line it comes from.
struct Item {
    origin: u16,
    place: (u32, u64),
    fate: Fate,
}

/// How an origin is read.
struct Read {
    reading: Reading,
    /// What all its rows are, since the first is.
    shape: Shape,
    first: Source,
}

struct Maker<'a> {
    origins: &'a [Origin],
    files: &'a [Arc<Path>],
    tokenization: &'a Tokenization<'a>,
    /// How each origin is read, once its first row is seen.
    read: Vec<Option<Read>>,
    order: Ordered<Item>,
    families: Families,
    entries: Vec<Entry>,
    summary: Summary,
}

impl<'a> Maker<'a> {
    fn new(
        origins: &'a [Origin],
        files: &'a [Arc<Path>],
        tokenization: &'a Tokenization<'a>,
    ) -> Self {
        let count = origins.len();
        let reports = vec![OriginReport::default(); count];
        Maker {
            origins,
            files,
            tokenization,
            read: (0..count).map(|_| None).collect(),
            order: Ordered::new(tokenization.form),
            families: Families::default(),
            entries: Vec::new(),
            summary: Summary { origins: reports, ..Summary::default() },
        }
    }

    fn opened(&mut self, origin: usize, format: &str) {
        let report = &mut self.summary.origins[origin];
        if report.format.is_empty() {
            report.format = format.to_owned();
        }
    }

    fn rows(
        &mut self,
        origin: usize,
        file: usize,
        rows: Vec<RawRow>,
        sink: &mut Sink<'_>,
    ) -> Result<(), Stopped> {
        let path = &self.files[file];
        let source = |row: &RawRow| Source { file: path.clone(), line: row.line };
        let Some(first) = rows.first() else { return Ok(()) };
        let Read { reading, shape, first } = match self.read[origin].take() {
            Some(read) => self.read[origin].insert(read),
            None => {
                let read = self.first(origin, source(first), first.body.clone())?;
                self.read[origin].insert(read)
            }
        };
        let (form, columns) = (self.tokenization.form, &self.origins[origin].columns);
        let tokenized: Vec<Result<Tokenized>> = rows
            .into_par_iter()
            .map(|row| {
                let source = source(&row);
                let row = reading.convert(form, &source, fields(row.body, &source, columns)?)?;
                let row = records::parse(form, source, row)?;
                if row.shape != *shape {
                    return Err(another_shape(&row, *shape, first));
                }
                self.tokenization.row(row)
            })
            .collect();
        let mut ordered = Vec::new();
        // Looked through in order, so that the error reported is always the first one.
        for row in tokenized {
            let row = row?;
            let place = (file as u32, row.source.line as u64);
            let item = |fate| Item { origin: origin as u16, place, fate };
            self.summary.origins[origin].rows += 1;
            self.summary.records += row.completions.len();
            self.order.push(row.completions.into_iter().map(item).collect(), &mut ordered);
        }
        self.write(ordered, sink)
    }

    /// Finds out how an origin is read, by its first row.
    fn first(&mut self, origin: usize, first: Source, body: Body) -> Result<Read> {
        let form = self.tokenization.form;
        let report = &mut self.summary.origins[origin];
        let (reading, row) = detected(&self.origins[origin], form, &first, body, report)?;
        let shape = records::parse(form, first.clone(), reading.convert(form, &first, row)?)?.shape;
        report.conversational = shape.is_conversational();
        if report.conversational {
            self.tokenization.compile()?;
        }
        Ok(Read { reading, shape, first })
    }

    /// Writes completions down in their order.
    fn write(&mut self, items: Vec<Item>, sink: &mut Sink<'_>) -> Result<(), Stopped> {
        for Item { origin, place, fate } in items {
            let kept = match fate {
                Fate::Kept(kept) => kept,
                Fate::Empty => {
                    self.summary.empty.add(place);
                    continue;
                }
                Fate::Half => {
                    self.summary.halves.add(place);
                    continue;
                }
            };
            let family = self.families.add(&kept)?;
            let Kept { whole, prompt, alone, label, .. } = kept;
            self.entries.push(Entry {
                start: sink.push(&whole).map_err(Stopped::Sink)?,
                line: place.1,
                // A row has fewer bytes than 32 bits count, and no token is shorter than a byte.
                whole: whole.len() as u32,
                prompt: prompt as u32,
                family,
                largest: whole.iter().copied().max().unwrap_or(0),
                file: place.0,
                origin,
                label,
                moved: prompt < alone,
            });
        }
        Ok(())
    }

    fn end(mut self, sink: &mut Sink<'_>) -> Result<Made, Stopped> {
        let mut rest = Vec::new();
        self.order.end(&mut rest);
        self.write(rest, sink)?;
        let form = self.tokenization.form;
        if self.summary.records == 0 {
            let names: Vec<String> =
                self.files.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::input(
                format!("there is no record in {}", names.join(", ")),
                form.fields(),
            )
            .into());
        }
        for entry in &mut self.entries {
            entry.family = self.families.root(entry.family);
        }
        if let Some(template) = self.tokenization.template() {
            self.summary.reads_clock = template.reads_clock();
            self.summary.clock = template.clock();
        }
        Ok(Made { entries: self.entries, summary: self.summary })
    }
}

/// How an origin is read, and the values of its first row.
fn detected(
    origin: &Origin,
    form: Form,
    source: &Source,
    body: Body,
    report: &mut OriginReport,
) -> Result<(Reading, Map<String, Value>)> {
    let Origin { reading, columns, .. } = origin;
    columns.check(source, &raw(body.clone(), source)?)?;
    let row = fields(body, source, columns)?;
    let unknown = row.keys().filter(|name| !reading::KNOWN.contains(&name.as_str()));
    report.ignored = unknown.take(NAMED).cloned().collect();
    if *reading != Reading::Auto {
        (report.form, report.why) = (reading.name().to_owned(), "the recipe says so".to_owned());
        return Ok((*reading, row));
    }
    // A row of no form says itself what it lacks.
    let found = reading::detect(form, source, &row)?;
    if let Some(found) = &found {
        report.form = found.name.to_owned();
        report.why = format!("the first row has {}", found.columns.join(", "));
    }
    Ok((found.map_or(Reading::Auto, |found| found.reading), row))
}

fn another_shape(row: &Row, shape: Shape, first: &Source) -> Error {
    Error::input(
        format!("{} is {}, but the first row, {first}, is {shape}", row.source, row.shape),
        "give rows of one form; train on the others in a run of their own, or convert them",
    )
}

/// The values of a row as the file has them.
fn raw(body: Body, source: &Source) -> Result<Map<String, Value>> {
    match body {
        Body::Json(text) => text.parse(source),
        Body::Fields(row) | Body::Cells(row) => Ok(row),
    }
}

/// The values of a row under the names of the forms.
pub(crate) fn fields(body: Body, source: &Source, columns: &Columns) -> Result<Map<String, Value>> {
    let of_text = matches!(body, Body::Cells(_));
    let renamed = columns.rename(raw(body, source)?);
    let row = if of_text { reading::cells(renamed) } else { renamed };
    formats::written(&columns.formats, source, row)
}
