//! Driver, GPU, context, streams.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute, CUresult};

use super::aside::Copies;
use super::gemm::Gemm;
use super::launch::Loaded;
use crate::error::{Error, Result};

/// The oldest compute capability there are kernels for.
const OLDEST: (u32, u32) = (8, 0);
/// The oldest driver whose interface is used, as CUDA counts: 12.2, which driver 535 brought.
const OLDEST_DRIVER: i32 = 12020;

/// What a GPU says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// As NVIDIA names it.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of the GPU's memory.
    pub total_memory: u64,
    /// The newest CUDA version the driver knows, such as (12, 8).
    pub driver: (u32, u32),
    /// Whether kernels read pinned memory of the host at its own addresses.
    pub reads_pinned_memory: bool,
}

/// A GPU with a context of this program.
pub struct Cuda {
    properties: Properties,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// All kernels and copies that belong to a step.
    stream: sys::CUstream,
    /// Copies beside the computation.
    pub(super) copies: Copies,
    pub(super) modules: Mutex<HashMap<&'static str, Loaded>>,
    gemm: Gemm,
    /// The first error of a call that cannot return one.
    late: Mutex<Option<(&'static str, CUresult)>>,
}

// SAFETY: the driver's handles may be used from any thread; every call here makes the context current first.
#[allow(unsafe_code)]
unsafe impl Send for Cuda {}
// SAFETY: as above; what changes is behind mutexes.
#[allow(unsafe_code)]
unsafe impl Sync for Cuda {}

impl Cuda {
    /// Opens GPU number `ordinal` of those that CUDA_VISIBLE_DEVICES shows.
    #[allow(unsafe_code)]
    pub fn open(ordinal: usize) -> Result<Cuda> {
        // SAFETY: tries to load the library; without this guard a missing one would panic at the first call.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::NoGpu {
                reason: "no NVIDIA driver is installed (libcuda.so.1 is not found)".to_owned(),
                hint: "install NVIDIA's driver 535 or newer, or write device = \"cpu\"",
            });
        }
        // SAFETY: the driver's documented calls, each with pointers to values that live through the call.
        unsafe {
            let mut version = 0;
            check("cuDriverGetVersion", sys::cuDriverGetVersion(&mut version))?;
            if version < OLDEST_DRIVER {
                return Err(Error::NoGpu {
                    reason: format!(
                        "the NVIDIA driver is too old: it knows CUDA {}.{}, 12.2 is needed",
                        version / 1000,
                        version % 1000 / 10
                    ),
                    hint: "install driver 535 or newer; `prospect doctor` says which fits this machine",
                });
            }
            let started = sys::cuInit(0);
            if started == CUresult::CUDA_ERROR_NO_DEVICE {
                return Err(Error::NoGpu {
                    reason: "the NVIDIA driver shows no GPU".to_owned(),
                    hint: "look at CUDA_VISIBLE_DEVICES and at `nvidia-smi -L`, or write device = \"cpu\"",
                });
            }
            check("cuInit", started)?;
            let mut count = 0;
            check("cuDeviceGetCount", sys::cuDeviceGetCount(&mut count))?;
            if ordinal >= count as usize {
                return Err(Error::NoGpu {
                    reason: format!("GPU {ordinal} is asked for, the driver shows {count}"),
                    hint: "look at CUDA_VISIBLE_DEVICES and at `nvidia-smi -L`",
                });
            }
            let mut device = 0;
            check("cuDeviceGet", sys::cuDeviceGet(&mut device, ordinal as i32))?;
            let properties = properties(device, version)?;
            if properties.capability < OLDEST {
                let (major, minor) = properties.capability;
                return Err(Error::NoGpu {
                    reason: format!(
                        "{} has compute capability {major}.{minor}, 8.0 is needed",
                        properties.name
                    ),
                    hint: "Prospect's kernels need an Ampere GPU (RTX 30, A100) or a newer one; write device = \"cpu\" to train without",
                });
            }
            let mut context = std::ptr::null_mut();
            check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&mut context, device))?;
            check("cuCtxSetCurrent", sys::cuCtxSetCurrent(context))?;
            let mut stream = std::ptr::null_mut();
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            check("cuStreamCreate", sys::cuStreamCreate(&mut stream, flags))?;
            Ok(Cuda {
                copies: Copies::new()?,
                gemm: Gemm::new(&properties)?,
                properties,
                device,
                context,
                stream,
                modules: Mutex::default(),
                late: Mutex::default(),
            })
        }
    }

    /// What the GPU says of itself.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Number of multiprocessors.
    pub(crate) fn multiprocessors(&self) -> u32 {
        self.properties.multiprocessors
    }

    /// What its matrix products are computed with.
    pub fn gemm(&self) -> &Gemm {
        &self.gemm
    }

    /// The stream of all kernels.
    pub(crate) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Makes the context that of the calling thread, as every call of the driver asks.
    #[allow(unsafe_code)]
    pub(crate) fn make_current(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }

    /// Bytes of the GPU's memory that nobody uses now, and all of them.
    #[allow(unsafe_code)]
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.make_current()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both pointers are to live values.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }

    /// Waits for everything that was asked of the GPU, and returns what failed of it.
    #[allow(unsafe_code)]
    pub fn synchronize(&self) -> Result<()> {
        self.make_current()?;
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.stream) })?;
        self.late()
    }

    /// Keeps the error of a call that cannot return it.
    pub(crate) fn note(&self, call: &'static str, result: CUresult) {
        if result != CUresult::CUDA_SUCCESS {
            let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
            late.get_or_insert((call, result));
        }
    }

    /// The error kept by [`Cuda::note`], if there is one.
    pub(crate) fn late(&self) -> Result<()> {
        let late = *self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.map_or(Ok(()), |(call, result)| check(call, result))
    }
}

impl Drop for Cuda {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: made in `open` and used by nobody else. Errors do not matter any more: the process may be ending
        // because of one.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            let _ = sys::cuStreamSynchronize(self.stream);
            self.copies.release();
            self.gemm.release();
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// # Safety
/// `device` is one that the driver gave.
#[allow(unsafe_code)]
unsafe fn properties(device: sys::CUdevice, version: i32) -> Result<Properties> {
    use CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM as READS_PINNED,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let attribute = |which: CUdevice_attribute| -> Result<u32> {
        let mut value = 0;
        // SAFETY: the pointer is to a live value.
        check("cuDeviceGetAttribute", unsafe {
            sys::cuDeviceGetAttribute(&mut value, which, device)
        })?;
        Ok(value as u32)
    };
    let mut name = [0 as std::ffi::c_char; 256];
    let mut total = 0;
    // SAFETY: the buffer is as long as is said, and the driver ends what it writes with a zero.
    let name = unsafe {
        check("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr(), 255, device))?;
        check("cuDeviceTotalMem", sys::cuDeviceTotalMem_v2(&mut total, device))?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    Ok(Properties {
        name,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        multiprocessors: attribute(MULTIPROCESSORS)?,
        total_memory: total as u64,
        driver: ((version / 1000) as u32, (version % 1000 / 10) as u32),
        // A driver that does not know the question does not do it.
        reads_pinned_memory: attribute(READS_PINNED).is_ok_and(|answer| answer == 1),
    })
}

const AFTER_UPDATE: &str = "the driver's kernel module and library may differ after an update: restart the machine; `prospect doctor` looks closer";

/// The driver's answer as an error that a person can act on.
pub(crate) fn check(call: &'static str, result: CUresult) -> Result<()> {
    let hint = match result {
        CUresult::CUDA_SUCCESS => return Ok(()),
        _ if call == "cuMemHostRegister" => {
            "the host has too little memory to spare for what waits there: close other programs, or lower data.max_length"
        }
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            "other programs hold the GPU's memory (see `nvidia-smi`); close them, or lower memory_limit"
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUresult::CUDA_ERROR_SYSTEM_NOT_READY => {
            AFTER_UPDATE
        }
        // Later it is how a GPU that fell off its bus is told.
        CUresult::CUDA_ERROR_UNKNOWN if call == "cuInit" => AFTER_UPDATE,
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
        | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        | CUresult::CUDA_ERROR_INVALID_PTX => {
            "the driver cannot compile the kernels: install driver 535 or newer"
        }
        _ => {
            "the GPU stopped working; the last checkpoint is whole: `prospect train --resume` goes on from it once `nvidia-smi` answers again"
        }
    };
    let name = format!("{result:?}");
    Err(Error::Cuda { call, code: result as u32, name, hint })
}
