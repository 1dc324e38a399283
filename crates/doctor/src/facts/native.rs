//! libcuda, loaded at run time: the only `unsafe` of this crate. NVML knows the driver, but a CUDA program goes
//! through libcuda, and on a broken machine the two disagree; `cuInit` gives the very error a program would see.
//!
//! CUDA driver API: `cuInit`, `cuDriverGetVersion`, `cuDeviceGetCount`, `cuGetErrorName`. No context is made.
#![allow(unsafe_code)] // Calling into a library found at run time cannot be checked by the compiler.

use super::Cuda;
use std::ffi::{CStr, c_char, c_int, c_uint};

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type One = unsafe extern "C" fn(*mut c_int) -> c_int;
type ErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// Loads libcuda and asks it for its version and its devices.
pub(super) fn cuda() -> Cuda {
    // SAFETY: loading libcuda runs its initialisers, which every CUDA program on this machine runs as well.
    let library = match unsafe { libloading::Library::new("libcuda.so.1") } {
        Ok(library) => library,
        Err(error) => {
            return Cuda {
                error: Some(format!("libcuda.so.1 does not load: {error}")),
                ..Cuda::default()
            };
        }
    };
    // SAFETY: the types above are those of cuda.h, unchanged since CUDA 6; the library outlives the symbols.
    let found = unsafe {
        (
            library.get::<Init>(b"cuInit\0"),
            library.get::<One>(b"cuDriverGetVersion\0"),
            library.get::<One>(b"cuDeviceGetCount\0"),
            library.get::<ErrorName>(b"cuGetErrorName\0"),
        )
    };
    let (Ok(init), Ok(driver_version), Ok(device_count), Ok(error_name)) = found else {
        return Cuda {
            error: Some("libcuda.so.1 lacks cuInit or its companions".into()),
            ..Cuda::default()
        };
    };
    let name = |code: c_int| {
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: cuGetErrorName stores a pointer to a string that lives as long as the library, or leaves null.
        let known = unsafe { error_name(code, &mut text) } == 0 && !text.is_null();
        // SAFETY: just checked: not null, and a C string by the function's contract.
        let known = known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        known.unwrap_or_else(|| format!("error {code}"))
    };
    let mut cuda = Cuda::default();
    let mut number: c_int = 0;
    // SAFETY: cuDriverGetVersion writes one int and may be called before cuInit.
    if unsafe { driver_version(&mut number) } == 0 {
        cuda.version = Some(format!("{}.{}", number / 1000, number % 1000 / 10));
    }
    // SAFETY: 0 is the only flag cuInit takes.
    let code = unsafe { init(0) };
    if code != 0 {
        cuda.error = Some(format!("cuInit: {}", name(code)));
        return cuda;
    }
    // SAFETY: cuDeviceGetCount writes one int, after a successful cuInit.
    match unsafe { device_count(&mut number) } {
        0 => cuda.devices = u32::try_from(number).ok(),
        code => cuda.error = Some(format!("cuDeviceGetCount: {}", name(code))),
    }
    // The driver keeps threads once initialised: unloading its code under them would crash.
    std::mem::forget(library);
    cuda
}
