//! Devices: where tensors live and who does the arithmetic.
//!
//! A [`Device`] is a handle to one arena. On [`Kind::Cpu`] the arena is host memory, on [`Kind::Cuda`] a GPU's,
//! reserved once; on [`Kind::Plan`] it is a pair of counters and every op books its work in a ledger instead of doing
//! it. A plan is made for one of the other two: they differ in what activations are held in and in what the ops take
//! of the arena.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cuda::Cuda;
use crate::cuda::DeviceMemory;
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
    /// A GPU: bf16 activations, f32 accumulation.
    Cuda,
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
    /// The kind itself, or on `plan` the kind that is planned for.
    arithmetic: Kind,
    arena: Mutex<Arena>,
    ledger: Mutex<Ledger>,
    memory: Memory,
    /// The host's memory beside it, where some is planned.
    host: Option<Device>,
}

/// Where the arena's bytes are.
enum Memory {
    Host(HostMemory),
    Gpu {
        cuda: Arc<Cuda>,
        memory: DeviceMemory,
    },
    /// Nowhere.
    Counted,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Memory::Gpu { cuda, memory } = self {
            memory.release(cuda);
        }
    }
}

/// The arena's bytes. All access goes through tensors, each of which owns its span.
struct HostMemory {
    base: *mut u8,
    /// The GPU that copies from and to these pages, which therefore stay where they are.
    pinned: Option<Arc<Cuda>>,
    // Keeps the pages of `base` mapped.
    _pages: memmap2::MmapMut,
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if let Some(cuda) = &self.pinned {
            cuda.unpin(self.base);
        }
    }
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
        Device::in_pages(capacity, None)
    }

    /// Host memory, pinned for the copies of a GPU where there is one.
    fn in_pages(capacity: usize, gpu: Option<&Arc<Cuda>>) -> Result<Device> {
        let capacity = crate::memory::arena::aligned(capacity.max(1));
        let mut pages = memmap2::MmapOptions::new()
            .len(capacity)
            .no_reserve_swap()
            .map_anon()
            .map_err(|error| Error::Reserve { bytes: capacity, reason: error.to_string() })?;
        let base = pages.as_mut_ptr();
        if let Some(cuda) = gpu {
            cuda.pin(base, capacity)?;
        }
        let memory = HostMemory { base, pinned: gpu.cloned(), _pages: pages };
        Ok(Device::new(Kind::Cpu, Kind::Cpu, capacity, Memory::Host(memory), None))
    }

    /// A GPU, with an arena of `capacity` bytes of its memory, reserved now.
    pub fn on_gpu(cuda: Arc<Cuda>, capacity: usize) -> Result<Device> {
        let capacity = crate::memory::arena::aligned(capacity.max(1));
        let memory = DeviceMemory::reserve(&cuda, capacity)?;
        Ok(Device::new(Kind::Cuda, Kind::Cuda, capacity, Memory::Gpu { cuda, memory }, None))
    }

    /// The same with `bytes` of the host's memory beside it, for what waits there while it is not needed. Called before
    /// the handle is cloned.
    pub fn with_host(self, bytes: usize) -> Result<Device> {
        let gpu = match &self.inner.memory {
            Memory::Gpu { cuda, .. } => Some(cuda),
            Memory::Host(_) | Memory::Counted => None,
        };
        let host = Some(Device::in_pages(bytes, gpu)?);
        let Ok(inner) = Arc::try_unwrap(self.inner) else {
            unreachable!("a device gets its host memory before anybody else has it")
        };
        Ok(Device { inner: Arc::new(Inner { host, ..inner }) })
    }

    /// The host's memory beside it: a device of its own. Panics where none was asked for; a plan always has some.
    pub fn host(&self) -> &Device {
        match &self.inner.host {
            Some(host) => host,
            None => unreachable!("host memory is used that was not planned"),
        }
    }

    /// A device that only plans, for `arithmetic`: [`Kind::Cpu`] or [`Kind::Cuda`].
    pub fn plan_for(arithmetic: Kind) -> Device {
        assert_ne!(arithmetic, Kind::Plan, "a plan is for a device that computes");
        let counted = |arithmetic, host| {
            Device::new(Kind::Plan, arithmetic, usize::MAX, Memory::Counted, host)
        };
        counted(arithmetic, Some(counted(Kind::Cpu, None)))
    }

    fn new(
        kind: Kind,
        arithmetic: Kind,
        capacity: usize,
        memory: Memory,
        host: Option<Device>,
    ) -> Device {
        let arena = Mutex::new(Arena::new(capacity));
        let ledger = Mutex::default();
        Device { inner: Arc::new(Inner { kind, arithmetic, arena, ledger, memory, host }) }
    }

    /// Whether two handles are of the same device.
    pub fn is(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// What this device is.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// The kind itself, or on `plan` the kind that is planned for.
    pub fn arithmetic(&self) -> Kind {
        self.inner.arithmetic
    }

    /// What activations are held in.
    pub fn activations(&self) -> DType {
        if self.inner.arithmetic == Kind::Cuda { DType::BF16 } else { DType::F32 }
    }

    /// The GPU. Panics on other devices.
    pub fn cuda(&self) -> &Cuda {
        match &self.inner.memory {
            Memory::Gpu { cuda, .. } => cuda,
            _ => unreachable!("a kernel is launched on {:?}", self.inner.kind),
        }
    }

    /// Waits for a GPU and returns what failed of what it was asked; nothing to do elsewhere.
    pub fn synchronize(&self) -> Result<()> {
        match &self.inner.memory {
            Memory::Gpu { cuda, .. } => cuda.synchronize(),
            _ => Ok(()),
        }
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
        tensor.write(values)?;
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
        let base = match &self.inner.memory {
            Memory::Host(memory) => memory.base,
            Memory::Gpu { memory, .. } => {
                std::ptr::without_provenance_mut(memory.address() as usize)
            }
            Memory::Counted => return std::ptr::null_mut(),
        };
        let offset = match span.end {
            End::Bottom => span.offset,
            End::Top => self.arena().capacity() - span.offset,
        };
        base.wrapping_add(offset)
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
