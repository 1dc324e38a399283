//! `report.html` of a run folder: one file that needs nothing else, made from the run's own files, so that it can be
//! made anew at any time.
//!
//! ```text
//! series   metrics.jsonl as curves     chart   curves as SVG     page   the HTML around them
//! ```

mod chart;
mod page;
mod series;

use std::path::Path;

use ::train::error::Result;
use data::files;
use serde_json::Value;

use series::Series;

/// What a run folder holds by now.
struct Run<'a> {
    /// The folder's name.
    name: String,
    recipe: String,
    /// `run.json`, null where there is none.
    start: Value,
    series: &'a Series,
    /// `summary.json`, null while the run lasts.
    summary: Value,
    /// `answers.json`, null while the run lasts or where none were asked for.
    answers: Value,
}

/// Writes the report of a run, again and again while it lasts: of the metrics it reads each line once.
#[derive(Default)]
pub(crate) struct Report {
    series: Series,
}

impl Report {
    /// Writes the report of the run in `folder` as it is by now.
    pub(crate) fn write(&mut self, folder: &Path) -> Result<()> {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let json = |name: &str| serde_json::from_str(&read(name)).unwrap_or(Value::Null);
        // Without metrics the report says that there are none.
        let _ = self.series.read_on(&folder.join("metrics.jsonl"));
        let run = Run {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            recipe: read("recipe.toml"),
            start: json("run.json"),
            series: &self.series,
            summary: json("summary.json"),
            answers: json("answers.json"),
        };
        let html = page::page(&run);
        files::write_atomically(&folder.join("report.html"), |writer| {
            writer.write_all(html.as_bytes())
        })?;
        Ok(())
    }
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Not allowed in HTML, and nothing to see.
            other if other.is_control() && !matches!(other, '\n' | '\t') => escaped.push('�'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_holds_the_run_escaped_and_asks_nothing_of_the_network() {
        let folder = tempfile::TempDir::new().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("recipe.toml", "[model]\npath = \"<script>alert(1)</script>\"\n");
        put(
            "metrics.jsonl",
            "{\"step\":1,\"loss\":0.5,\"rewards/margins\":0.0}\n{\"step\":1,\"warning\":\"<img> shrank\",\"hint\":\"less\"}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":0.25,\"eval_loss\":0.3}\nbroken",
        );
        put(
            "answers.json",
            r#"{"judged":true,"show":1,"answers":[{"prompt":"<b>?","before":"<i>","after":"&","desirable_before":false,"desirable_after":true}]}"#,
        );
        Report::default().write(folder.path()).unwrap();
        let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert!(html.contains("&lt;b&gt;?") && html.contains("&lt;script&gt;"), "{html}");
        assert!(html.contains("&lt;img&gt; shrank <small>(step 1)</small>"), "{html}");
        for forbidden in
            ["<script", "<img", "<b>?", "http://", "https://", "@import", "url(", "NaN"]
        {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    }

    #[test]
    fn a_report_of_an_empty_folder_says_that_nothing_was_measured() {
        let folder = tempfile::TempDir::new().unwrap();
        Report::default().write(folder.path()).unwrap();
        let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert!(html.contains("Nothing was measured yet"), "{html}");
    }
}
