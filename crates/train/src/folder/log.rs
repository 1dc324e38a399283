//! `metrics.jsonl` and `bad-batches.jsonl`: a line an event, appended as it happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};

use data::files;
use serde_json::{Map, Number, Value};

use super::Folder;
use crate::error::{Error, Result};
use crate::event::Metrics;

const METRICS: &str = "metrics.jsonl";
const WARNING: &str = "warning";

impl Folder {
    /// Appends one optimizer step's metrics.
    pub fn append_metrics(&self, step: usize, epoch: f64, metrics: &Metrics) -> Result<()> {
        let mut object = Map::new();
        object.insert("step".to_owned(), step.into());
        object.insert("epoch".to_owned(), epoch.into());
        for (name, value) in metrics {
            // JSON has no word for what is not finite; null says that there was no number.
            let value = Number::from_f64(*value).map_or(Value::Null, Into::into);
            object.insert(name.clone(), value);
        }
        self.append(METRICS, &Value::Object(object).to_string())
    }

    /// Appends what was warned of after step `step`; 0 is before the first.
    pub fn append_warning(&self, step: usize, text: &str) -> Result<()> {
        self.append(METRICS, &warning_line(step, text))
    }

    /// The metrics of each step that was measured, in order, with its number.
    pub fn each_step(&self, mut see: impl FnMut(usize, &Metrics)) -> Result<()> {
        let path = self.path.join(METRICS);
        if !path.exists() {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Error::machine(
                format!("cannot read '{}': {error}", path.display()),
                "check the disk; the metrics of the steps before are in it",
            )
        };
        for line in BufReader::new(File::open(&path).map_err(failed)?).split(b'\n') {
            let line: Option<Value> = serde_json::from_slice(&line.map_err(failed)?).ok();
            let Some(Value::Object(line)) = line else { continue };
            let Some(step) = line.get("step").and_then(Value::as_u64) else { continue };
            if line.contains_key(WARNING) {
                continue;
            }
            let measured = |(name, value): (String, Value)| Some((name, value.as_f64()?));
            let kept = |(name, _): &(String, f64)| name != "step" && name != "epoch";
            let metrics: Metrics = line.into_iter().filter_map(measured).filter(kept).collect();
            see(step as usize, &metrics);
        }
        Ok(())
    }

    /// Appends a line to a file of the run.
    pub fn append(&self, name: &str, line: &str) -> Result<()> {
        let path = self.path.join(name);
        let append = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        append().map_err(|error| files::cannot_write(&path, &error).into())
    }

    /// Drops what was measured after step `step`: the run goes on from there. `warnings` are those of before the
    /// first step: a run that was stopped right then may lack some.
    pub fn cut_metrics(&self, step: usize, warnings: &[String]) -> Result<()> {
        let head: String =
            warnings.iter().map(|text| format!("{}\n", warning_line(0, text))).collect();
        for (name, head) in [(METRICS, head.as_str()), ("bad-batches.jsonl", "")] {
            let path = self.path.join(name);
            let text = match fs::read(&path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(_) if head.is_empty() => continue,
                Err(_) => String::new(),
            };
            let kept = |line: &&str| {
                let value: Option<Value> = serde_json::from_str(line).ok();
                value
                    .and_then(|value| value.get("step")?.as_u64())
                    .is_some_and(|at| (1..=step as u64).contains(&at))
            };
            let lines: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
            files::write_atomically(&path, |writer| {
                writer.write_all(head.as_bytes())?;
                writer.write_all(lines.as_bytes())
            })?;
        }
        Ok(())
    }
}

fn warning_line(step: usize, text: &str) -> String {
    let (warning, hint) = text.split_once("\n  hint: ").unwrap_or((text, ""));
    serde_json::json!({"step": step, WARNING: warning, "hint": hint}).to_string()
}
