//! What the CPU kernels of all ops share: work split without regard to the number of threads, so that the same
//! bytes come out for any number of them, and loops compiled for the machine's vector width.

pub mod gemm;
pub mod parallel;
pub mod simd;
