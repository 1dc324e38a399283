//! `metrics.jsonl` as curves by name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::curve::Curve;

/// What was measured, by name: (step, value), a value that was not finite as NaN.
#[derive(Default)]
pub(super) struct Series {
    curves: BTreeMap<String, Curve>,
    /// The last value of each that is finite.
    lasts: BTreeMap<String, f64>,
    /// Bytes of the file that were read.
    read: u64,
    last_step: usize,
    last_epoch: f64,
    warnings: Vec<Warning>,
}

/// Warnings that are shown; metrics.jsonl has all.
const WARNINGS: usize = 50;

/// What was warned of, after which step (0: before the first), and what to do.
pub(super) struct Warning {
    pub(super) step: u64,
    pub(super) what: String,
    pub(super) hint: String,
}

impl Series {
    /// Reads the lines that came since the last call; one that is not whole, because it is being written, is left for
    /// the next.
    pub(super) fn read_on(&mut self, path: &Path) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.read += line.len() as u64;
            self.take(&line);
            line.clear();
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) {
        let Ok(Value::Object(line)) = serde_json::from_slice(line) else { return };
        let Some(step) = line.get("step").and_then(Value::as_u64) else { return };
        if let Some(what) = line.get("warning").and_then(Value::as_str) {
            let hint = line.get("hint").and_then(Value::as_str).unwrap_or_default();
            let (what, hint) = (what.to_owned(), hint.to_owned());
            if self.warnings.len() < WARNINGS {
                self.warnings.push(Warning { step, what, hint });
            }
            return;
        }
        self.last_step = self.last_step.max(step as usize);
        for (name, value) in line {
            let value = value.as_f64().unwrap_or(f64::NAN);
            match name.as_str() {
                "step" => {}
                "epoch" => self.last_epoch = value,
                _ => {
                    if value.is_finite() {
                        self.lasts.insert(name.clone(), value);
                    }
                    self.curves.entry(name).or_insert_with(Curve::new).push(step as f64, value);
                }
            }
        }
    }

    /// A curve, where there is one.
    pub(super) fn get(&self, name: &str) -> Option<&[(f64, f64)]> {
        self.curves.get(name).map(Curve::points)
    }

    /// Its last value that is finite.
    pub(super) fn last(&self, name: &str) -> Option<f64> {
        self.lasts.get(name).copied()
    }

    /// What was warned of, in order.
    pub(super) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Steps done.
    pub(super) fn last_step(&self) -> usize {
        self.last_step
    }

    /// How often the data has been seen.
    pub(super) fn last_epoch(&self) -> f64 {
        self.last_epoch
    }
}

/// At most `most` points, each the mean of its share; a share without a finite value is NaN.
pub(super) fn thin(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    if points.len() <= most {
        return points.to_vec();
    }
    let mean = |part: &[(f64, f64)]| {
        let finite: Vec<f64> =
            part.iter().map(|(_, value)| *value).filter(|value| value.is_finite()).collect();
        let step = part.iter().map(|(step, _)| step).sum::<f64>() / part.len() as f64;
        (step, finite.iter().sum::<f64>() / finite.len() as f64)
    };
    (0..most)
        .map(|i| mean(&points[i * points.len() / most..(i + 1) * points.len() / most]))
        .collect()
}

/// A running mean over about a twentieth of the curve, both ways, so that it lags behind nothing.
pub(super) fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    let around = |i: usize| {
        let window = &points[i.saturating_sub(reach)..(i + reach + 1).min(points.len())];
        let finite: Vec<f64> =
            window.iter().map(|(_, value)| *value).filter(|value| value.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len() as f64
    };
    points.iter().enumerate().map(|(i, (step, _))| (*step, around(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_and_smoothing_keep_a_constant_and_its_gaps() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 2.0)).collect();
        let thinned = thin(&points, 100);
        assert_eq!((thinned.len(), thinned[0]), (100, (4.5, 2.0)));
        assert!(smooth(&thinned).iter().all(|(_, value)| *value == 2.0));
        assert!(smooth(&[(1.0, f64::NAN)])[0].1.is_nan());
        assert!(smooth(&[]).is_empty());
    }
}
