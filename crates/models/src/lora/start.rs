//! How an adapter starts: PEFT 0.21's `init_lora_weights`.
//!
//! * default: A uniform in `+-1 / sqrt(in)` (Kaiming's with a = sqrt 5), B zero
//! * `gaussian`: A normal with deviation `1 / r`, B zero
//! * `pissa` (arXiv 2404.02948): `s B A` is the best approximation of W of rank r, and the base becomes the rest,
//!   `W - s B A`; a base in 4 bits holds the rest in 4 bits. `pissa_niter_N` finds it by N steps of subspace iteration
//! * `olora` (arXiv 2406.01775): `B A` is the first r columns of Q with the first r rows of R of W = Q R, and the base
//!   becomes the rest
//! * `loftq` (arXiv 2310.08659, one iteration, as PEFT's `replace_lora_weights_loftq`): `s B A` is the best approximation
//!   of what 4 bits have lost of W; the base stays as it is. PEFT leaves the scale out, which is the same where it is 1

use engine::device::{Device, Kind};
use engine::dtype::DType;
use engine::memory::arena::{Category, aligned};
use engine::ops::int8;
use engine::ops::matmul::{self, Output};
use engine::ops::nf4::{self, CodeBook};
use engine::random::Stream;
use engine::tensor::{Tensor, View};
use half::bf16;
use safetensors::Dtype;

use super::{Adapter, Lora};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::lowrank::{self, Factors};
use crate::weights::{Linear, Storage, Visited, Weight, Weights};

/// What the matrices are before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A random, B zero.
    Default,
    /// A random in another way, B zero.
    Gaussian,
    /// The leading part of W, which the base loses.
    Pissa {
        /// Steps of subspace iteration; none for the exact part of small matrices.
        niter: Option<usize>,
    },
    /// A part of W that is cheaper to find, which the base loses.
    Olora,
    /// The leading part of what quantization loses.
    Loftq {
        /// The scales of the base's blocks are quantized as well.
        double_quant: bool,
    },
}

/// The longest shorter side for which all singular vectors are computed, in a second or two; beyond, these steps of
/// subspace iteration, the number PiSSA's authors use.
const EXACT: usize = 256;
const STEPS: usize = 16;

impl Start {
    /// Whether the base is changed, so that the adapter alone says nothing.
    pub fn changes_base(self) -> bool {
        matches!(self, Start::Pissa { .. } | Start::Olora)
    }

    /// As it is written.
    pub fn name(self) -> String {
        match self {
            Start::Default => "default".to_owned(),
            Start::Gaussian => "gaussian".to_owned(),
            Start::Pissa { niter: None } => "pissa".to_owned(),
            Start::Pissa { niter: Some(steps) } => format!("pissa_niter_{steps}"),
            Start::Olora => "olora".to_owned(),
            Start::Loftq { .. } => "loftq".to_owned(),
        }
    }
}

/// What the base was made of.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// Its tensors; a plan can be made without.
    pub checkpoint: Option<&'a Checkpoint>,
    /// What dense weights are held in.
    pub storage: Storage,
}

impl Adapter {
    /// Starts the adapter as its config says, and the base with it where that says so.
    pub fn start(&mut self, weights: &mut Weights, base: Base<'_>, seed: u64) -> Result<()> {
        for (index, matrices) in self.layers.iter_mut().enumerate() {
            for linear in Linear::ALL {
                let Some(lora) = &mut matrices[linear as usize] else { continue };
                let stream = Stream::new(seed, linear.stream(index));
                match self.config.start {
                    Start::Default | Start::Gaussian if lora.a.device().is_plan() => {}
                    Start::Default => {
                        let bound = 1.0 / (lora.a.cols() as f32).sqrt();
                        lora.a.write(&stream.uniforms(lora.a.shape().len(), bound))?;
                    }
                    Start::Gaussian => {
                        let deviation = 1.0 / lora.a.rows() as f32;
                        let normals = stream.normals(lora.a.shape().len());
                        let values: Vec<f32> = normals.iter().map(|x| x * deviation).collect();
                        lora.a.write(&values)?;
                    }
                    start => {
                        let name = format!("model.layers.{index}.{}.weight", linear.path());
                        let weight = &mut weights.layers[index].linears[linear as usize];
                        let Some(weight) = weight else { continue };
                        from_weight(start, lora, weight, base, &name, stream)?;
                    }
                }
            }
        }
        self.measure(weights)?;
        self.take_the_bases(weights)
    }

    /// Sets whole modules to the base's and magnitudes to the lengths that were measured.
    pub(crate) fn take_the_bases(&mut self, weights: &Weights) -> Result<()> {
        for (module, tensor) in &mut self.saved {
            if let Some(held) = module.of(weights) {
                copy(held, tensor)?;
            }
        }
        self.take_lengths_as_magnitudes()
    }
}

/// Copies a weight of the base, f32 or bf16, into an f32 tensor.
fn copy(from: &Tensor, to: &mut Tensor) -> Result<()> {
    if to.device().is_plan() {
        return Ok(());
    }
    match from.dtype() {
        DType::F32 if !from.device().is(to.device()) => to.write(&from.to_vec::<f32>()?)?,
        DType::BF16 => {
            let values: Vec<bf16> = from.to_vec()?;
            to.write(&values.into_iter().map(bf16::to_f32).collect::<Vec<f32>>())?;
        }
        _ => to.copy_prefix(from.view()),
    }
    Ok(())
}

/// Starts one pair of matrices from the weight they stand beside.
fn from_weight(
    start: Start,
    lora: &mut Lora,
    weight: &mut Weight,
    base: Base<'_>,
    name: &str,
    stream: Stream,
) -> Result<()> {
    let (rows, cols, r) = (lora.b.rows(), lora.a.cols(), lora.a.rows());
    check(start, lora, weight, base, name)?;
    // Factors are found on the host: in the run's own arena where that is host memory.
    let device = lora.a.device().clone();
    let host = match device.arithmetic() {
        Kind::Cuda if device.is_plan() => None,
        Kind::Cuda => Some(Device::cpu(
            2 * aligned(4 * rows * cols)
                + aligned(4 * r * (rows + cols))
                + lowrank::workspace_bytes(rows, cols, r)
                + 8192,
        )?),
        _ => Some(device.clone()),
    };
    if let Some(host) = &host {
        let take = |rows, cols| host.scratch((rows, cols), DType::F32, Category::Workspace);
        let mut exact = take(rows, cols)?;
        if let (Some(checkpoint), false) = (base.checkpoint, device.is_plan()) {
            let stored = checkpoint.expect(name, &[rows, cols])?;
            exact.fill(|values| stored.to_f32(name, values))?;
            if base.storage == Storage::Bf16 {
                round(exact.as_mut_slice());
            }
        }
        if matches!(start, Start::Loftq { .. }) {
            subtract_held(weight, &mut exact)?;
        }
        let factors = factors(start, exact.view(), r, stream)?;
        let (mut a, mut b) = (take(r, cols)?, take(rows, r)?);
        if let Some(factors) = factors {
            factors.split(lora.scale, start == Start::Olora, &mut a, &mut b);
            lora.a.write(a.as_slice::<f32>())?;
            lora.b.write(b.as_slice::<f32>())?;
        }
        if start.changes_base() {
            let rest = exact.view_mut();
            matmul::backward_input(b.view(), a.view(), -lora.scale, Output::Add, rest)?;
            if !device.is_plan() && base.storage == Storage::Bf16 {
                round(exact.as_mut_slice());
            }
            return hold(weight, Some(exact), &device);
        }
        return Ok(());
    }
    // A plan for a GPU: only what the GPU itself will hold for a while.
    if start.changes_base() {
        return hold(weight, None, &device);
    }
    weight.visit(&device)?;
    Ok(())
}

/// Refuses what has no factors.
fn check(start: Start, lora: &Lora, weight: &Weight, base: Base<'_>, name: &str) -> Result<()> {
    let (rows, cols, r) = (lora.b.rows(), lora.a.cols(), lora.a.rows());
    let init = start.name();
    if base
        .checkpoint
        .and_then(|checkpoint| checkpoint.get(name))
        .is_some_and(|stored| matches!(stored.dtype, Dtype::U8 | Dtype::I8))
    {
        return Err(Error::input(
            format!(
                "adapter.init = \"{init}\" needs exact weights, and {name} is stored quantized"
            ),
            "take the checkpoint it was quantized from; quantization = \"nf4\" quantizes it on load",
        ));
    }
    let is_nf4 = matches!(weight, Weight::FourBit(held) if held.code_book == CodeBook::Nf4);
    if matches!(start, Start::Loftq { .. }) && !is_nf4 && !matches!(weight, Weight::Dense(_)) {
        return Err(Error::input(
            "adapter.init = \"loftq\" makes up for what nf4 loses, and the model is quantized otherwise",
            "write model.quantization = \"nf4\", or take another init",
        ));
    }
    if matches!((start, weight), (Start::Loftq { .. }, Weight::Dense(_))) {
        return Err(Error::input(
            "adapter.init = \"loftq\" makes up for what quantization loses, and the model is not quantized",
            "write model.quantization = \"nf4\", or take another init",
        ));
    }
    if r > rows.min(cols) {
        return Err(Error::input(
            format!(
                "adapter.init = \"{init}\" with r = {r}, but {name} is {rows} x {cols} and has no more than {} parts",
                rows.min(cols)
            ),
            "lower r, for this module by rank_pattern",
        ));
    }
    if lora.scale <= 0.0 {
        return Err(Error::input(
            format!("adapter.init = \"{init}\" divides by the scale, which is {}", lora.scale),
            "write lora_alpha above 0",
        ));
    }
    Ok(())
}

/// The factors of `matrix` that the matrices start from; none on `plan`.
fn factors(start: Start, matrix: View<'_>, r: usize, stream: Stream) -> Result<Option<Factors>> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let steps = match start {
        Start::Olora if matrix.device().is_plan() => return Ok(None),
        Start::Olora => {
            let matrix = matrix.as_slice::<f32>();
            let u = lowrank::first_columns_of_q(matrix, cols, r);
            let mut v = vec![0f64; r * cols];
            for (v, u) in v.chunks_mut(cols).zip(u.chunks(rows)) {
                for (row, u) in matrix.chunks(cols).zip(u) {
                    v.iter_mut().zip(row).for_each(|(v, x)| *v += u * f64::from(*x));
                }
            }
            return Ok(Some(Factors { u, s: vec![1.0; r], v }));
        }
        Start::Pissa { niter: Some(steps) } => steps,
        _ if rows.min(cols) > EXACT => STEPS,
        _ if matrix.device().is_plan() => return Ok(None),
        _ => return Ok(Some(lowrank::exact(matrix.as_slice(), rows, r))),
    };
    lowrank::leading(matrix, r, steps, stream)
}

impl Factors {
    /// `A = sqrt(S / scale) V^T` and `B = U sqrt(S / scale)`. OLoRA takes Q and R as they are.
    fn split(&self, scale: f32, as_they_are: bool, a: &mut Tensor, b: &mut Tensor) {
        let (r, rows, cols) = (a.rows(), b.rows(), a.cols());
        let (a, b) = (a.as_mut_slice::<f32>(), b.as_mut_slice::<f32>());
        for (i, s) in self.s.iter().enumerate() {
            let root = if as_they_are { 1.0 } else { (s / f64::from(scale)).sqrt() };
            for (a, v) in a[i * cols..][..cols].iter_mut().zip(&self.v[i * cols..]) {
                *a = (root * v) as f32;
            }
            for (row, u) in self.u[i * rows..][..rows].iter().enumerate() {
                b[row * r + i] = (root * u) as f32;
            }
        }
    }
}

fn round(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = bf16::from_f32(*value).to_f32());
}

/// Takes what the device holds of the weight from the exact weight.
fn subtract_held(weight: &Weight, exact: &mut Tensor) -> Result<()> {
    let device = match weight {
        Weight::Dense(tensor) => tensor.device(),
        Weight::FourBit(held) => held.codes.device(),
        Weight::Int8(held) => held.scb.device(),
    };
    let held = weight.visit(device)?;
    let held = match held.view().dtype() {
        _ if device.is_plan() => return Ok(()),
        DType::BF16 => held.view().to_vec::<bf16>()?.into_iter().map(bf16::to_f32).collect(),
        _ => held.view().to_vec::<f32>()?,
    };
    exact.as_mut_slice::<f32>().iter_mut().zip(held).for_each(|(exact, held)| *exact -= held);
    Ok(())
}

fn quantize(values: View<'_>, weight: &mut Weight) -> Result<()> {
    match weight {
        Weight::Dense(_) => {}
        Weight::FourBit(held) => nf4::quantize(values, held)?,
        Weight::Int8(held) => int8::quantize(values, held)?,
    }
    Ok(())
}

/// Has the device hold `values` as the weight; a plan for a GPU has none.
fn hold(weight: &mut Weight, values: Option<Tensor>, device: &Device) -> Result<()> {
    let narrow = |values: &Tensor| -> Vec<bf16> {
        values.as_slice::<f32>().iter().map(|value| bf16::from_f32(*value)).collect()
    };
    let shape = match weight {
        Weight::Dense(_) if device.is_plan() => return Ok(()),
        Weight::Dense(tensor) => {
            let Some(values) = values else { return Ok(()) };
            match tensor.dtype() {
                DType::BF16 => tensor.write(&narrow(&values))?,
                _ => tensor.write(values.as_slice::<f32>())?,
            }
            return Ok(());
        }
        Weight::FourBit(held) => held.shape,
        Weight::Int8(held) => held.shape(),
    };
    if device.arithmetic() == Kind::Cuda {
        let mut staged = device.scratch(shape, DType::BF16, Category::Workspace)?;
        if let Some(values) = &values {
            staged.write(&narrow(values))?;
        }
        return quantize(staged.view(), weight);
    }
    let Some(values) = values else { return Ok(()) };
    quantize(Visited::of(values.view())?.view(), weight)
}
