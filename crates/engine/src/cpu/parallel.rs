//! Work split by the size of the problem, never by the number of threads.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Rows that one task takes, so that a task moves about 64 KiB: large enough to pay for its start, small
/// enough that all cores have some.
pub fn rows_per_task(cols: usize) -> usize {
    (16 * 1024 / cols.max(1)).clamp(1, 1024)
}

/// Calls `task` for consecutive ranges of `0..n`, `step` long, in parallel.
pub fn ranges(n: usize, step: usize, task: impl Fn(Range<usize>) + Sync) {
    if n <= step {
        if n > 0 {
            task(0..n);
        }
        return;
    }
    (0..n.div_ceil(step)).into_par_iter().for_each(|i| task(i * step..((i + 1) * step).min(n)));
}

/// Sums `part` over consecutive ranges of `0..n`, `step` long: the parts in parallel, their sum in order.
pub fn sum(n: usize, step: usize, part: impl Fn(Range<usize>) -> f64 + Sync) -> f64 {
    let parts: Vec<f64> = (0..n.div_ceil(step))
        .into_par_iter()
        .map(|i| part(i * step..((i + 1) * step).min(n)))
        .collect();
    parts.iter().sum()
}

/// A mutable slice that several tasks write at places that do not overlap, which the borrow checker cannot see
/// (the columns of one head in a matrix of all heads, say).
pub struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: every access is through `range`, whose caller promises that no two tasks touch the same elements.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Shares `slice` among tasks.
    pub fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Elements `range` of the slice; panics past its end.
    ///
    /// # Safety
    /// While the result lives, no other task may hold a range that overlaps this one.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {} elements",
            self.len
        );
        // SAFETY: inside the slice by the assertion, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
