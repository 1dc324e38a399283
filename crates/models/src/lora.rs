//! LoRA: `y = x W^T + s (x A^T) B^T` (Hu et al., arXiv 2106.09685), with PEFT 0.21's initialization and scale.

use engine::device::Device;
use engine::dtype::DType;
use engine::memory::arena::Category;
use engine::random::Stream;
use engine::tensor::Tensor;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::weights::{LINEARS, Linear};

/// What an adapter is made of, by PEFT's names.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// The scale is `lora_alpha / sqrt(r)` (arXiv 2312.03732) instead of `lora_alpha / r`.
    pub use_rslora: bool,
    /// Share of inputs dropped in SFT.
    pub lora_dropout: f64,
    /// The modules that get matrices.
    pub target_modules: Targets,
}

/// Which modules get matrices.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Every linear layer but the head.
    AllLinear,
    /// Modules whose path is, or ends in a dot and, one of these.
    Suffixes(Vec<String>),
}

impl LoraConfig {
    /// What `(x A^T) B^T` is multiplied with.
    pub fn scale(&self) -> f32 {
        let r = self.r as f64;
        (self.lora_alpha / if self.use_rslora { r.sqrt() } else { r }) as f32
    }

    /// Whether the linear layer of a block gets matrices.
    pub fn targets(&self, layer: usize, linear: Linear) -> bool {
        match &self.target_modules {
            Targets::AllLinear => true,
            Targets::Suffixes(suffixes) => {
                let path = format!("model.layers.{layer}.{}", linear.path());
                suffixes
                    .iter()
                    .any(|suffix| path == *suffix || path.ends_with(&format!(".{suffix}")))
            }
        }
    }

    /// Refuses a list that names nothing of the model.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let Targets::Suffixes(suffixes) = &self.target_modules else { return Ok(()) };
        for suffix in suffixes {
            let one = LoraConfig {
                target_modules: Targets::Suffixes(vec![suffix.clone()]),
                ..self.clone()
            };
            let hits = |layer| config.linears().iter().any(|linear| one.targets(layer, *linear));
            if !(0..config.num_hidden_layers).any(hits) {
                let names: Vec<&str> =
                    config.linears().iter().map(|linear| linear.name()).collect();
                return Err(Error::input(
                    format!(
                        "target_modules names '{suffix}', which no linear layer of the model is called"
                    ),
                    format!(
                        "the modules are {}; the head and the embeddings take no adapter",
                        names.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The two matrices of one linear layer.
pub struct Lora {
    /// (r, in).
    pub a: Tensor,
    /// (out, r).
    pub b: Tensor,
}

/// The matrices of a model, or their gradients.
pub struct Adapter {
    /// What they are made of.
    pub config: LoraConfig,
    /// The path of the module that holds the blocks, within the model.
    pub decoder_path: &'static str,
    /// By block and [`Linear`].
    pub layers: Vec<[Option<Lora>; LINEARS]>,
}

impl Adapter {
    /// Zero matrices where `lora` says: room for gradients, or for an adapter that is read.
    pub fn zeros(device: &Device, config: &ModelConfig, lora: &LoraConfig) -> Result<Adapter> {
        lora.check(config)?;
        let take = |shape: (usize, usize)| -> Result<Tensor> {
            let mut tensor = device.persistent(shape, DType::F32, Category::Adapter)?;
            tensor.zero();
            Ok(tensor)
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let mut matrices = [const { None }; LINEARS];
            for linear in config.linears() {
                if lora.targets(layer, *linear) {
                    let (out, input) = linear.shape(config);
                    matrices[*linear as usize] =
                        Some(Lora { a: take((lora.r, input))?, b: take((out, lora.r))? });
                }
            }
            layers.push(matrices);
        }
        Ok(Adapter { config: lora.clone(), decoder_path: config.decoder_path(), layers })
    }

    /// As PEFT starts: A uniform in `+-1 / sqrt(in)` (Kaiming's with a = sqrt 5), B zero, so that the model is
    /// the base at first.
    pub fn initialize(&mut self, seed: u64) -> Result<()> {
        for (layer, matrices) in self.layers.iter_mut().enumerate() {
            for (linear, lora) in Linear::ALL.into_iter().zip(matrices) {
                let Some(lora) = lora else { continue };
                if lora.a.device().is_plan() {
                    continue;
                }
                let bound = 1.0 / (lora.a.cols() as f32).sqrt();
                let values =
                    Stream::new(seed, linear.stream(layer)).uniforms(lora.a.shape().len(), bound);
                lora.a.write(&values)?;
                lora.b.zero();
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

    /// All matrices with PEFT's names, in a fixed order.
    pub fn tensors_mut(&mut self) -> Vec<(String, &mut Tensor)> {
        let mut all = Vec::new();
        let blocks = format!("base_model.model.{}.layers", self.decoder_path);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            for (linear, lora) in Linear::ALL.into_iter().zip(layer) {
                let Some(lora) = lora else { continue };
                let path = format!("{blocks}.{i}.{}", linear.path());
                all.push((format!("{path}.lora_A.weight"), &mut lora.a));
                all.push((format!("{path}.lora_B.weight"), &mut lora.b));
            }
        }
        all
    }

    /// How many numbers it has.
    pub fn num_parameters(&self) -> usize {
        let pair = |lora: &Lora| lora.a.shape().len() + lora.b.shape().len();
        self.layers.iter().flatten().flatten().map(pair).sum()
    }
}
