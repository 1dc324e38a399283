//! The gated activation on the CPU.

use rayon::prelude::*;

use super::Activation;
use crate::cpu::simd::{exp, sigmoid, vectorized};

const CHUNK: usize = 8 * 1024;

/// The activation's value and derivative.
#[inline(always)]
fn act(activation: Activation, g: f32) -> (f32, f32) {
    match activation {
        Activation::Silu => {
            let s = sigmoid(g);
            (g * s, s * (1.0 + g * (1.0 - s)))
        }
        Activation::GeluTanh => {
            const SCALE: f32 = 0.797_884_6; // sqrt(2 / pi)
            let inner = SCALE * (g + 0.044_715 * g * g * g);
            // tanh(u) = 1 - 2 / (e^2u + 1), which saturates without overflow.
            let tanh = 1.0 - 2.0 / (exp(2.0 * inner) + 1.0);
            let dinner = SCALE * (1.0 + 3.0 * 0.044_715 * g * g);
            (0.5 * g * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * g * (1.0 - tanh * tanh) * dinner)
        }
    }
}

pub(super) fn forward(gate: &[f32], up: &[f32], activation: Activation, y: &mut [f32]) {
    let chunks = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK)).zip(y.par_chunks_mut(CHUNK));
    chunks.for_each(|((gate, up), y)| {
        vectorized(
            #[inline(always)]
            || {
                for i in 0..y.len() {
                    y[i] = act(activation, gate[i]).0 * up[i];
                }
            },
        );
    });
}

pub(super) fn backward(
    dy: &[f32],
    gate: &[f32],
    up: &[f32],
    activation: Activation,
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let outputs = dgate.par_chunks_mut(CHUNK).zip(dup.par_chunks_mut(CHUNK));
    let inputs = dy.par_chunks(CHUNK).zip(gate.par_chunks(CHUNK)).zip(up.par_chunks(CHUNK));
    inputs.zip(outputs).for_each(|(((dy, gate), up), (dgate, dup))| {
        vectorized(
            #[inline(always)]
            || {
                for i in 0..dgate.len() {
                    let (value, derivative) = act(activation, gate[i]);
                    dgate[i] = dy[i] * up[i] * derivative;
                    dup[i] = dy[i] * value;
                }
            },
        );
    });
}
