//! cuBLASLt: the few functions of it Prospect calls, and which algorithm computes which product.
//!
//! Declarations and numbers are those of `cublasLt.h`, `cublas_api.h` and `library_types.h`, CUDA 12.2 and 13.
//! cuBLASLt thinks in columns: a row-major (R, C) matrix is its (C, R) matrix, so the product of a linear layer is
//! handed over transposed, with `right` as its A and `left` as its B (see [`Transposed`]).
//!
//! A run never times algorithms. The algorithm of a [`Key`], which holds the row count rounded up to a bucket, is that
//! of the [`table`] of measured choices, or else the first answer of the heuristic at the bucket's shape, and stays so
//! for the life of the context; it then runs with the exact shape. Partial sums are added in f32 only.

#![allow(unsafe_code)] // every call of a loaded function is one

pub(crate) mod functions;
mod heuristic;
mod key;
mod table;
#[cfg(test)]
mod tests;
mod tune;

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::Properties;
use super::gemm::{Layout, Matrix, Product};
use super::libraries::{self, CUBLASLT, Missing, Surroundings};
use functions::{Algorithm, Functions, Status};
use key::{Key, Transposed};
use table::{Found, Scope};
use tune::Tuning;
pub use tune::{Measured, Written};

/// A call cuBLASLt refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The function.
    pub(crate) call: &'static str,
    /// Its `cublasStatus_t`.
    pub(crate) status: Status,
}

impl Failure {
    /// The status in words.
    pub(crate) fn name(&self) -> &'static str {
        match self.status {
            1 => "not initialized",
            3 => "out of memory",
            7 => "invalid value",
            8 => "not for this GPU",
            11 => "memory could not be read",
            13 => "a kernel failed",
            14 => "internal error",
            15 => "not supported",
            16 => "license error",
            _ => "unknown status",
        }
    }
}

/// The descriptors of a key and its algorithm.
struct Prepared {
    operation: *mut c_void,
    right: *mut c_void,
    left: *mut c_void,
    out: *mut c_void,
    /// The row count the descriptors are set to now.
    rows: usize,
    /// `None` where cuBLASLt has no algorithm.
    algorithm: Option<Algorithm>,
    /// Algorithms of row counts that the bucket's cannot compute.
    exact: HashMap<usize, Option<Algorithm>>,
}

/// A handle of cuBLASLt and what it has prepared so far.
pub(crate) struct Blas {
    functions: Functions,
    handle: *mut c_void,
    prepared: Mutex<HashMap<Key, Prepared>>,
    workspace_bytes: usize,
    path: PathBuf,
    scope: Scope,
    /// Where a table of choices for this scope is kept; none where there is no home.
    table: Option<PathBuf>,
    found: Found,
    /// What is measured, if it is.
    tuning: OnceLock<Tuning>,
}

// SAFETY: cuBLASLt handles may be used from any thread; descriptors are only touched under the lock.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

impl Blas {
    /// Loads the library. No device is needed for that.
    pub(crate) fn find(
        driver: u32,
        around: &Surroundings,
    ) -> Result<(Functions, PathBuf), Missing> {
        libraries::load(&CUBLASLT, driver, around, Functions::resolve)
    }

    /// A handle on the current context's device, with the choices measured on it if there are any. Products may use
    /// `workspace_bytes` of workspace.
    pub(crate) fn new(
        (functions, path): (Functions, PathBuf),
        workspace_bytes: usize,
        properties: &Properties,
        around: &Surroundings,
    ) -> Result<Blas, Failure> {
        let mut handle = ptr::null_mut();
        // SAFETY: the pointer is to a place for a handle; a context is current.
        let status = unsafe { (functions.create)(&mut handle) };
        check("cublasLtCreate", status)?;
        let scope = Scope {
            gpu: properties.name.clone(),
            multiprocessors: properties.multiprocessors,
            version: version(&functions),
            workspace: workspace_bytes,
        };
        let folder = libraries::cache(around).map(|cache| cache.join("tuned"));
        let table = folder.map(|folder| folder.join(scope.file_name()));
        let found = table.as_ref().map_or(Found::Nothing, |table| table::find(table, &scope));
        Ok(Blas {
            functions,
            handle,
            prepared: Mutex::default(),
            workspace_bytes,
            path,
            scope,
            table,
            found,
            tuning: OnceLock::new(),
        })
    }

    /// The library's version, as in 13.4.1.
    pub(crate) fn version(&self) -> (usize, usize, usize) {
        version(&self.functions)
    }

    /// The file that was loaded.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the table of measured choices is kept.
    pub(crate) fn table(&self) -> Option<&Path> {
        self.table.as_deref()
    }

    /// What was found there, in words that go on a sentence; empty where there was nothing.
    pub(crate) fn choices(&self) -> String {
        let place = self.table().unwrap_or(Path::new("")).display();
        match &self.found {
            Found::Nothing => String::new(),
            Found::Table { choices, hash } => {
                format!(", tuned choices {hash} ({} shapes)", choices.len())
            }
            Found::PassedOver(reason) => {
                format!(", the tuned choices in '{place}' passed over: {reason}")
            }
        }
    }

    /// Queues `product` on `stream`. `Ok(false)` where cuBLASLt cannot compute it: nothing was queued then.
    pub(crate) fn multiply(&self, product: &Product, stream: *mut c_void) -> Result<bool, Failure> {
        let key = Key::of(product);
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match prepared.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(self.prepare(&key)?),
        };
        if let Some(known) = entry.exact.get(&product.n).copied() {
            let Some(algorithm) = known else { return Ok(false) };
            self.set_rows(key.layout, entry, product.n)?;
            return self.launch(product, entry, &algorithm, stream).map(|()| true);
        }
        let Some(algorithm) = entry.algorithm else { return Ok(false) };
        self.set_rows(key.layout, entry, product.n)?;
        match self.launch(product, entry, &algorithm, stream) {
            Ok(()) => Ok(true),
            // The algorithm computes the bucket's shape, but not this one.
            Err(Failure {
                status: functions::NOT_SUPPORTED | functions::INVALID_VALUE, ..
            }) => {
                let exact = self.ask(&key, entry, 1)?.first().copied();
                entry.exact.insert(product.n, exact);
                let Some(algorithm) = exact else { return Ok(false) };
                self.launch(product, entry, &algorithm, stream).map(|()| true)
            }
            Err(failure) => Err(failure),
        }
    }

    fn prepare(&self, key: &Key) -> Result<Prepared, Failure> {
        let mut entry = self.describe(key)?;
        let measured = match &self.found {
            Found::Table { choices, .. } => choices.get(key).copied(),
            _ => None,
        };
        entry.algorithm = match measured.filter(|algorithm| self.takes(&entry, algorithm)) {
            Some(algorithm) => Some(algorithm),
            None => self.ask(key, &entry, 1)?.first().copied(),
        };
        Ok(entry)
    }

    /// Descriptors at the bucket's shape.
    fn describe(&self, key: &Key) -> Result<Prepared, Failure> {
        let f = &self.functions;
        let shape = Transposed::new(key.layout, key.rows, key.m, key.k);
        let mut entry = Prepared {
            operation: ptr::null_mut(),
            right: ptr::null_mut(),
            left: ptr::null_mut(),
            out: ptr::null_mut(),
            rows: key.rows,
            algorithm: None,
            exact: HashMap::new(),
        };
        let made = (|| {
            // SAFETY: the pointers are to places for descriptors, and attribute values have the documented types.
            unsafe {
                let (compute, scale) = (functions::COMPUTE_F32, functions::TYPE_F32);
                let status = (f.operation_create)(&mut entry.operation, compute, scale);
                check("cublasLtMatmulDescCreate", status)?;
                for (attribute, transpose) in [functions::TRANSPOSE_A, functions::TRANSPOSE_B]
                    .into_iter()
                    .zip(shape.transpose)
                {
                    let value = i32::from(transpose);
                    let status = (f.operation_set)(
                        entry.operation,
                        attribute,
                        ptr::from_ref(&value).cast(),
                        size_of::<i32>(),
                    );
                    check("cublasLtMatmulDescSetAttribute", status)?;
                }
                let out = if key.wide { functions::TYPE_F32 } else { functions::TYPE_BF16 };
                for (layout, dtype, (rows, cols), stride) in [
                    (&mut entry.left, functions::TYPE_BF16, shape.left, key.strides[0]),
                    (&mut entry.right, functions::TYPE_BF16, shape.right, key.strides[1]),
                    (&mut entry.out, out, shape.out, key.strides[2]),
                ] {
                    let status =
                        (f.layout_create)(layout, dtype, rows as u64, cols as u64, stride as i64);
                    check("cublasLtMatrixLayoutCreate", status)?;
                }
            }
            Ok(())
        })();
        if let Err(failure) = made {
            self.destroy(&entry);
            return Err(failure);
        }
        Ok(entry)
    }

    /// Sets the row count of the descriptors that hold it: it is the number of columns of two matrices.
    fn set_rows(&self, layout: Layout, entry: &mut Prepared, rows: usize) -> Result<(), Failure> {
        if entry.rows == rows {
            return Ok(());
        }
        let others = match layout {
            Layout::Forward | Layout::BackwardInput => entry.out,
            Layout::BackwardWeight => entry.right,
        };
        let columns = rows as u64;
        for matrix in [entry.left, others] {
            // SAFETY: both are live layouts, and the attribute is a u64.
            let status = unsafe {
                (self.functions.layout_set)(
                    matrix,
                    functions::LAYOUT_COLUMNS,
                    ptr::from_ref(&columns).cast(),
                    size_of::<u64>(),
                )
            };
            check("cublasLtMatrixLayoutSetAttribute", status)?;
        }
        entry.rows = rows;
        Ok(())
    }

    fn launch(
        &self,
        product: &Product,
        entry: &Prepared,
        algorithm: &Algorithm,
        stream: *mut c_void,
    ) -> Result<(), Failure> {
        let (alpha, beta) = (product.alpha, if product.add { 1.0f32 } else { 0.0 });
        let pointer = |matrix: &Matrix| matrix.address as *mut c_void;
        // SAFETY: the product's addresses are device memory of the shapes its descriptors say, alpha and beta are
        // read before the call returns, and the workspace is the caller's until what is queued after has run.
        let status = unsafe {
            (self.functions.matmul)(
                self.handle,
                entry.operation,
                ptr::from_ref(&alpha).cast(),
                pointer(&product.right),
                entry.right,
                pointer(&product.left),
                entry.left,
                ptr::from_ref(&beta).cast(),
                pointer(&product.out),
                entry.out,
                pointer(&product.out),
                entry.out,
                algorithm,
                product.workspace as *mut c_void,
                self.workspace_bytes,
                stream,
            )
        };
        check("cublasLtMatmul", status)
    }

    fn destroy(&self, entry: &Prepared) {
        // SAFETY: each was made by its create function, or is null, and nobody uses it any more.
        unsafe {
            for layout in [entry.left, entry.right, entry.out] {
                if !layout.is_null() {
                    (self.functions.layout_destroy)(layout);
                }
            }
            if !entry.operation.is_null() {
                (self.functions.operation_destroy)(entry.operation);
            }
        }
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let prepared =
            std::mem::take(self.prepared.get_mut().unwrap_or_else(PoisonError::into_inner));
        for entry in prepared.values() {
            self.destroy(entry);
        }
        // SAFETY: the handle came from `cublasLtCreate` and is not used after.
        unsafe {
            (self.functions.destroy)(self.handle);
        }
    }
}

/// `cublasLtGetVersion`: 10000 for a major version, 100 for a minor one.
pub(crate) fn version(functions: &Functions) -> (usize, usize, usize) {
    // SAFETY: the function takes nothing and needs no device.
    let number = unsafe { (functions.version)() };
    (number / 10000, number / 100 % 100, number % 100)
}

fn check(call: &'static str, status: Status) -> Result<(), Failure> {
    if status == 0 { Ok(()) } else { Err(Failure { call, status }) }
}
