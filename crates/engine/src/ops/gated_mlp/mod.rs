//! The gate of a gated MLP (Shazeer, arXiv 2002.05202, eq. 6): `y = act(gate) * up`, with `act` the SiLU
//! `g sigmoid(g)` or the tanh form of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
//!
//! * `gate`, `up`, `y` (N, I) activations; `gate` and `up` are saved by the caller
//! * backward: `dgate = dy * up * act'(gate)`, `dup = dy * act(gate)`, both overwritten

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

const OP: &str = "gated_mlp";

/// The function applied to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `g / (1 + e^-g)`.
    Silu,
    /// `g / 2 (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3)))`.
    GeluTanh,
}

fn check(gate: View<'_>, up: View<'_>) -> Result<()> {
    expect(OP, "gate", gate, (gate.rows(), gate.cols()), gate.device().activations())?;
    expect(OP, "up", up, (gate.rows(), gate.cols()), gate.dtype())
}

/// See the room's contract.
pub fn forward(gate: View<'_>, up: View<'_>, activation: Activation, y: ViewMut<'_>) -> Result<()> {
    check(gate, up)?;
    expect(OP, "y", y.view(), (gate.rows(), gate.cols()), gate.dtype())?;
    if y.device().is_plan() {
        y.device().book(OP, 5.0 * gate.shape().len() as f64, 3.0 * gate.bytes() as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(gate, up, activation, y);
    }
    cpu::forward(gate.as_slice(), up.as_slice(), activation, y.into_mut_slice());
    Ok(())
}

/// See the room's contract.
pub fn backward(
    dy: View<'_>,
    gate: View<'_>,
    up: View<'_>,
    activation: Activation,
    dgate: ViewMut<'_>,
    dup: ViewMut<'_>,
) -> Result<()> {
    check(gate, up)?;
    for (name, view) in [("dy", dy), ("dgate", dgate.view()), ("dup", dup.view())] {
        expect(OP, name, view, (gate.rows(), gate.cols()), gate.dtype())?;
    }
    if dgate.device().is_plan() {
        dgate.device().book(
            "gated_mlp backward",
            9.0 * gate.shape().len() as f64,
            5.0 * gate.bytes() as f64,
        );
        return Ok(());
    }
    if dgate.device().kind() == Kind::Cuda {
        return cuda::backward(dy, gate, up, activation, dgate, dup);
    }
    let (dgate, dup) = (dgate.into_mut_slice(), dup.into_mut_slice());
    cpu::backward(dy.as_slice(), gate.as_slice(), up.as_slice(), activation, dgate, dup);
    Ok(())
}
