//! Embedding: rows of a table by index, `y_i = table[ids_i]`; with the residual stream as table, the gather of
//! some of its rows.
//!
//! * `ids` (N) u32, `table` (V, C) f32 or bf16, `y` (N, C) activations
//! * backward: `dtable[ids_i] += dy_i`, rows with the same id summed in the order they occur (added to: it is a
//!   parameter's gradient, or the gradient of a stream that other paths add to as well)
//! * an id past the table is refused on the CPU and gives NaN on a GPU, which would have to be asked for it
//! * nothing is saved
//! * a table that is not trained may lie in the host's pinned memory ([`forward_from_host`]): a GPU reads the rows there;
//!   where it cannot, they are gathered and copied up

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use half::bf16;

use crate::device::Kind;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::{View, ViewMut};

const OP: &str = "embedding";

fn check_ids(ids: View<'_>, rows: usize) -> Result<()> {
    if ids.device().kind() != Kind::Cpu {
        return Ok(());
    }
    check_rows(ids.as_slice(), rows)
}

fn check_rows(ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().find(|id| **id as usize >= rows) {
        None => Ok(()),
        Some(id) => Err(Error::Argument {
            op: OP,
            what: format!("id {id} is past the table's last row {}", rows.saturating_sub(1)),
            hint: "the tokenizer has more tokens than the model's vocabulary; use the tokenizer of this model",
        }),
    }
}

/// See the room's contract.
pub fn forward(ids: View<'_>, table: View<'_>, y: ViewMut<'_>) -> Result<()> {
    let (n, c) = (ids.rows(), table.cols());
    expect(OP, "ids", ids, (n, 1), DType::U32)?;
    expect(OP, "y", y.view(), (n, c), y.device().activations())?;
    if table.dtype() != DType::BF16 {
        expect(OP, "table", table, (table.rows(), c), DType::F32)?;
    }
    check_ids(ids, table.rows())?;
    if y.device().is_plan() {
        y.device().book("embedding", 0.0, (n * c * (table.dtype().bytes() + 4)) as f64);
        return Ok(());
    }
    if y.device().kind() == Kind::Cuda {
        return cuda::forward(ids, table, y);
    }
    cpu::forward(ids.as_slice(), table, y);
    Ok(())
}

/// `table` in the memory beside `y`'s device; `on_host` are the `ids` once more.
pub fn forward_from_host(
    ids: View<'_>,
    on_host: &[u32],
    table: View<'_>,
    y: ViewMut<'_>,
) -> Result<()> {
    let (n, c, device) = (on_host.len(), table.cols(), y.device().clone());
    expect(OP, "ids", ids, (n, 1), DType::U32)?;
    expect(OP, "y", y.view(), (n, c), device.activations())?;
    // The bytes that go up, in the element type of activations.
    device.book("embedding from the host", 0.0, (n * c * device.activations().bytes()) as f64);
    if device.is_plan() {
        return Ok(());
    }
    check_rows(on_host, table.rows())?;
    if device.kind() == Kind::Cuda && device.cuda().properties().reads_pinned_memory {
        return cuda::forward(ids, table, y);
    }
    match device.activations() {
        DType::BF16 => y.fill(|rows: &mut [bf16]| {
            cpu::gather_bf16(on_host, table, rows);
            Ok(())
        }),
        _ => y.fill(|rows: &mut [f32]| {
            cpu::gather(on_host, table, rows);
            Ok(())
        }),
    }
}

/// See the room's contract.
pub fn backward(ids: View<'_>, dy: View<'_>, dtable: ViewMut<'_>) -> Result<()> {
    let (n, c) = (ids.rows(), dtable.cols());
    expect(OP, "ids", ids, (n, 1), DType::U32)?;
    expect(OP, "dy", dy, (n, c), dy.device().activations())?;
    if dtable.view().dtype() != dy.dtype() {
        expect(OP, "dtable", dtable.view(), (dtable.rows(), c), DType::F32)?;
    }
    check_ids(ids, dtable.rows())?;
    if dtable.device().is_plan() {
        dtable.device().book("embedding backward", (n * c) as f64, (n * c * 12) as f64);
        return Ok(());
    }
    if dtable.device().kind() == Kind::Cuda {
        return cuda::backward(ids, dy, dtable);
    }
    cpu::backward(ids.as_slice(), dy.as_slice(), dtable.into_mut_slice(), c);
    Ok(())
}
