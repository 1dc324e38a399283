//! The launches of int8.cu.

use super::Quantized;
use crate::cuda::Module;
use crate::error::Result;
use crate::tensor::{View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "int8",
    ptx: include_str!("int8.ptx"),
    kernels: &[("int8_quantize", 256, 0), ("int8_dequantize", 256, 0)],
};

pub(super) fn quantize(x: View<'_>, out: &Quantized) -> Result<()> {
    let (rows, cols) = (x.rows() as u32, x.cols() as u32);
    let args = [x.into(), cols.into(), out.codes.view().into(), out.scb.view().into()];
    x.device().cuda().launch(&MODULE, "int8_quantize", [rows, 1, 1], &args)
}

pub(super) fn dequantize(x: &Quantized, y: ViewMut<'_>) -> Result<()> {
    let (rows, cols) = (y.rows() as u32, y.cols() as u32);
    let args = [x.codes.view().into(), x.scb.view().into(), cols.into(), (&y).into()];
    y.device().cuda().launch(&MODULE, "int8_dequantize", [rows, 1, 1], &args)
}
