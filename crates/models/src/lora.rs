//! LoRA: `y = x W^T + s (x A^T) B^T` (Hu et al., arXiv 2106.09685), with PEFT 0.21's names, patterns, scale and starts;
//! DoRA (arXiv 2402.09353) scales each output of it; whole modules that are trained beside it are [`saved`].

pub mod saved;
pub mod start;
pub mod targets;

use std::collections::BTreeMap;

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::ops::dora;
use engine::tensor::Tensor;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::weights::{LINEARS, Linear, Visited, Weights};
use saved::Module;
use start::Start;
use targets::{Names, Pattern, Targets};

/// What an adapter is made of, by PEFT's names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// The scale is `lora_alpha / sqrt(r)` (arXiv 2312.03732) instead of `lora_alpha / r`.
    pub use_rslora: bool,
    /// The length of each output's weight row is trained apart from its direction.
    pub use_dora: bool,
    /// Share of inputs dropped in SFT.
    pub lora_dropout: f64,
    /// Other ranks of the modules that a pattern matches; the first that does counts.
    pub rank_pattern: Vec<(Pattern, usize)>,
    /// The same for `lora_alpha`.
    pub alpha_pattern: Vec<(Pattern, f64)>,
    /// The modules that get matrices.
    pub target_modules: Targets,
    /// Those of them that do not.
    pub exclude_modules: Option<Names>,
    /// The only blocks whose modules do; none for all.
    pub layers_to_transform: Option<Vec<usize>>,
    /// What the list of blocks is called, where PEFT was told; Prospect's models have `layers` alone.
    pub layers_pattern: Vec<String>,
    /// Modules that are trained whole, by the ends of their names.
    pub modules_to_save: Vec<String>,
    /// How the matrices start.
    pub start: Start,
}

impl Default for LoraConfig {
    /// As PEFT's `LoraConfig()` on all linear layers.
    fn default() -> LoraConfig {
        LoraConfig {
            r: 8,
            lora_alpha: 8.0,
            use_rslora: false,
            use_dora: false,
            lora_dropout: 0.0,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            target_modules: Targets::AllLinear,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            start: Start::Default,
        }
    }
}

impl LoraConfig {
    /// Refuses what names nothing of the model, or something that cannot be trained so.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        self.places(config)?;
        saved::modules(config, &self.modules_to_save)?;
        Ok(())
    }

    /// Whether both mean the same adapter of a model, in whatever words.
    pub fn is_alike(&self, other: &LoraConfig, config: &ModelConfig) -> Result<bool> {
        let saved = |lora: &LoraConfig| saved::modules(config, &lora.modules_to_save);
        Ok((self.r, self.lora_alpha, self.use_rslora, self.use_dora)
            == (other.r, other.lora_alpha, other.use_rslora, other.use_dora)
            && self.places(config)? == other.places(config)?
            && saved(self)? == saved(other)?)
    }
}

/// The matrices of one linear layer.
pub struct Lora {
    /// (r, in).
    pub a: Tensor,
    /// (out, r).
    pub b: Tensor,
    /// What `(x A^T) B^T` is multiplied with.
    pub scale: f32,
    /// DoRA's part.
    pub dora: Option<Dora>,
}

/// What DoRA adds to a linear layer's matrices.
pub struct Dora {
    /// (out), trained.
    pub magnitude: Tensor,
    /// (out): the lengths of the rows of `W + s B A` as they are now, see [`Adapter::measure`]. Gradients have none.
    norm: Option<Tensor>,
}

impl Dora {
    /// The lengths of the rows as they were measured last.
    pub(crate) fn norm(&self) -> &Tensor {
        let Some(norm) = &self.norm else {
            unreachable!("an adapter is measured before its first pass")
        };
        norm
    }
}

/// The matrices of a model, or their gradients.
pub struct Adapter {
    /// What they are made of.
    pub config: LoraConfig,
    /// The path of the module that holds the blocks, within the model.
    pub decoder_path: &'static str,
    /// By block and [`Linear`].
    pub layers: Vec<[Option<Lora>; LINEARS]>,
    /// Modules that are trained whole, f32.
    pub saved: BTreeMap<Module, Tensor>,
}

impl Adapter {
    /// Zero matrices where `lora` says: room for gradients, or for an adapter that is read.
    pub fn zeros(device: &Device, config: &ModelConfig, lora: &LoraConfig) -> Result<Adapter> {
        let take = |shape: (usize, usize)| -> Result<Tensor> {
            let mut tensor = device.persistent(shape, DType::F32, Category::Adapter)?;
            tensor.zero();
            Ok(tensor)
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for places in lora.places(config)? {
            let mut matrices = [const { None }; LINEARS];
            for ((linear, place), to) in Linear::ALL.into_iter().zip(places).zip(&mut matrices) {
                let Some(place) = place else { continue };
                let (out, input) = linear.shape(config);
                let dora = match lora.use_dora {
                    true => Some(Dora { magnitude: take((out, 1))?, norm: None }),
                    false => None,
                };
                let (a, b) = (take((place.r, input))?, take((out, place.r))?);
                *to = Some(Lora { a, b, scale: place.scale, dora });
            }
            layers.push(matrices);
        }
        let mut saved = BTreeMap::new();
        for module in saved::modules(config, &lora.modules_to_save)? {
            saved.insert(module, take(module.shape(config))?);
        }
        Ok(Adapter { config: lora.clone(), decoder_path: config.decoder_path(), layers, saved })
    }

    /// Measures the rows of `W + s B A` for DoRA. To be called whenever the matrices or the base have changed, and
    /// before the first pass; the lengths are constants in backward, so once an update is enough.
    pub fn measure(&mut self, weights: &Weights) -> Result<()> {
        for (layer, matrices) in weights.layers.iter().zip(&mut self.layers) {
            for (weight, lora) in layer.linears.iter().zip(matrices) {
                let (Some(weight), Some(Lora { a, b, scale, dora: Some(dora) })) = (weight, lora)
                else {
                    continue;
                };
                let device = a.device().clone();
                if dora.norm.is_none() {
                    let shape = dora.magnitude.shape();
                    dora.norm = Some(device.persistent(shape, DType::F32, Category::Adapter)?);
                }
                let Some(norm) = &mut dora.norm else { continue };
                let (weight, a, b) =
                    (weight.visit(&device)?, Visited::of(a.view())?, Visited::of(b.view())?);
                dora::row_norms(weight.view(), a.view(), b.view(), *scale, norm.view_mut())?;
            }
        }
        Ok(())
    }

    /// Sets every magnitude to the length that was measured, so that the model is the same with and without DoRA.
    fn take_lengths_as_magnitudes(&mut self) -> Result<()> {
        for (index, matrices) in self.layers.iter_mut().enumerate() {
            for (linear, lora) in Linear::ALL.into_iter().zip(matrices) {
                let Some(Lora { dora: Some(dora), .. }) = lora else { continue };
                let norm = dora.norm();
                let zero = match norm.device().is_plan() {
                    true => None,
                    false => norm.to_vec::<f32>()?.iter().position(|norm| *norm == 0.0),
                };
                if let Some(row) = zero {
                    return Err(Error::input(
                        format!(
                            "row {row} of model.layers.{index}.{}.weight is zero, and DoRA divides by its length",
                            linear.path()
                        ),
                        format!(
                            "leave the module out: exclude_modules = [\"layers.{index}.{}\"]",
                            linear.path()
                        ),
                    ));
                }
                let Some(norm) = &dora.norm else { continue };
                dora.magnitude.copy_prefix(norm.view());
            }
        }
        Ok(())
    }

    /// The names of the modules that have matrices.
    pub fn modules(&self) -> Vec<&'static str> {
        let has = |linear: &Linear| {
            self.layers.iter().any(|matrices| matrices[*linear as usize].is_some())
        };
        Linear::ALL.iter().filter(|linear| has(linear)).map(|linear| linear.name()).collect()
    }

    /// All that is trained with PEFT's names, in a fixed order.
    pub fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let mut all = Vec::new();
        let blocks = format!("base_model.model.{}.layers", self.decoder_path);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            for (linear, lora) in Linear::ALL.into_iter().zip(layer) {
                let Some(lora) = lora else { continue };
                let path = format!("{blocks}.{i}.{}", linear.path());
                all.push((format!("{path}.lora_A.weight"), &mut lora.a));
                all.push((format!("{path}.lora_B.weight"), &mut lora.b));
                if let Some(dora) = &mut lora.dora {
                    all.push((format!("{path}.lora_magnitude_vector"), &mut dora.magnitude));
                }
            }
        }
        for (module, tensor) in &mut self.saved {
            let path = module.path_within(self.decoder_path);
            all.push((format!("base_model.model.{path}.weight"), tensor));
        }
        all
    }

    /// Takes the values of `from`, which is made alike.
    pub fn copy_from(&mut self, from: &mut Adapter) {
        for ((_, to), (_, from)) in self.tensors_mut().into_iter().zip(from.tensors_mut()) {
            to.copy_prefix(from.view());
        }
    }

    /// How many numbers it trains.
    pub fn num_parameters(&mut self) -> usize {
        self.tensors_mut().iter().map(|(_, tensor)| tensor.shape().len()).sum()
    }
}
