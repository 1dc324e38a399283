//! The two streams: results go to stdout, everything about how they come to be goes to stderr. Colour only where
//! the stream is a terminal and NO_COLOR is not set, and never as the only bearer of a meaning.

use std::io::{self, Write};

use console::Style;

/// Writes a line to stderr. A reader that went away is no reason to stop training.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes a line to stdout. A reader that went away (`| head`) has read enough.
pub(crate) fn print(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A style for stderr.
pub(crate) fn on_stderr() -> Style {
    Style::new().for_stderr()
}

/// A style for stdout.
pub(crate) fn on_stdout() -> Style {
    Style::new().for_stdout()
}

/// Columns of the terminal that stdout is shown in, as far as it is known.
pub(crate) fn width() -> usize {
    columns(&console::Term::stdout())
}

/// The same of stderr.
pub(crate) fn stderr_width() -> usize {
    columns(&console::Term::stderr())
}

fn columns(terminal: &console::Term) -> usize {
    let known = terminal.size_checked().map(|(_, columns)| usize::from(columns));
    let written = || std::env::var("COLUMNS").ok()?.parse().ok();
    known.or_else(written).unwrap_or(100).clamp(40, 140)
}
