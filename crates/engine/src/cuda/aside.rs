//! Copies between the GPU and pinned host memory that go on beside the computation, on a stream of their own.

use cudarc::driver::sys;

use super::context::{Cuda, check};
use crate::error::Result;

/// The stream of copies, and the two events that order it with the compute stream.
pub(super) struct Copies {
    stream: sys::CUstream,
    /// The computation has come so far.
    computed: sys::CUevent,
    /// The copies have come so far.
    copied: sys::CUevent,
}

impl Copies {
    /// In the context that is current.
    #[allow(unsafe_code)]
    pub(super) fn new() -> Result<Copies> {
        let (mut stream, mut computed, mut copied) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let beside = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let untimed = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the pointers are to live values.
        unsafe {
            check("cuStreamCreate", sys::cuStreamCreate(&mut stream, beside))?;
            check("cuEventCreate", sys::cuEventCreate(&mut computed, untimed))?;
            check("cuEventCreate", sys::cuEventCreate(&mut copied, untimed))?;
        }
        Ok(Copies { stream, computed, copied })
    }

    /// Waits for the copies and gives the handles back; nothing is copied afterwards.
    #[allow(unsafe_code)]
    pub(super) fn release(&self) {
        // SAFETY: the handles are this struct's own, and its owner is being dropped.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
            let _ = sys::cuEventDestroy_v2(self.computed);
            let _ = sys::cuEventDestroy_v2(self.copied);
            let _ = sys::cuStreamDestroy_v2(self.stream);
        }
    }
}

impl Cuda {
    /// Pins pages of the host, so that copies need no staging and the computation goes on meanwhile, and kernels read them.
    #[allow(unsafe_code)]
    pub(crate) fn pin(&self, at: *mut u8, bytes: usize) -> Result<()> {
        self.make_current()?;
        let flags = sys::CU_MEMHOSTREGISTER_DEVICEMAP;
        // SAFETY: the caller owns the pages, and gives them back only after `unpin`.
        check("cuMemHostRegister", unsafe { sys::cuMemHostRegister_v2(at.cast(), bytes, flags) })
    }

    /// The end of [`Cuda::pin`]; waits for copies that are under way.
    #[allow(unsafe_code)]
    pub(crate) fn unpin(&self, at: *mut u8) {
        if self.make_current().is_ok() {
            // SAFETY: the pages were pinned by `pin`. Errors do not matter: the process is ending, or will say so later.
            unsafe {
                let _ = sys::cuStreamSynchronize(self.copies.stream);
                let _ = sys::cuMemHostUnregister(at.cast());
            }
        }
    }

    /// Copies to pinned host memory what the computation queued so far leaves at `from`.
    #[allow(unsafe_code)]
    pub(crate) fn copy_aside_down(&self, to: *mut u8, from: u64, bytes: usize) -> Result<()> {
        self.aside(|stream| {
            // SAFETY: the caller owns both places and changes neither before it waits for the copies.
            let result = unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, bytes, stream) };
            check("cuMemcpyDtoH", result)
        })
    }

    /// Copies from pinned host memory to a place that the computation queued so far has left.
    #[allow(unsafe_code)]
    pub(crate) fn copy_aside_up(&self, to: u64, from: *const u8, bytes: usize) -> Result<()> {
        self.aside(|stream| {
            // SAFETY: the caller owns both places and reads neither before it waits for the copies.
            let result = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), bytes, stream) };
            check("cuMemcpyHtoD", result)
        })
    }

    /// What is queued from now on begins when the copies queued so far are done.
    #[allow(unsafe_code)]
    pub(crate) fn wait_for_copies(&self) -> Result<()> {
        self.make_current()?;
        // SAFETY: stream and event live as long as `self`; an event that was never recorded is no wait.
        check("cuStreamWaitEvent", unsafe {
            sys::cuStreamWaitEvent(self.stream(), self.copies.copied, 0)
        })
    }

    /// Queues a copy behind the computation queued so far.
    #[allow(unsafe_code)]
    fn aside(&self, copy: impl FnOnce(sys::CUstream) -> Result<()>) -> Result<()> {
        self.make_current()?;
        let Copies { stream, computed, copied } = self.copies;
        // SAFETY: streams and events live as long as `self`.
        unsafe {
            check("cuEventRecord", sys::cuEventRecord(computed, self.stream()))?;
            check("cuStreamWaitEvent", sys::cuStreamWaitEvent(stream, computed, 0))?;
            copy(stream)?;
            check("cuEventRecord", sys::cuEventRecord(copied, stream))
        }
    }
}
