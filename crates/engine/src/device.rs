//! Devices: where tensors live and who does the arithmetic.
//!
//! A [`Device`] is a handle to one arena. On [`Kind::Cpu`] the arena is host memory, reserved once; on
//! [`Kind::Plan`] it is a pair of counters and every op books its work in a ledger instead of doing it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::memory::arena::{Arena, Bytes, Category, End, Span};
use crate::memory::ledger::Ledger;
use crate::tensor::{Shape, Tensor};

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// f32 arithmetic on all cores of the host.
    Cpu,
    /// A ledger: no memory, no arithmetic.
    Plan,
}

/// A handle to a device; clones share it.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    kind: Kind,
    arena: Mutex<Arena>,
    ledger: Mutex<Ledger>,
    memory: Option<HostMemory>,
}

/// The arena's bytes. All access goes through tensors, each of which owns its span.
struct HostMemory {
    base: *mut u8,
    // Keeps the pages of `base` mapped.
    _pages: memmap2::MmapMut,
}

// SAFETY: `base` is only turned into slices by tensors whose spans do not overlap, and those follow Rust's
// borrow rules; the mapping itself is never resized or unmapped before the last handle is gone.
#[allow(unsafe_code)]
unsafe impl Send for HostMemory {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for HostMemory {}

impl Device {
    /// The CPU, with an arena of `capacity` bytes. The pages are taken from the operating system when they are
    /// first touched.
    pub fn cpu(capacity: usize) -> Result<Device> {
        let capacity = crate::memory::arena::aligned(capacity.max(1));
        let mut pages = memmap2::MmapOptions::new()
            .len(capacity)
            .no_reserve_swap()
            .map_anon()
            .map_err(|error| Error::Reserve { bytes: capacity, reason: error.to_string() })?;
        let memory = HostMemory { base: pages.as_mut_ptr(), _pages: pages };
        Ok(Device::new(Kind::Cpu, capacity, Some(memory)))
    }

    /// A device that only plans.
    pub fn plan() -> Device {
        Device::new(Kind::Plan, usize::MAX, None)
    }

    fn new(kind: Kind, capacity: usize, memory: Option<HostMemory>) -> Device {
        let arena = Mutex::new(Arena::new(capacity));
        Device { inner: Arc::new(Inner { kind, arena, ledger: Mutex::default(), memory }) }
    }

    /// What this device is.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// True on the device that does no arithmetic.
    pub fn is_plan(&self) -> bool {
        self.inner.kind == Kind::Plan
    }

    /// A tensor that lives through the run. Its contents are undefined.
    pub fn persistent(
        &self,
        shape: impl Into<Shape>,
        dtype: DType,
        category: Category,
    ) -> Result<Tensor> {
        self.take(End::Bottom, shape.into(), dtype, category)
    }

    /// A tensor on the step's stack. Its contents are undefined.
    pub fn scratch(
        &self,
        shape: impl Into<Shape>,
        dtype: DType,
        category: Category,
    ) -> Result<Tensor> {
        self.take(End::Top, shape.into(), dtype, category)
    }

    /// A vector of `values` on the step's stack.
    pub fn upload<T: Element>(&self, values: &[T]) -> Result<Tensor> {
        let mut tensor = self.scratch((values.len(), 1), T::DTYPE, Category::Workspace)?;
        if !self.is_plan() {
            tensor.as_mut_slice::<T>().copy_from_slice(values);
        }
        Ok(tensor)
    }

    fn take(&self, end: End, shape: Shape, dtype: DType, category: Category) -> Result<Tensor> {
        let bytes = shape.len() * dtype.bytes();
        let mut arena = self.arena();
        let capacity = arena.capacity();
        let span = arena.take(end, bytes, category).map_err(|free| Error::OutOfMemory {
            requested: bytes,
            purpose: category.name(),
            free,
            capacity,
        })?;
        drop(arena);
        Ok(Tensor::new(self.clone(), span, self.address(span), shape, dtype))
    }

    fn address(&self, span: Span) -> *mut u8 {
        let Some(memory) = &self.inner.memory else { return std::ptr::null_mut() };
        let offset = match span.end {
            End::Bottom => span.offset,
            End::Top => self.arena().capacity() - span.offset,
        };
        memory.base.wrapping_add(offset)
    }

    pub(crate) fn give(&self, span: Span) {
        self.arena().give(span);
    }

    /// Books one call of `op` on `plan`; nothing elsewhere.
    pub fn book(&self, op: &'static str, flops: f64, traffic: f64) {
        if self.is_plan() {
            self.inner
                .ledger
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .book(op, flops, traffic);
        }
    }

    /// The ledger so far.
    pub fn ledger(&self) -> Ledger {
        self.inner.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The most bytes of the arena that were in use at one time.
    pub fn peak_bytes(&self) -> usize {
        self.arena().peak()
    }

    /// What the bytes of the peak were for.
    pub fn peak_by_category(&self) -> Bytes {
        self.arena().at_peak()
    }

    /// Bytes of the arena in use now.
    pub fn used_bytes(&self) -> usize {
        self.arena().used()
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        // A panic while the lock is held cannot leave the counters half changed.
        self.inner.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
