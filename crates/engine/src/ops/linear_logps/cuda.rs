//! Log-probabilities under a linear head on a GPU: the head's product into a tile of logits, and what follows it.
//!
//! The same calls run on `plan` and on the GPU; there the products book their work, and only the launches are left out.

use super::{ByRow, Items, Logits, OP};
use crate::cuda::{Arg, Module};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::memory::arena::Category;
use crate::ops::cast;
use crate::ops::matmul::{self, Output};
use crate::tensor::{Tensor, View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "linear_logps",
    ptx: include_str!("linear_logps.ptx"),
    kernels: &[
        ("linear_logps_tile", 256, 0),
        ("linear_logps_finish", 256, 0),
        ("linear_logps_backward", 256, 0),
    ],
};

/// Rows of a tile of logits.
const TILE_ROWS: usize = 512;
/// Columns of a tile of logits.
const TILE_VOCABULARY: usize = 32 * 1024;

/// The items by row, on the device.
struct DeviceItems {
    starts: Tensor,
    order: Tensor,
    targets: Tensor,
}

impl DeviceItems {
    fn new(device: &Device, items: Items<'_>, rows: usize) -> Result<DeviceItems> {
        let by_row = ByRow::new(items, rows);
        let words = |values: &[usize]| values.iter().map(|v| *v as u32).collect::<Vec<u32>>();
        Ok(DeviceItems {
            starts: device.upload(&words(&by_row.starts))?,
            order: device.upload(&words(&by_row.order))?,
            targets: device.upload(items.targets)?,
        })
    }

    /// The first arguments of every kernel: the items of the rows from `row` on.
    fn args(&self, row: usize) -> [Arg; 3] {
        let starts = self.starts.slice(row..self.starts.rows());
        [starts.into(), self.order.view().into(), self.targets.view().into()]
    }
}

/// The soft cap as the kernels take it: 0 for none.
fn soft_cap(form: Logits) -> f32 {
    form.soft_cap.unwrap_or(0.0)
}

fn tiles(n: usize, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..n).step_by(size).map(move |start| start..(start + size).min(n))
}

pub(super) fn forward(
    x: View<'_>,
    weight: View<'_>,
    items: Items<'_>,
    form: Logits,
    mut lse: ViewMut<'_>,
    mut logps: ViewMut<'_>,
) -> Result<()> {
    let (device, rows, vocabulary) = (x.device(), x.rows(), weight.rows());
    let take =
        |rows: usize, cols: usize| device.scratch((rows, cols), DType::F32, Category::Workspace);
    let mut logits = take(TILE_ROWS.min(rows), TILE_VOCABULARY.min(vocabulary))?;
    let (tops, sums) = (take(rows, 1)?, take(rows, 1)?);
    let on_device = DeviceItems::new(device, items, rows)?;
    for range in tiles(rows, TILE_ROWS) {
        for tokens in tiles(vocabulary, TILE_VOCABULARY) {
            let mut tile = logits.reshaped((range.len(), tokens.len()));
            let weight = weight.slice(tokens.clone());
            let rows = x.slice(range.clone());
            matmul::forward(rows, weight, form.scale, Output::Write, tile.reborrow())?;
            if device.is_plan() {
                device.book(OP, 4.0 * tile.shape().len() as f64, tile.view().bytes() as f64);
                continue;
            }
            let [starts, order, targets] = on_device.args(range.start);
            device.cuda().launch(
                &MODULE,
                "linear_logps_tile",
                [range.len() as u32, 1, 1],
                &[
                    (&tile).into(),
                    (tokens.len() as u32).into(),
                    (tokens.start as u32).into(),
                    starts,
                    order,
                    targets,
                    tops.slice(range.clone()).into(),
                    sums.slice(range.clone()).into(),
                    (&logps.reborrow()).into(),
                    soft_cap(form).into(),
                ],
            )?;
        }
    }
    if device.is_plan() {
        return Ok(());
    }
    let [starts, order, _] = on_device.args(0);
    let (tops, sums) = (tops.view().into(), sums.view().into());
    let args = [
        starts,
        order,
        tops,
        sums,
        (&lse.reborrow()).into(),
        (&logps).into(),
        (rows as u32).into(),
    ];
    device.cuda().launch(&MODULE, "linear_logps_finish", crate::ops::blocks(rows, 1), &args)
}

pub(super) fn backward(
    dlogps: View<'_>,
    x: View<'_>,
    weight: View<'_>,
    items: Items<'_>,
    form: Logits,
    lse: View<'_>,
    mut dx: ViewMut<'_>,
    mut dweight: Option<ViewMut<'_>>,
) -> Result<()> {
    let (device, rows, vocabulary, c) = (x.device(), x.rows(), weight.rows(), x.cols());
    let (tile_rows, tile_tokens) = (TILE_ROWS.min(rows), TILE_VOCABULARY.min(vocabulary));
    let take =
        |cols: usize, dtype: DType| device.scratch((tile_rows, cols), dtype, Category::Workspace);
    let mut logits = take(tile_tokens, DType::F32)?;
    let mut dlogits = take(tile_tokens, DType::BF16)?;
    // Over the tiles of the vocabulary dx is summed in f32 and rounded once.
    let mut wide = take(c, DType::F32)?;
    let on_device = DeviceItems::new(device, items, rows)?;
    for range in tiles(rows, TILE_ROWS) {
        let x = x.slice(range.clone());
        let mut sum = wide.reshaped((range.len(), c));
        for tokens in tiles(vocabulary, TILE_VOCABULARY) {
            let shape = (range.len(), tokens.len());
            let mut tile = logits.reshaped(shape);
            let mut dtile = dlogits.reshaped(shape);
            let weight = weight.slice(tokens.clone());
            matmul::forward(x, weight, form.scale, Output::Write, tile.reborrow())?;
            if device.is_plan() {
                let (tile, dtile) = (tile.view(), dtile.view());
                let bytes = (tile.bytes() + dtile.bytes()) as f64;
                device.book("linear_logps backward", 3.0 * tile.shape().len() as f64, bytes);
            } else {
                let [starts, order, targets] = on_device.args(range.start);
                device.cuda().launch(
                    &MODULE,
                    "linear_logps_backward",
                    [range.len() as u32, 1, 1],
                    &[
                        (&tile).into(),
                        (tokens.len() as u32).into(),
                        (tokens.start as u32).into(),
                        starts,
                        order,
                        targets,
                        dlogps.into(),
                        lse.slice(range.clone()).into(),
                        (&dtile.reborrow()).into(),
                        soft_cap(form).into(),
                    ],
                )?;
            }
            let output = if tokens.start == 0 { Output::Write } else { Output::Add };
            matmul::backward_input(dtile.view(), weight, form.scale, output, sum.reborrow())?;
            if let Some(dweight) = &mut dweight {
                matmul::backward_weight(dtile.view(), x, form.scale, dweight.slice_mut(tokens))?;
            }
        }
        cast::forward(sum.view(), dx.slice_mut(range))?;
    }
    Ok(())
}
