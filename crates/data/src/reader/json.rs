//! JSON lines (one object per line, blank lines skipped) and one JSON array of objects. Rows are cut out of the
//! text here, one after another, and parsed elsewhere, on many threads.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Body, Input, LONGEST, Piece, RawRow, too_long};
use crate::error::{Error, Result};
use crate::records::Source;

/// The text of a row and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    /// Bytes of its first line that come before it.
    column: usize,
    /// Bytes of the file that come before it.
    offset: usize,
}

/// A place in a text.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// From 1.
    line: usize,
    /// Bytes of the line before it.
    column: usize,
    /// Bytes of the file before it.
    offset: usize,
}

impl At {
    fn pass(&mut self, bytes: &[u8]) {
        self.offset += bytes.len();
        match bytes.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => {
                self.line += bytes.iter().filter(|&&byte| byte == b'\n').count();
                self.column = bytes.len() - last - 1;
            }
            None => self.column += bytes.len(),
        }
    }
}

/// Skips a byte order mark and white space; gives where that ends.
pub(super) fn skip_space(input: &mut Input) -> Result<At> {
    let mut at = At { line: 1, column: 0, offset: 0 };
    if input.peek()?.starts_with("\u{feff}".as_bytes()) {
        input.bytes.consume(3);
        at.offset = 3;
    }
    loop {
        let bytes = input.peek()?;
        let space = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let ends = space < bytes.len() || space == 0;
        at.pass(&bytes[..space]);
        input.bytes.consume(space);
        if ends {
            return Ok(at);
        }
    }
}

/// The rows of JSON lines.
pub(super) struct Lines {
    input: Input,
    at: At,
}

impl Lines {
    pub(super) fn new(input: Input, at: At) -> Lines {
        Lines { input, at }
    }

    pub(super) fn fill(&mut self, piece: &mut Piece) -> Result<()> {
        while !piece.is_full() {
            let mut bytes = Vec::new();
            let most = LONGEST as u64 + 1;
            let read = (&mut self.input.bytes).take(most).read_until(b'\n', &mut bytes);
            let count = read.map_err(|error| self.input.error(&error))?;
            if count == 0 {
                return Ok(());
            }
            let at = self.at;
            self.at = At { line: at.line + 1, column: 0, offset: at.offset + count };
            if count > LONGEST {
                return Err(too_long(&format!("{}:{}", self.input.path.display(), at.line)));
            }
            // As `str::lines` ends a line.
            if bytes.ends_with(b"\n") {
                bytes.pop();
                bytes.truncate(bytes.len() - usize::from(bytes.ends_with(b"\r")));
            }
            let blank = std::str::from_utf8(&bytes).is_ok_and(|text| text.trim().is_empty());
            if !blank {
                let text = Text { bytes, column: at.column, offset: at.offset };
                piece.add(RawRow { line: at.line, body: Body::Json(text) }, count);
            }
        }
        Ok(())
    }
}

/// The elements of a JSON array, cut out by counting brackets outside of strings.
pub(super) struct Array {
    input: Input,
    at: At,
    /// What has been seen of the array.
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    /// Nothing: its bracket comes.
    Nothing,
    /// The bracket that opens it.
    Bracket,
    /// A comma.
    Comma,
    /// The bracket that closes it.
    End,
}

/// How far the cut of an element has come.
struct Element {
    bytes: Vec<u8>,
    start: At,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Array {
    pub(super) fn new(input: Input, at: At) -> Array {
        Array { input, at, seen: Seen::Nothing }
    }

    pub(super) fn fill(&mut self, piece: &mut Piece) -> Result<()> {
        if self.seen == Seen::Nothing {
            self.take(1); // the bracket, which the caller has seen
            self.seen = Seen::Bracket;
        }
        while !piece.is_full() && self.seen != Seen::End {
            let Some(element) = self.element()? else { continue };
            let (line, count) = (element.start.line, element.bytes.len());
            let Element { bytes, start, .. } = element;
            let text = Text { bytes, column: start.column, offset: start.offset };
            piece.add(RawRow { line, body: Body::Json(text) }, count);
        }
        if self.seen == Seen::End {
            self.space()?;
            if !self.input.peek()?.is_empty() {
                return Err(self.malformed("trailing characters"));
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) {
        let bytes = &self.input.bytes.buffer()[..count];
        self.at.pass(bytes);
        self.input.bytes.consume(count);
    }

    fn space(&mut self) -> Result<()> {
        loop {
            let bytes = self.input.peek()?;
            let space = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let ends = space < bytes.len() || space == 0;
            self.take(space);
            if ends {
                return Ok(());
            }
        }
    }

    /// The next element with the comma or bracket behind it; none where the array ends.
    fn element(&mut self) -> Result<Option<Element>> {
        self.space()?;
        let mut element = Element {
            bytes: Vec::new(),
            start: self.at,
            depth: 0,
            in_string: false,
            escaped: false,
        };
        loop {
            let bytes = self.input.peek()?;
            if bytes.is_empty() {
                return Err(self.cut_short(&element));
            }
            let end = element.end(bytes);
            let count = end.unwrap_or(bytes.len());
            let closing = end.map(|end| bytes[end]);
            element.bytes.extend_from_slice(&bytes[..count]);
            self.take(count);
            if element.bytes.len() > LONGEST {
                return Err(too_long(&format!(
                    "{}:{}",
                    self.input.path.display(),
                    element.start.line
                )));
            }
            let Some(closing) = closing else { continue };
            let empty = element.bytes.is_empty();
            self.take(1);
            let before = std::mem::replace(
                &mut self.seen,
                if closing == b',' { Seen::Comma } else { Seen::End },
            );
            return match (empty, closing, before) {
                (false, ..) => Ok(Some(element)),
                (true, b']', Seen::Bracket) => Ok(None),
                (true, b']', _) => Err(self.malformed("trailing comma")),
                (true, ..) => Err(self.malformed("expected value")),
            };
        }
    }

    fn malformed(&self, reason: &str) -> Error {
        let place =
            format!("{}:{}, column {}", self.input.path.display(), self.at.line, self.at.column);
        malformed(&place, reason)
    }

    /// The file ends before the array does.
    fn cut_short(&self, element: &Element) -> Error {
        match serde_json::from_slice::<serde::de::IgnoredAny>(&element.bytes) {
            Err(error) if !element.bytes.is_empty() => {
                let file: Arc<Path> = Arc::from(self.input.path.as_path());
                not_json(&error, &file, element.start.line, element.start.column)
            }
            Err(_) if self.seen == Seen::Comma => self.malformed("EOF while parsing a value"),
            _ => self.malformed("EOF while parsing a list"),
        }
    }
}

impl Element {
    /// Where the element ends in the next bytes, if it does.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b',' | b']' if self.depth == 0 => return Some(index),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }
}

impl Text {
    /// The object that the text is.
    pub(crate) fn parse(&self, source: &Source) -> Result<Map<String, Value>> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let valid = error.valid_up_to();
            let lines = self.bytes[..valid].iter().filter(|&&byte| byte == b'\n').count();
            Error::input(
                format!(
                    "{}:{} is not UTF-8 text (byte {} of the file)",
                    source.file.display(),
                    source.line + lines,
                    self.offset + valid
                ),
                "save the file as UTF-8, for example with `iconv -t UTF-8`",
            )
        })?;
        let value = serde_json::from_str(text)
            .map_err(|error| not_json(&error, &source.file, source.line, self.column))?;
        match value {
            Value::Object(map) => Ok(map),
            other => Err(Error::input(
                format!("{source} is {}, not an object", kind(&other)),
                "each row is an object such as {\"prompt\": \"...\", \"completion\": \"...\", \"label\": true}",
            )),
        }
    }
}

/// A text that is not JSON; it begins at a line, behind so many bytes of it.
fn not_json(error: &serde_json::Error, file: &Arc<Path>, line: usize, column: usize) -> Error {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    let column = error.column() + if error.line() <= 1 { column } else { 0 };
    let line = line + error.line().max(1) - 1;
    malformed(&format!("{}:{line}, column {column}", file.display()), reason)
}

fn malformed(place: &str, reason: &str) -> Error {
    Error::input(
        format!("malformed JSON at {place}: {reason}"),
        "each line of a JSONL file is one whole JSON object; a file that begins with '[' is one JSON array",
    )
}

/// What a JSON value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
