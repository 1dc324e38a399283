//! Gradient norms on the CPU.

use crate::cpu::parallel;

const CHUNK: usize = 16 * 1024;

pub(super) fn sum_of_squares(gradient: &[f32]) -> f64 {
    parallel::sum(gradient.len(), CHUNK, |range| {
        gradient[range].iter().map(|g| f64::from(*g) * f64::from(*g)).sum()
    })
}
