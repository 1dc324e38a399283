//! Measuring which algorithm of cuBLASLt computes a product fastest. Only `prospect tune` does it: a run takes what
//! the [table](super::table) says, so that it takes the same every time.
//!
//! The first time a [`Key`] is met, the heuristic is asked for several answers, and each is timed on the operands of
//! that very product. A time is the shortest of three launches after one to warm up, between two events on the compute
//! stream. Before each, the workspace is set to zero: the GPU is busy with that until the launch is queued, so the time
//! is the kernel's and not the host's, and the operands have to come from memory, as in a step. The fastest of many is
//! in part a lucky one, so it is timed a second time beside the first answer, and taken only if it is faster again.

#![allow(unsafe_code)] // every call of the driver is one

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys;

use super::functions::{Algorithm, INVALID_VALUE, NOT_SUPPORTED};
use super::key::Key;
use super::table::{self, Choice};
use super::{Blas, Failure, Prepared};
use crate::cuda::Cuda;
use crate::cuda::context::check;
use crate::cuda::gemm::{Layout, Product, fault};
use crate::error::Result;

/// Launches of an algorithm that are timed.
const LAUNCHES: usize = 3;
/// How often the workspace is set to zero before the first of them, besides once before each.
const AHEAD: usize = 4;
/// The heuristic's first answer stays unless another takes less than this share of its time.
const FASTER: f64 = 0.99;

/// A product that was met while tuning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Which of a layer's products.
    pub layout: Layout,
    /// Rows, rounded up to their bucket.
    pub rows: usize,
    /// Outputs of the layer.
    pub m: usize,
    /// Inputs of the layer.
    pub k: usize,
    /// True where the result is f32, false where it is bf16.
    pub wide: bool,
    /// True where the product is added to the result's old value.
    pub add: bool,
    /// Algorithms that were timed; 0 where Prospect's own kernels compute it.
    pub candidates: usize,
    /// The chosen one's place among the heuristic's answers, from 0.
    pub candidate: usize,
    /// Microseconds of the heuristic's first answer.
    pub first: f64,
    /// Microseconds of the chosen one.
    pub chosen: f64,
    /// How often the product was asked for.
    pub met: usize,
}

/// What is kept while tuning.
pub(super) struct Tuning {
    /// How many answers the heuristic is asked for.
    candidates: usize,
    met: Mutex<Met>,
}

#[derive(Default)]
struct Met {
    /// In the order they were met.
    all: Vec<(Measured, Option<Choice>)>,
    places: HashMap<Key, usize>,
}

/// Where a table was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The table.
    pub path: PathBuf,
    /// Where the one before it was moved, if there was one.
    pub kept: Option<PathBuf>,
}

impl Blas {
    /// From here on every product is measured when it is first met, and no table is heeded.
    pub(crate) fn start_tuning(&self, candidates: usize) {
        let fresh = Tuning { candidates: candidates.max(1), met: Mutex::default() };
        if self.tuning.set(fresh).is_ok() {
            let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            prepared.drain().for_each(|(_, entry)| self.destroy(&entry));
        }
    }

    /// While tuning: measures a product that was not met before, and counts it. What it adds to is left as it was, but
    /// for rounding. The context is current.
    pub(crate) fn tune(&self, cuda: &Cuda, product: &Product) -> Result<()> {
        let Some(tuning) = self.tuning.get() else { return Ok(()) };
        let mut met = tuning.met.lock().unwrap_or_else(PoisonError::into_inner);
        let Met { all, places } = &mut *met;
        let key = Key::of(product);
        let place = match places.entry(key) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                let mut entry = self.describe(&key).map_err(fault)?;
                let measured =
                    match self.measure(cuda, product, &key, &mut entry, tuning.candidates) {
                        Ok(measured) => measured,
                        Err(error) => {
                            self.destroy(&entry);
                            return Err(error);
                        }
                    };
                let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
                prepared.insert(key, entry);
                all.push(measured);
                *place.insert(all.len() - 1)
            }
        };
        all[place].0.met += 1;
        Ok(())
    }

    /// What was met since [`Blas::start_tuning`].
    pub(crate) fn measured(&self) -> Vec<Measured> {
        let Some(tuning) = self.tuning.get() else { return Vec::new() };
        let met = tuning.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.all.iter().map(|(measured, _)| *measured).collect()
    }

    /// Writes the choices since [`Blas::start_tuning`] as the table that is read from now on.
    pub(crate) fn write_table(&self, path: &Path) -> io::Result<Written> {
        let choices: Vec<Choice> = match self.tuning.get() {
            None => Vec::new(),
            Some(tuning) => {
                let met = tuning.met.lock().unwrap_or_else(PoisonError::into_inner);
                met.all.iter().filter_map(|(_, choice)| *choice).collect()
            }
        };
        let kept = table::write(path, &self.scope, &choices)?;
        Ok(Written { path: path.to_path_buf(), kept })
    }

    /// Times the heuristic's answers and puts the fastest into `entry`.
    fn measure(
        &self,
        cuda: &Cuda,
        product: &Product,
        key: &Key,
        entry: &mut Prepared,
        candidates: usize,
    ) -> Result<(Measured, Option<Choice>)> {
        let answers = self.ask(key, entry, candidates).map_err(fault)?;
        // Where all refuse this row count, it gets an algorithm of its own, as in a run.
        entry.algorithm = answers.first().copied();
        self.set_rows(key.layout, entry, product.n).map_err(fault)?;
        let watch = Stopwatch::new(cuda)?;
        let mut timed = Vec::new();
        for (candidate, algorithm) in answers.iter().enumerate() {
            if let Some(time) = self.time(&watch, product, entry, algorithm)? {
                timed.push((candidate, time));
            }
        }
        let times: Vec<f64> = timed.iter().map(|(_, time)| *time).collect();
        let mut measured = Measured {
            layout: key.layout,
            rows: key.rows,
            m: key.m,
            k: key.k,
            wide: key.wide,
            add: key.add,
            candidates: timed.len(),
            candidate: 0,
            first: 0.0,
            chosen: 0.0,
            met: 0,
        };
        let Some(fastest) = fastest(&times) else { return Ok((measured, None)) };
        let (first, mut chosen) = (timed[0], timed[fastest]);
        (measured.first, measured.chosen) = (first.1, chosen.1);
        if fastest > 0 {
            let again = |(candidate, before): (usize, f64)| -> Result<f64> {
                let time = self.time(&watch, product, entry, &answers[candidate])?;
                Ok(time.unwrap_or(before))
            };
            (measured.first, measured.chosen) = (again(first)?, again(chosen)?);
            if !is_faster(measured.chosen, measured.first) {
                (chosen, measured.chosen) = (first, measured.first);
            }
        }
        measured.candidate = chosen.0;
        let algorithm = answers[chosen.0];
        entry.algorithm = Some(algorithm);
        let Measured { candidate, first, chosen, .. } = measured;
        Ok((measured, Some(Choice { key: *key, candidate, first, chosen, algorithm })))
    }

    /// Microseconds that an algorithm takes; none where it refuses the product.
    fn time(
        &self,
        watch: &Stopwatch<'_>,
        product: &Product,
        entry: &Prepared,
        algorithm: &Algorithm,
    ) -> Result<Option<f64>> {
        let cuda = watch.cuda;
        // What one launch adds the next takes away: an even number of launches.
        let mut alpha = product.alpha;
        let mut launch = || {
            let product = Product { alpha, ..*product };
            alpha = -alpha;
            match self.launch(&product, entry, algorithm, cuda.stream().cast()) {
                Ok(()) => Ok(true),
                Err(Failure { status: NOT_SUPPORTED | INVALID_VALUE, .. }) => Ok(false),
                Err(failure) => Err(fault(failure)),
            }
        };
        if !launch()? {
            return Ok(None);
        }
        let busy = || cuda.zero(product.workspace, self.workspace_bytes);
        (0..AHEAD).for_each(|_| busy());
        for lap in 0..LAUNCHES {
            busy();
            watch.start(lap)?;
            if !launch()? {
                return Ok(None);
            }
            watch.stop(lap)?;
        }
        watch.shortest().map(Some)
    }
}

/// The place of the shortest time, or 0 where it is not [`FASTER`] than the first; none of none.
fn fastest(times: &[f64]) -> Option<usize> {
    let first = *times.first()?;
    let shortest = (0..times.len()).min_by(|a, b| times[*a].total_cmp(&times[*b]))?;
    Some(if is_faster(times[shortest], first) { shortest } else { 0 })
}

/// Whether a time is so much shorter that the difference counts.
fn is_faster(time: f64, first: f64) -> bool {
    time < FASTER * first
}

/// Events around the launches of an algorithm.
struct Stopwatch<'a> {
    cuda: &'a Cuda,
    /// Start and end of each; null where it was not made.
    events: [[sys::CUevent; 2]; LAUNCHES],
}

impl Stopwatch<'_> {
    fn new(cuda: &Cuda) -> Result<Stopwatch<'_>> {
        let mut watch = Stopwatch { cuda, events: [[std::ptr::null_mut(); 2]; LAUNCHES] };
        let timed = sys::CUevent_flags::CU_EVENT_DEFAULT as u32;
        for event in watch.events.iter_mut().flatten() {
            // SAFETY: the pointer is to a place for an event; the context is current.
            check("cuEventCreate", unsafe { sys::cuEventCreate(event, timed) })?;
        }
        Ok(watch)
    }

    fn start(&self, lap: usize) -> Result<()> {
        self.record(self.events[lap][0])
    }

    fn stop(&self, lap: usize) -> Result<()> {
        self.record(self.events[lap][1])
    }

    fn record(&self, event: sys::CUevent) -> Result<()> {
        // SAFETY: the event and the stream live.
        check("cuEventRecord", unsafe { sys::cuEventRecord(event, self.cuda.stream()) })
    }

    /// Waits for the last launch; microseconds of the shortest.
    fn shortest(&self) -> Result<f64> {
        let mut shortest = f64::INFINITY;
        for [start, end] in self.events {
            let mut milliseconds = 0.0f32;
            // SAFETY: both events live and were recorded, the pointer is to a live value.
            unsafe {
                check("cuEventSynchronize", sys::cuEventSynchronize(end))?;
                let read = sys::cuEventElapsedTime(&mut milliseconds, start, end);
                check("cuEventElapsedTime", read)?;
            }
            shortest = shortest.min(1000.0 * f64::from(milliseconds));
        }
        Ok(shortest)
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        for event in self.events.into_iter().flatten().filter(|event| !event.is_null()) {
            // SAFETY: made by `new`, and used by nobody else. The driver frees it once it has happened.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_is_taken_and_the_first_where_the_difference_is_noise() {
        assert_eq!(fastest(&[]), None);
        for (times, chosen) in [
            (&[10.0][..], 0),
            (&[10.0, 12.0, 9.0, 8.0], 3),
            (&[10.0, 9.95], 0),
            (&[10.0, 9.905, 9.91], 0),
            (&[10.0, 9.89], 1),
            (&[10.0, 8.0, 8.0], 1),
            (&[0.0, 0.0], 0),
        ] {
            assert_eq!(fastest(times), Some(chosen), "{times:?}");
        }
    }
}
