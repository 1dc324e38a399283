//! Log-probabilities of chosen tokens under a linear head, without ever holding the logits:
//! `logp_i = l_rt - log sum_v exp l_rv` for items i = (row r, target t), with logits `l_rv = s x_r . w_v`, or, where
//! there is a soft cap c, `c tanh(s x_r . w_v / c)` (Gemma 2, arXiv 2408.00118, section 2).
//!
//! * `x` (M, C) activations, `weight` (V, C) f32 or bf16 (bf16 on a GPU), `lse` (M) f32 is saved for backward, `logps` (I) f32
//! * a row may be scored several times: the last token of a prompt scores the first of each of its completions
//! * the logits exist in tiles, in f32: [`TILE_ROWS`] rows by [`TILE_VOCABULARY`] columns on the CPU, larger ones on a
//!   GPU; backward computes them again
//! * backward: with G_r the sum of `dlogps` over the items of row r, `dlogits_rv = sum_i dlogp_i [v = t_i] - G_r
//!   softmax_rv`, times `1 - (l_rv / c)^2` under a cap; `dx = s dlogits weight` is overwritten, `dweight += s dlogits^T x`

mod cpu;
pub(super) mod cuda;
#[cfg(test)]
mod tests;

use super::expect;
use crate::device::Kind;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::arena::Category;
use crate::tensor::{Tensor, View, ViewMut};

const OP: &str = "linear_logps";

/// Rows of a tile of logits.
pub const TILE_ROWS: usize = 1024;
/// Columns of a tile of logits.
pub const TILE_VOCABULARY: usize = 2048;

/// Which rows score which tokens.
#[derive(Clone, Copy)]
pub struct Items<'a> {
    /// The row of `x` of each item.
    pub rows: &'a [u32],
    /// The token of each item.
    pub targets: &'a [u32],
}

/// How a product with the head becomes a logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logits {
    /// Factor of the product.
    pub scale: f32,
    /// Bound that scaled products approach.
    pub soft_cap: Option<f32>,
}

impl Logits {
    /// The products as they are.
    pub const PLAIN: Logits = Logits { scale: 1.0, soft_cap: None };
}

/// The items of each row, in their order: `order[starts[r]..starts[r + 1]]`.
struct ByRow {
    starts: Vec<usize>,
    order: Vec<usize>,
}

impl ByRow {
    fn new(items: Items<'_>, rows: usize) -> ByRow {
        let mut starts = vec![0; rows + 1];
        for row in items.rows {
            starts[*row as usize + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut order = vec![0; items.rows.len()];
        for (item, row) in items.rows.iter().enumerate() {
            order[next[*row as usize]] = item;
            next[*row as usize] += 1;
        }
        ByRow { starts, order }
    }

    fn of(&self, row: usize) -> &[usize] {
        &self.order[self.starts[row]..self.starts[row + 1]]
    }
}

/// The tile of logits and, for weights that are not f32, the tile of the weight: taken from the step's stack.
fn workspace(x: View<'_>, weight: View<'_>) -> Result<(Tensor, Option<Tensor>)> {
    let columns = TILE_VOCABULARY.min(weight.rows());
    let take = |shape: (usize, usize)| x.device().scratch(shape, DType::F32, Category::Workspace);
    let logits = take((TILE_ROWS.min(x.rows()), columns))?;
    let widened =
        if weight.dtype() == DType::F32 { None } else { Some(take((columns, weight.cols()))?) };
    Ok((logits, widened))
}

fn check(x: View<'_>, weight: View<'_>, items: Items<'_>, lse: View<'_>) -> Result<()> {
    let (m, c) = (x.rows(), weight.cols());
    expect(OP, "x", x, (m, c), x.device().activations())?;
    if weight.dtype() != DType::BF16 || x.device().arithmetic() == Kind::Cuda {
        expect(OP, "weight", weight, (weight.rows(), c), x.device().activations())?;
    }
    expect(OP, "lse", lse, (m, 1), DType::F32)?;
    let bad = items
        .rows
        .iter()
        .zip(items.targets)
        .find(|(r, t)| **r as usize >= m || **t as usize >= weight.rows());
    match bad {
        _ if items.rows.len() != items.targets.len() => Err(Error::Argument {
            op: OP,
            what: format!("{} rows and {} targets", items.rows.len(), items.targets.len()),
            hint: "every item has one row and one target",
        }),
        Some((row, target)) => Err(Error::Argument {
            op: OP,
            what: format!(
                "row {row} scores token {target}, but there are {m} rows and {} tokens",
                weight.rows()
            ),
            hint: "the tokenizer has more tokens than the model's vocabulary; use the tokenizer of this model",
        }),
        None => Ok(()),
    }
}

/// See the room's contract.
pub fn forward(
    x: View<'_>,
    weight: View<'_>,
    items: Items<'_>,
    form: Logits,
    lse: ViewMut<'_>,
    logps: ViewMut<'_>,
) -> Result<()> {
    check(x, weight, items, lse.view())?;
    expect(OP, "logps", logps.view(), (items.rows.len(), 1), DType::F32)?;
    if x.device().arithmetic() == Kind::Cuda {
        return cuda::forward(x, weight, items, form, lse, logps);
    }
    let (mut logits, widened) = workspace(x, weight)?;
    if x.device().is_plan() {
        let (m, v, c) = (x.rows() as f64, weight.rows() as f64, x.cols() as f64);
        x.device().book(
            OP,
            2.0 * m * v * c,
            weight.bytes() as f64 + x.bytes() as f64 + 8.0 * m * v,
        );
        return Ok(());
    }
    let head = cpu::Head::new(weight, widened);
    cpu::forward(
        x.as_slice(),
        head,
        items,
        form,
        lse.into_mut_slice(),
        logps.into_mut_slice(),
        logits.as_mut_slice(),
    );
    Ok(())
}

/// See the room's contract. `dweight` is left out where the head is frozen.
pub fn backward(
    dlogps: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    items: Items<'_>,
    form: Logits,
    lse: View<'_>,
    dx: ViewMut<'_>,
    dweight: Option<ViewMut<'_>>,
) -> Result<()> {
    check(x, weight, items, lse)?;
    expect(OP, "dlogps", dlogps, (items.rows.len(), 1), DType::F32)?;
    expect(OP, "dx", dx.view(), (x.rows(), x.cols()), x.dtype())?;
    if let Some(dweight) = &dweight {
        expect(OP, "dweight", dweight.view(), (weight.rows(), weight.cols()), DType::F32)?;
    }
    if x.device().arithmetic() == Kind::Cuda {
        return cuda::backward(dlogps, x, weight, items, form, lse, dx, dweight);
    }
    let (mut logits, widened) = workspace(x, weight)?;
    if x.device().is_plan() {
        let (m, v, c) = (x.rows() as f64, weight.rows() as f64, x.cols() as f64);
        let products = if dweight.is_some() { 3.0 } else { 2.0 };
        let traffic = products * (weight.bytes() as f64 + x.bytes() as f64) + 16.0 * m * v;
        x.device().book("linear_logps backward", 2.0 * products * m * v * c, traffic);
        return Ok(());
    }
    let head = cpu::Head::new(weight, widened);
    let gradients =
        cpu::Gradients { dx: dx.into_mut_slice(), dweight: dweight.map(ViewMut::into_mut_slice) };
    cpu::backward(
        dlogps.as_slice(),
        x.as_slice(),
        head,
        items,
        form,
        lse.as_slice(),
        gradients,
        logits.as_mut_slice(),
    );
    Ok(())
}
