//! The functions, types and numbers of `cublasLt.h` that Prospect uses.

use std::ffi::{c_int, c_void};

/// `cublasStatus_t`; 0 is success.
pub(crate) type Status = c_int;

pub(super) const INVALID_VALUE: Status = 7;
pub(super) const NOT_SUPPORTED: Status = 15;

/// `CUBLAS_COMPUTE_32F`.
pub(super) const COMPUTE_F32: c_int = 68;
/// `CUDA_R_32F` and `CUDA_R_16BF`.
pub(super) const TYPE_F32: c_int = 0;
pub(super) const TYPE_BF16: c_int = 14;

/// `CUBLASLT_MATMUL_DESC_TRANSA` and `TRANSB`, i32: 0 is `CUBLAS_OP_N`, 1 is `CUBLAS_OP_T`.
pub(super) const TRANSPOSE_A: c_int = 3;
pub(super) const TRANSPOSE_B: c_int = 4;
/// `CUBLASLT_MATRIX_LAYOUT_COLS`, u64.
pub(super) const LAYOUT_COLUMNS: c_int = 3;
/// `CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES`, u64.
pub(super) const WORKSPACE_BYTES: c_int = 1;
/// `CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK`, u32.
pub(super) const REDUCTION_SCHEMES: c_int = 3;
/// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`: sums of parts are f32, in the workspace. No reduction is always allowed.
pub(super) const REDUCTION_IN_COMPUTE_TYPE: u32 = 2;
/// `CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_{A,B,C,D}_BYTES`, u32.
pub(super) const ALIGNMENTS: [c_int; 4] = [5, 6, 7, 8];

/// `cublasLtMatmulAlgo_t`: an algorithm and its settings, opaque, valid for one version of the library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Algorithm(pub(crate) [u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Heuristic {
    pub(super) algorithm: Algorithm,
    pub(super) workspace: usize,
    pub(super) state: Status,
    pub(super) waves: f32,
    pub(super) reserved: [c_int; 4],
}

type Pointer = *mut c_void;
type Value = *const c_void;

/// The library's functions. They stay valid as long as this lives.
pub(crate) struct Functions {
    pub(super) version: unsafe extern "C" fn() -> usize,
    pub(super) create: unsafe extern "C" fn(*mut Pointer) -> Status,
    pub(super) destroy: unsafe extern "C" fn(Pointer) -> Status,
    pub(super) operation_create: unsafe extern "C" fn(*mut Pointer, c_int, c_int) -> Status,
    pub(super) operation_destroy: unsafe extern "C" fn(Pointer) -> Status,
    pub(super) operation_set: unsafe extern "C" fn(Pointer, c_int, Value, usize) -> Status,
    pub(super) layout_create: unsafe extern "C" fn(*mut Pointer, c_int, u64, u64, i64) -> Status,
    pub(super) layout_destroy: unsafe extern "C" fn(Pointer) -> Status,
    pub(super) layout_set: unsafe extern "C" fn(Pointer, c_int, Value, usize) -> Status,
    pub(super) preference_create: unsafe extern "C" fn(*mut Pointer) -> Status,
    pub(super) preference_destroy: unsafe extern "C" fn(Pointer) -> Status,
    pub(super) preference_set: unsafe extern "C" fn(Pointer, c_int, Value, usize) -> Status,
    /// handle, operation, layouts of A, B, C, D, preference, count, answers, answered
    pub(super) heuristic: unsafe extern "C" fn(
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        c_int,
        *mut Heuristic,
        *mut c_int,
    ) -> Status,
    /// handle, operation, layouts of A, B, C, D, algorithm, answer
    pub(super) check: unsafe extern "C" fn(
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        *const Algorithm,
        *mut Heuristic,
    ) -> Status,
    /// handle, operation, alpha, A, layout, B, layout, beta, C, layout, D, layout, algorithm, workspace, its
    /// bytes, stream
    pub(super) matmul: unsafe extern "C" fn(
        Pointer,
        Pointer,
        Value,
        Value,
        Pointer,
        Value,
        Pointer,
        Value,
        Value,
        Pointer,
        Pointer,
        Pointer,
        *const Algorithm,
        Pointer,
        usize,
        Pointer,
    ) -> Status,
    // Keeps the code of the functions above mapped.
    _library: libloading::Library,
}

impl Functions {
    /// Resolves every function, or names the first one that is not there.
    pub(super) fn resolve(library: libloading::Library) -> Result<Functions, String> {
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field it goes to has the type that `cublasLt.h` declares for this name.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                    .map_err(|_| format!("it has no {}", $name))?
            };
        }
        Ok(Functions {
            version: function!("cublasLtGetVersion"),
            create: function!("cublasLtCreate"),
            destroy: function!("cublasLtDestroy"),
            operation_create: function!("cublasLtMatmulDescCreate"),
            operation_destroy: function!("cublasLtMatmulDescDestroy"),
            operation_set: function!("cublasLtMatmulDescSetAttribute"),
            layout_create: function!("cublasLtMatrixLayoutCreate"),
            layout_destroy: function!("cublasLtMatrixLayoutDestroy"),
            layout_set: function!("cublasLtMatrixLayoutSetAttribute"),
            preference_create: function!("cublasLtMatmulPreferenceCreate"),
            preference_destroy: function!("cublasLtMatmulPreferenceDestroy"),
            preference_set: function!("cublasLtMatmulPreferenceSetAttribute"),
            heuristic: function!("cublasLtMatmulAlgoGetHeuristic"),
            check: function!("cublasLtMatmulAlgoCheck"),
            matmul: function!("cublasLtMatmul"),
            _library: library,
        })
    }
}
