//! What cuBLASLt says of algorithms: which its heuristic proposes for a shape, and whether it takes one.

#![allow(unsafe_code)] // every call of a loaded function is one

use std::ffi::c_void;
use std::ptr;

use super::functions::{self, Algorithm, Heuristic};
use super::key::Key;
use super::{Blas, Failure, Prepared, check};

impl Blas {
    /// The heuristic's first `count` answers for the shape the descriptors are set to now, the one it takes to be the
    /// fastest first; none where it has none.
    pub(super) fn ask(
        &self,
        key: &Key,
        entry: &Prepared,
        count: usize,
    ) -> Result<Vec<Algorithm>, Failure> {
        let f = &self.functions;
        let mut preference = ptr::null_mut();
        let mut answers = vec![Heuristic::default(); count];
        let mut answered = 0;
        // SAFETY: the pointers are to places for what is written, and attribute
        // values have the documented types.
        unsafe {
            check("cublasLtMatmulPreferenceCreate", (f.preference_create)(&mut preference))?;
            let result = (|| {
                let workspace = self.workspace_bytes as u64;
                let set = |attribute, value: *const c_void, bytes| {
                    let status = (f.preference_set)(preference, attribute, value, bytes);
                    check("cublasLtMatmulPreferenceSetAttribute", status)
                };
                set(functions::WORKSPACE_BYTES, ptr::from_ref(&workspace).cast(), 8)?;
                set(
                    functions::REDUCTION_SCHEMES,
                    ptr::from_ref(&functions::REDUCTION_IN_COMPUTE_TYPE).cast(),
                    4,
                )?;
                let operands: u32 = if key.aligned { 16 } else { 2 };
                let result: u32 = match (key.aligned, key.wide) {
                    (true, _) => 16,
                    (false, true) => 4,
                    (false, false) => 2,
                };
                for (attribute, bytes) in
                    functions::ALIGNMENTS.into_iter().zip([operands, operands, result, result])
                {
                    set(attribute, ptr::from_ref(&bytes).cast(), 4)?;
                }
                let status = (f.heuristic)(
                    self.handle,
                    entry.operation,
                    entry.right,
                    entry.left,
                    entry.out,
                    entry.out,
                    preference,
                    count as i32,
                    answers.as_mut_ptr(),
                    &mut answered,
                );
                // No algorithm is an answer, not a failure: the own kernels compute every shape.
                if matches!(status, functions::NOT_SUPPORTED | functions::INVALID_VALUE) {
                    answered = 0;
                    return Ok(());
                }
                check("cublasLtMatmulAlgoGetHeuristic", status)
            })();
            (f.preference_destroy)(preference);
            result?;
        }
        answers.truncate(answered.max(0) as usize);
        let usable = answers.iter().filter(|answer| self.usable(answer));
        Ok(usable.map(|answer| answer.algorithm).collect())
    }

    /// Whether the library takes an algorithm that it did not just give for what the descriptors say.
    pub(super) fn takes(&self, entry: &Prepared, algorithm: &Algorithm) -> bool {
        let mut answer = Heuristic::default();
        // SAFETY: the descriptors live, the algorithm is read and the answer written before the call returns.
        let status = unsafe {
            (self.functions.check)(
                self.handle,
                entry.operation,
                entry.right,
                entry.left,
                entry.out,
                entry.out,
                algorithm,
                &mut answer,
            )
        };
        status == 0 && self.usable(&answer)
    }

    fn usable(&self, answer: &Heuristic) -> bool {
        answer.state == 0 && answer.workspace <= self.workspace_bytes
    }
}
