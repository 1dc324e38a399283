//! What the tests of this room share: models of fixtures/models on a device, token trees packed into a pass, and a
//! step over them.

use std::path::PathBuf;

use engine::device::Device;
use engine::memory::arena::Category;
use engine::ops::attention::Segment;
use engine::random::Stream;
use engine::tensor::Tensor;

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::decoder::{self, Dropout, Keep, Model, Pass, RowGroup};
use crate::head;
use crate::lora::{Adapter, LoraConfig};
use crate::trained::Gradients;
use crate::weights::{self, Quantization, Storage};

/// Models of fixtures/models; between them every field of a family is both on and off.
pub(crate) const MODELS: [&str; 25] = [
    "llama_tied",
    "llama3_rope",
    "llama_bias",
    "mistral_window",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "qwen3_window",
    "sharded",
    "llama_yarn",
    "qwen3_yarn",
    "gemma2",
    "gemma2_uncapped",
    "gemma3",
    "gemma3_capped",
    "gemma2_wide",
    "gemma3_wide",
    "phi3",
    "phi3_longrope",
    "olmo2",
    "smollm3",
    "smollm3_window",
    "granite",
    "gemma3_multimodal",
    "gemma3_multimodal_5",
];

/// Models of fixtures/models as bitsandbytes stores them, and one in f16.
pub(crate) const STORED: [&str; 5] =
    ["bnb_fp4", "bnb_fp4_dq", "bnb_nf4_dynamic", "bnb_int8", "llama_f16"];

/// A path under fixtures/, where the tests are run, not where they were built: a bundle takes both elsewhere.
pub(crate) fn fixture(path: &str) -> PathBuf {
    let here = std::env::var("CARGO_MANIFEST_DIR");
    let here = here.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    PathBuf::from(here).join("../../fixtures").join(path)
}

/// A model of fixtures/models in f32, with 64 positions.
pub(crate) fn model(device: &Device, name: &str) -> Model {
    held(device, name, Quantization::None, Storage::F32)
}

/// The same, its weights held as asked.
pub(crate) fn held(
    device: &Device,
    name: &str,
    quantization: Quantization,
    storage: Storage,
) -> Model {
    let folder = fixture("models").join(name);
    let config = ModelConfig::load(&folder).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let weights = weights::load(device, &config, Some(&checkpoint), quantization, storage).unwrap();
    Model::new(device, config, weights, 64).unwrap()
}

/// What adapters of these tests are made of.
pub(crate) fn lora() -> LoraConfig {
    LoraConfig { r: 3, lora_alpha: 6.0, ..LoraConfig::default() }
}

/// An adapter whose matrices are all random, so that each has a gradient; magnitudes and whole modules are near the
/// base's.
pub(crate) fn adapter(model: &Model, lora: &LoraConfig, seed: u64) -> Adapter {
    let mut adapter = Adapter::zeros(model.device(), &model.config, lora).unwrap();
    let noise =
        |tensor: &Tensor, i: usize| Stream::new(seed, i as u64).uniforms(tensor.shape().len(), 0.3);
    let plan = model.device().is_plan();
    for (i, (_, tensor)) in adapter.tensors_mut().into_iter().enumerate() {
        tensor.write(&noise(tensor, i)).unwrap();
    }
    adapter.measure(&model.weights).unwrap();
    adapter.take_the_bases(&model.weights).unwrap();
    for (i, (name, tensor)) in adapter.tensors_mut().into_iter().enumerate() {
        if !plan && !name.contains(".lora_A") && !name.contains(".lora_B") {
            let noise = noise(tensor, i);
            let mut values = tensor.to_vec::<f32>().unwrap();
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value *= 1.0 + noise);
            tensor.write(&values).unwrap();
        }
    }
    adapter
}

/// A prompt with what is scored behind it.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) prompt: Vec<u32>,
    /// Completions that gradient flows through.
    pub(crate) trained: Vec<Vec<u32>>,
    /// Completions that are scored alone.
    pub(crate) scored: Vec<Vec<u32>>,
}

impl Tree {
    /// A prompt with one completion that is trained.
    pub(crate) fn line(prompt: &[u32], completion: &[u32]) -> Tree {
        Tree { prompt: prompt.to_vec(), trained: vec![completion.to_vec()], scored: Vec::new() }
    }
}

/// Token trees laid out in rows.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) segments: Vec<Segment>,
    /// Row and target of every completion's tokens: first the trained ones, then the scored ones, then those of the
    /// groups that ride along.
    pub(crate) completions: Vec<Vec<(u32, u32)>>,
    /// How many of the completions are trained.
    pub(crate) trained: usize,
    pub(crate) grad_rows: usize,
    /// Last row of each group, exclusive.
    pub(crate) ends: Vec<usize>,
}

impl Packed {
    /// The policy's trees, then those of each group that rides along.
    pub(crate) fn new(policy: &[Tree], others: &[Vec<Tree>]) -> Packed {
        let mut packed = Packed::default();
        let prompts: Vec<Segment> = policy
            .iter()
            .map(|tree| {
                let prompt = packed.segment(&tree.prompt, None);
                tree.trained.iter().for_each(|completion| packed.completion(&prompt, completion));
                prompt
            })
            .collect();
        packed.grad_rows = packed.tokens.len();
        packed.trained = packed.completions.len();
        for (tree, prompt) in policy.iter().zip(&prompts) {
            tree.scored.iter().for_each(|completion| packed.completion(prompt, completion));
        }
        packed.ends.push(packed.tokens.len());
        for trees in others {
            for tree in trees {
                let prompt = packed.segment(&tree.prompt, None);
                for completion in tree.trained.iter().chain(&tree.scored) {
                    packed.completion(&prompt, completion);
                }
            }
            packed.ends.push(packed.tokens.len());
        }
        packed
    }

    fn segment(&mut self, tokens: &[u32], parent: Option<&Segment>) -> Segment {
        let start = self.tokens.len();
        let position0 = parent.map_or(0, |parent| parent.len);
        let segment = Segment {
            query_start: start,
            key_start: start,
            len: tokens.len(),
            parent_start: parent.map_or(0, |parent| parent.query_start),
            parent_len: position0,
            position0,
        };
        self.tokens.extend(tokens);
        self.positions.extend((position0..position0 + tokens.len()).map(|at| at as u32));
        self.segments.push(segment);
        segment
    }

    fn completion(&mut self, prompt: &Segment, tokens: &[u32]) {
        let segment = self.segment(tokens, Some(prompt));
        let last = prompt.query_start + prompt.len - 1;
        let rows = std::iter::once(last).chain(segment.query_start..);
        let items = rows.zip(tokens).map(|(row, token)| (row as u32, *token)).collect();
        self.completions.push(items);
    }

    /// The factor of each item's log-probability in the loss: another one for every item that is trained, 0 for others.
    pub(crate) fn weights(&self) -> Vec<f32> {
        let factor = |completion: usize, i: usize| {
            if completion < self.trained {
                0.5 - ((completion * 5 + i * 3) % 7) as f32 / 4.0
            } else {
                0.0
            }
        };
        let of = |(at, items): (usize, &Vec<_>)| (0..items.len()).map(move |i| factor(at, i));
        self.completions.iter().enumerate().flat_map(of).collect()
    }
}

/// How a step runs.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The adapter of each group.
    pub(crate) adapters: &'a [Option<&'a Adapter>],
    pub(crate) keep: Keep,
    pub(crate) dropout: Option<Dropout>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(adapters: &'a [Option<&'a Adapter>]) -> Run<'a> {
        Run { adapters, keep: Keep::All, dropout: None }
    }
}

/// The log-probability of every item; with `gradients`, backward of their weighted sum is added to them.
pub(crate) fn step(
    model: &Model,
    packed: &Packed,
    run: Run<'_>,
    gradients: Option<&mut Gradients<'_>>,
) -> Vec<f32> {
    let device = model.device();
    let (tokens, positions) =
        (device.upload(&packed.tokens).unwrap(), device.upload(&packed.positions).unwrap());
    let mut start = 0;
    let groups = packed.ends.iter().zip(run.adapters).map(|(end, adapter)| {
        let rows = start..*end;
        start = *end;
        RowGroup { rows, adapter: *adapter }
    });
    let grad_rows = if gradients.is_some() { packed.grad_rows } else { 0 };
    let pass = Pass {
        tokens: tokens.view(),
        ids: &packed.tokens,
        positions: positions.view(),
        segments: packed.segments.clone(),
        groups: groups.collect(),
        grad_rows,
        dropout: run.dropout,
    };
    let keep = vec![run.keep; model.config.num_hidden_layers];
    let items: Vec<(u32, u32)> = packed.completions.iter().flatten().copied().collect();
    let (hidden, mut kept) = decoder::forward(model, &pass, &keep).unwrap().into_parts();
    let scored = head::forward(model, hidden.view(), &pass.groups, &items, grad_rows).unwrap();
    let logps = scored.logps.clone();
    if let Some(gradients) = gradients {
        let shape = (grad_rows, model.config.hidden_size);
        let mut dhidden =
            device.scratch(shape, device.activations(), Category::Activations).unwrap();
        let (policy, dlogps) = (run.adapters[0], packed.weights());
        head::backward(model, policy, &scored, &dlogps, dhidden.view_mut(), gradients).unwrap();
        decoder::backward(model, &pass, &mut kept, dhidden.view_mut(), gradients).unwrap();
    }
    logps
}

/// The logits behind every row.
pub(crate) fn logits(model: &Model, adapter: Option<&Adapter>, packed: &Packed) -> Vec<f32> {
    let device = model.device();
    let tokens = device.upload(&packed.tokens).unwrap();
    let positions = device.upload(&packed.positions).unwrap();
    let pass = Pass {
        tokens: tokens.view(),
        ids: &packed.tokens,
        positions: positions.view(),
        segments: packed.segments.clone(),
        groups: vec![RowGroup { rows: 0..packed.tokens.len(), adapter }],
        grad_rows: 0,
        dropout: None,
    };
    let hidden = decoder::forward(model, &pass, &[]).unwrap().hidden;
    head::logits(model, adapter, hidden.view()).unwrap()
}

/// The weighted sum whose gradient [`step`] computes.
pub(crate) fn loss(model: &Model, packed: &Packed, run: Run<'_>) -> f64 {
    engine::testing::dot(&step(model, packed, run, None), &packed.weights())
}
