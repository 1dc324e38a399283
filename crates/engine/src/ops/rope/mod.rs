//! Rotary position embedding (Su et al., arXiv 2104.09864, eq. 34) in the half-split layout of Hugging Face:
//! `y_i = x_i cos - x_{i+R/2} sin`, `y_{i+R/2} = x_{i+R/2} cos + x_i sin` for `i < R/2`, in place, per head. R is the
//! head size D, or less: then the rest of a head stays as it is.
//!
//! * `x` (N, H D) activations, `cos` and `sin` (P, R/2) f32 by position, `positions` (N) u32 per token
//! * backward turns the other way: the same with `sin` negated, in place on `dx`; a factor on both tables is one on `dx`
//! * a position past the table is refused on the CPU and gives NaN on a GPU, which would have to be asked for it
//! * nothing is saved; positions are per token, so that packed segments each start at their own

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const OP: &str = "rope";

/// See the room's contract.
pub fn forward(
    x: ViewMut<'_>,
    head_dim: usize,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
) -> Result<()> {
    turn(x, head_dim, positions, cos, sin, 1.0)
}

/// See the room's contract.
pub fn backward(
    dx: ViewMut<'_>,
    head_dim: usize,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
) -> Result<()> {
    turn(dx, head_dim, positions, cos, sin, -1.0)
}

fn turn(
    x: ViewMut<'_>,
    head_dim: usize,
    positions: View<'_>,
    cos: View<'_>,
    sin: View<'_>,
    direction: f32,
) -> Result<()> {
    let (n, half) = (x.rows(), cos.cols());
    expect(OP, "x", x.view(), (n, x.cols()), x.device().activations())?;
    expect(OP, "positions", positions, (n, 1), DType::U32)?;
    expect(OP, "cos", cos, (cos.rows(), half), DType::F32)?;
    expect(OP, "sin", sin, (cos.rows(), half), DType::F32)?;
    if half == 0 || 2 * half > head_dim || !x.cols().is_multiple_of(head_dim) {
        return Err(Error::Shape {
            op: OP,
            name: "cos",
            got: (cos.rows(), half),
            expected: (cos.rows(), head_dim / 2),
        });
    }
    if x.device().is_plan() {
        x.device().book(OP, 3.0 * x.shape().len() as f64, 2.0 * x.view().bytes() as f64);
        return Ok(());
    }
    if x.device().kind() == Kind::Cuda {
        return cuda::turn(x, head_dim, positions, cos, sin, direction);
    }
    let positions = positions.as_slice::<u32>();
    if let Some(position) = positions.iter().find(|position| **position as usize >= cos.rows()) {
        return Err(Error::Argument {
            op: OP,
            what: format!(
                "position {position} is past the last position {} of the table",
                cos.rows().saturating_sub(1)
            ),
            hint: "lower max_length to the model's max_position_embeddings",
        });
    }
    let heads = cpu::Heads { cols: x.cols(), head_dim, half };
    cpu::turn(x.into_mut_slice(), heads, positions, cos.as_slice(), sin.as_slice(), direction);
    Ok(())
}
