//! The launches of flash_forward.cu and flash_backward.cu.

use super::super::segments::{Segments, TILE};
use super::super::{Heads, Saved};
use super::{Workspace, soft_cap, window};
use crate::cuda::{Cuda, Module};
use crate::error::Result;
use crate::tensor::{View, ViewMut};

/// Threads of a block, in warps of 32.
const THREADS: u32 = 128;
const WARPS: usize = 4;

/// The kernels of a head size.
pub(in super::super) struct Flash {
    head_dim: usize,
    pub(super) forward: Module,
    pub(super) backward: Module,
}

/// Rows that a block of a kernel owns, and those of the other side that it reads at a time: the numbers of the source.
#[derive(Clone, Copy)]
struct Block {
    own: usize,
    other: usize,
}

const TALL: Block = Block { own: WARPS * 32, other: 64 };
const SHORT: Block = Block { own: WARPS * 16, other: 32 };

/// Backward of heads for whose sums two warps share 16 rows: they begin with their own rows where those of the other
/// side lie later.
const PAIRS: Block = Block { own: WARPS * 16, other: 32 };

const fn backward_threads(head_dim: usize) -> u32 {
    if head_dim > 128 { 2 * THREADS } else { THREADS }
}

/// Bytes of the tiles of either kernel of backward, and of `rooms` in which a pair hands scores over.
const fn backward_bytes(block: Block, head_dim: usize, rooms: usize) -> u32 {
    if head_dim > 128 {
        shared_bytes(block, 0, head_dim) + (rooms * WARPS * 16 * block.other * 4) as u32
    } else {
        shared_bytes(block, 2, head_dim)
    }
}

const fn queries_bytes(head_dim: usize) -> u32 {
    backward_bytes(queries_backward(head_dim), head_dim, 2)
}

const fn queries_backward(head_dim: usize) -> Block {
    match head_dim {
        64 => Block { own: WARPS * 32, other: 64 },
        80 | 96 | 128 => Block { own: WARPS * 32, other: 32 },
        _ => PAIRS,
    }
}

const fn keys_backward(head_dim: usize) -> Block {
    match head_dim {
        64 => Block { own: WARPS * 32, other: 32 },
        80 | 96 | 128 => Block { own: WARPS * 16, other: 64 },
        _ => PAIRS,
    }
}

/// Bytes of shared memory: `own` tiles of the block's rows, and two buffers of two tiles of the others.
const fn shared_bytes(block: Block, own: usize, head_dim: usize) -> u32 {
    ((own * block.own + 4 * block.other) * head_dim * 2) as u32
}

/// And two buffers of the two numbers that backward keeps of a query.
const fn keys_bytes(head_dim: usize) -> u32 {
    let block = keys_backward(head_dim);
    backward_bytes(block, head_dim, 1) + (2 * block.other * 8) as u32
}

macro_rules! flash {
    ($head_dim:literal $(, $tall:expr)?) => {
        Flash {
            head_dim: $head_dim,
            forward: Module {
                name: concat!("flash_forward_", $head_dim),
                ptx: include_str!(concat!("../flash_forward_", $head_dim, ".ptx")),
                kernels: &[
                    ("flash_forward", THREADS, shared_bytes(SHORT, 1, $head_dim)),
                    $(("flash_forward_tall", THREADS, shared_bytes($tall, 1, $head_dim)))?
                ],
            },
            backward: Module {
                name: concat!("flash_backward_", $head_dim),
                ptx: include_str!(concat!("../flash_backward_", $head_dim, ".ptx")),
                kernels: &[
                    ("flash_backward_rows", THREADS, 0),
                    (
                        "flash_backward_queries",
                        backward_threads($head_dim),
                        queries_bytes($head_dim),
                    ),
                    ("flash_backward_keys", backward_threads($head_dim), keys_bytes($head_dim)),
                ],
            },
        }
    };
}

pub(in super::super) static FLASH: [Flash; 5] =
    [flash!(64, TALL), flash!(80, TALL), flash!(96, TALL), flash!(128, TALL), flash!(256)];

/// The kernels of a head size, where there are some.
pub(super) fn of(head_dim: usize) -> Option<&'static Flash> {
    FLASH.iter().find(|flash| flash.head_dim == head_dim)
}

fn chosen(heads: Heads) -> &'static Flash {
    match of(heads.head_dim) {
        Some(flash) => flash,
        None => unreachable!("heads are checked before they come here"),
    }
}

/// Bytes of shared memory that the blocks of a multiprocessor have together (CUDA C++ Programming Guide, table of
/// technical specifications per compute capability; each block takes 1 KiB besides its own).
fn shared_of_multiprocessor(capability: (u32, u32)) -> u32 {
    let kib = match capability {
        (8, 0 | 7) => 164,
        (9..=11, _) => 228,
        _ => 100,
    };
    kib << 10
}

/// The taller kernel reads shared memory half as often, but two blocks of it must fit a multiprocessor, and rows must
/// be enough to fill it.
fn tall(cuda: &Cuda, flash: &Flash, segments: &Segments) -> bool {
    let longest = segments.iter().map(|segment| segment.len).max().unwrap_or(0);
    let room = shared_of_multiprocessor(cuda.properties().capability);
    flash.forward.kernels.get(1).is_some_and(|(_, _, shared)| 2 * (shared + 1024) <= room)
        && longest > SHORT.own
}

/// Blocks that share an entry of a table times entries.
fn blocks(entries: usize, own: usize) -> u32 {
    (entries * (TILE / own)) as u32
}

pub(in super::super) fn forward(
    q: View<'_>,
    k: View<'_>,
    v: View<'_>,
    segments: &Segments,
    heads: Heads,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    let tall = tall(q.device().cuda(), chosen(heads), segments);
    forward_as(tall, q, k, v, segments, heads, out, lse)
}

/// With one of the two kernels of a head size, which give the same up to rounding.
pub(in super::super) fn forward_as(
    tall: bool,
    q: View<'_>,
    k: View<'_>,
    v: View<'_>,
    segments: &Segments,
    heads: Heads,
    out: ViewMut<'_>,
    lse: ViewMut<'_>,
) -> Result<()> {
    let (cuda, flash) = (q.device().cuda(), chosen(heads));
    let (table, tiles) = segments.query_table();
    let (kernel, block) =
        if tall { ("flash_forward_tall", TALL) } else { ("flash_forward", SHORT) };
    cuda.launch(
        &flash.forward,
        kernel,
        [heads.num_heads as u32, blocks(tiles, block.own), 1],
        &[
            q.into(),
            k.into(),
            v.into(),
            table.into(),
            (&out).into(),
            (&lse).into(),
            (heads.num_heads as u32).into(),
            heads.group().into(),
            heads.scale.into(),
            window(heads).into(),
            soft_cap(heads).into(),
        ],
    )
}

pub(in super::super) fn backward(
    dout: View<'_>,
    saved: Saved<'_>,
    segments: &Segments,
    heads: Heads,
    workspace: &Workspace,
    dq: ViewMut<'_>,
    dk: ViewMut<'_>,
    dv: ViewMut<'_>,
) -> Result<()> {
    let (cuda, module) = (dout.device().cuda(), &chosen(heads).backward);
    let (n, h, rows) = (saved.q.rows(), heads.num_heads, workspace.tensors[0].view());
    let lanes = (heads.head_dim / 8).next_power_of_two();
    cuda.launch(
        module,
        "flash_backward_rows",
        [(n * h * lanes).div_ceil(THREADS as usize) as u32, 1, 1],
        &[
            dout.into(),
            saved.out.into(),
            saved.lse.into(),
            rows.into(),
            (n as u32).into(),
            (h as u32).into(),
        ],
    )?;
    let common = [dout.into(), saved.q.into(), saved.k.into(), saved.v.into(), rows.into()];
    let shape = [
        (n as u32).into(),
        (h as u32).into(),
        heads.group().into(),
        heads.scale.into(),
        window(heads).into(),
        soft_cap(heads).into(),
    ];
    let (table, tiles) = segments.query_table();
    cuda.launch(
        module,
        "flash_backward_queries",
        [h as u32, blocks(tiles, queries_backward(heads.head_dim).own), 1],
        &[&common[..], &[table.into(), (&dq).into()], &shape].concat(),
    )?;
    let (table, tiles, runs) = segments.key_table();
    let own = keys_backward(heads.head_dim).own;
    cuda.launch(
        module,
        "flash_backward_keys",
        [heads.num_key_value_heads as u32, blocks(tiles, own), 1],
        &[&common[..], &[table.into(), runs.into(), (&dk).into(), (&dv).into()], &shape].concat(),
    )
}
