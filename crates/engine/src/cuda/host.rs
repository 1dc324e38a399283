//! The GPU's memory, and copies between it and the host.

use cudarc::driver::sys;

use super::context::{Cuda, check};
use crate::error::Result;

/// A block of the GPU's memory.
pub(crate) struct DeviceMemory {
    address: u64,
}

impl DeviceMemory {
    /// Takes `bytes` of the GPU's memory.
    #[allow(unsafe_code)]
    pub(crate) fn reserve(cuda: &Cuda, bytes: usize) -> Result<DeviceMemory> {
        cuda.make_current()?;
        let mut address = 0;
        // SAFETY: the pointer is to a live value.
        check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&mut address, bytes) })?;
        Ok(DeviceMemory { address })
    }

    /// Its first byte.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Gives it back.
    #[allow(unsafe_code)]
    pub(crate) fn release(&self, cuda: &Cuda) {
        if cuda.make_current().is_ok() {
            // SAFETY: the address is one that `reserve` got, and the caller is its only owner.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

impl Cuda {
    /// Copies bytes to the GPU, ordered by the compute stream; the source may be changed on return.
    #[allow(unsafe_code)]
    pub(crate) fn copy_up(&self, to: u64, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        self.make_current()?;
        // SAFETY: the caller owns `from.len()` bytes at `to`. The source is pageable
        // memory, which the driver copies through its own staging before it returns.
        unsafe {
            let pointer = from.as_ptr().cast();
            let copied = sys::cuMemcpyHtoDAsync_v2(to, pointer, from.len(), self.stream());
            check("cuMemcpyHtoD", copied)
        }
    }

    /// Waits for the compute stream and copies bytes from the GPU.
    #[allow(unsafe_code)]
    pub(crate) fn copy_down(&self, to: &mut [u8], from: u64) -> Result<()> {
        self.make_current()?;
        if !to.is_empty() {
            // SAFETY: the caller owns `to.len()` bytes at `from`; the wait below ends the copy before `to` is read.
            let result = unsafe {
                let pointer = to.as_mut_ptr().cast();
                sys::cuMemcpyDtoHAsync_v2(pointer, from, to.len(), self.stream())
            };
            check("cuMemcpyDtoH", result)?;
        }
        self.synchronize()
    }

    /// Copies bytes within the GPU.
    #[allow(unsafe_code)]
    pub(crate) fn copy_within(&self, to: u64, from: u64, bytes: usize) {
        if bytes > 0 && self.make_current().is_ok() {
            // SAFETY: the caller holds both views, which share no bytes.
            let result = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, self.stream()) };
            self.note("cuMemcpyDtoD", result);
        }
    }

    /// Sets bytes on the GPU to zero.
    #[allow(unsafe_code)]
    pub(crate) fn zero(&self, at: u64, bytes: usize) {
        if bytes > 0 && self.make_current().is_ok() {
            // SAFETY: the caller holds a mutable view of these bytes.
            let result = unsafe { sys::cuMemsetD8Async(at, 0, bytes, self.stream()) };
            self.note("cuMemsetD8", result);
        }
    }
}
