//! The launches of nf4.cu.

use super::{BLOCK_SIZE, CodeBook, NESTED_BLOCK_SIZE, Quantized, Scales};
use crate::cuda::{Arg, Module};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, View, ViewMut};

pub(crate) static MODULE: Module = Module {
    name: "nf4",
    ptx: include_str!("nf4.ptx"),
    kernels: &[
        ("nf4_dequantize", 256, 0),
        ("nf4_quantize", 256, 0),
        ("nf4_mean", 1024, 0),
        ("nf4_quantize_absmax", 256, 0),
    ],
};

/// The kernels' number of a code book.
fn number(code_book: CodeBook) -> Arg {
    Arg::U32(match code_book {
        CodeBook::Nf4 => 0,
        CodeBook::Fp4 => 1,
    })
}

/// Elements that a block of threads dequantizes.
const PER_BLOCK: usize = 256 * 8 * 4;

pub(super) fn dequantize(x: &Quantized, y: ViewMut<'_>) -> Result<()> {
    let n = x.shape.len();
    let none = Arg::U64(0);
    let [absmax, codes, nested, offset] = match &x.scales {
        Scales::Plain { absmax } => [absmax.view().into(), none, none, none],
        Scales::Double { codes, nested_absmax, offset } => {
            [none, codes.view().into(), nested_absmax.view().into(), offset.view().into()]
        }
    };
    y.device().cuda().launch(
        &MODULE,
        "nf4_dequantize",
        [n.div_ceil(PER_BLOCK) as u32, 1, 1],
        &[
            number(x.code_book),
            x.codes.view().into(),
            absmax,
            codes,
            nested,
            offset,
            x.block_size.trailing_zeros().into(),
            (n as u64).into(),
            (&y).into(),
        ],
    )
}

/// `scales` is room for the f32 scales of a doubly quantized weight.
pub(super) fn quantize(x: View<'_>, out: &mut Quantized, scales: Option<Tensor>) -> Result<()> {
    if out.block_size != BLOCK_SIZE {
        return Err(Error::Argument {
            op: super::OP,
            what: format!("blocks of {} elements", out.block_size),
            hint: "a GPU quantizes in blocks of 64, as bitsandbytes does unless told otherwise",
        });
    }
    let (cuda, n) = (x.device().cuda(), out.shape.len());
    let blocks = n.div_ceil(BLOCK_SIZE);
    let absmax: Arg = match (&out.scales, &scales) {
        (Scales::Plain { absmax }, _) => absmax.view().into(),
        (Scales::Double { .. }, Some(scales)) => scales.view().into(),
        (Scales::Double { .. }, None) => unreachable!("the caller took room for the scales"),
    };
    let args =
        [number(out.code_book), x.into(), (n as u64).into(), out.codes.view().into(), absmax];
    cuda.launch(&MODULE, "nf4_quantize", [blocks.div_ceil(8) as u32, 1, 1], &args)?;
    if let Scales::Double { codes, nested_absmax, offset } = &out.scales {
        let count = Arg::U64(blocks as u64);
        let args = [absmax, count, offset.view().into()];
        cuda.launch(&MODULE, "nf4_mean", [1, 1, 1], &args)?;
        let args =
            [absmax, count, offset.view().into(), codes.view().into(), nested_absmax.view().into()];
        let grid = [blocks.div_ceil(NESTED_BLOCK_SIZE) as u32, 1, 1];
        cuda.launch(&MODULE, "nf4_quantize_absmax", grid, &args)?;
    }
    Ok(())
}
