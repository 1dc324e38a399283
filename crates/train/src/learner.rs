//! What learns: the model, the parameters that are trained with their gradients and optimizer states, and what
//! rewards are measured against.

use engine::device::Device;
use engine::ops::adamw::{self, Hyper, Rule};
use engine::ops::attention::Kernel;
use engine::ops::grad_norm;
use engine::tensor::Tensor;
use models::adapter;
use models::decoder::Model;
use models::lora::Adapter;
use models::lora::start::Base;
use models::trained::Gradients;
use models::weights::{self, Weights};
use objectives::bco::RunningMean;

use crate::error::Result;
use crate::inputs::Inputs;
use crate::recipe::objective::{ObjectiveName, Reference as RecipeReference};
use crate::recipe::optimizer::OptimizerName;
use crate::recipe::training::Attention;

/// The model and what is trained of it.
pub struct Learner {
    /// The base, or all of what is trained.
    pub model: Model,
    trained: Trained,
    states: Vec<adamw::State>,
    rule: Rule,
    /// Updates done.
    pub updates: u64,
    /// The rewards so far, where the objective compares with their mean.
    pub rewards: RunningMean,
}

enum Trained {
    /// An adapter beside a frozen base; `start` is a frozen copy where rewards are measured against it, or where the
    /// base lost a part to it.
    Adapter { policy: Box<Adapter>, gradients: Box<Adapter>, start: Option<Box<Adapter>> },
    /// All weights; `start` is a frozen copy where an objective needs a reference.
    Full { gradients: Box<Weights>, start: Option<Box<Model>> },
}

/// A trained tensor as it is saved.
pub struct Parameter<'a> {
    /// Its name in a file.
    pub name: String,
    /// Its values.
    pub value: &'a Tensor,
    /// What they were at the start, where the base lost a part to them.
    pub start: Option<&'a Tensor>,
    /// The optimizer's.
    pub state: &'a mut adamw::State,
}

/// What the reference's log-probabilities are computed with.
pub enum Reference<'a> {
    /// The objective has none.
    None,
    /// The policy's model, with this adapter or none: its rows ride along.
    Along(Option<&'a Adapter>),
    /// Another model: a pass of its own.
    Apart(&'a Model),
}

impl Learner {
    /// Loads the model and whatever is trained. `positions` is the longest sequence the run meets.
    /// With `host_table` the embeddings lie in the host's memory.
    pub fn new(
        device: &Device,
        inputs: &Inputs,
        positions: usize,
        host_table: bool,
    ) -> Result<Learner> {
        let load = || -> Result<Model> {
            let table = if host_table { device.host() } else { device };
            let weights = weights::load_beside(
                device,
                table,
                &inputs.config,
                inputs.checkpoint.as_ref(),
                inputs.quantization(),
                inputs.storage(),
            )?;
            let mut model = Model::new(device, inputs.config.clone(), weights, positions)?;
            if inputs.recipe.train.attention == Attention::Standard {
                model.attention = Kernel::Standard;
            }
            Ok(model)
        };
        let mut model = load()?;
        let objective = &inputs.recipe.objective;
        let mut trained = match &inputs.lora {
            Some(lora) => {
                let init_from =
                    inputs.recipe.adapter.as_ref().and_then(|adapter| adapter.init_from.as_ref());
                let mut policy = match init_from {
                    Some(folder) => {
                        let mut adapter = adapter::load(&model, folder)?;
                        adapter.config.lora_dropout = lora.lora_dropout;
                        adapter
                    }
                    None => {
                        let mut adapter = Adapter::zeros(device, &inputs.config, lora)?;
                        let (checkpoint, storage) = (inputs.checkpoint.as_ref(), inputs.storage());
                        let base = Base { checkpoint, storage };
                        adapter.start(&mut model.weights, base, inputs.recipe.seed)?;
                        adapter
                    }
                };
                // A base that lost a part is whole again with the part it lost: that is the reference then.
                let needs_start = policy.config.start.changes_base()
                    || objective.reference == RecipeReference::Start
                        && objective.name.needs_reference();
                let start = match needs_start {
                    false => None,
                    true => {
                        let mut start = Adapter::zeros(device, &inputs.config, &policy.config)?;
                        start.copy_from(&mut policy);
                        start.measure(&model.weights)?;
                        Some(Box::new(start))
                    }
                };
                let gradients = Box::new(Adapter::zeros(device, &inputs.config, &policy.config)?);
                Trained::Adapter { policy: Box::new(policy), gradients, start }
            }
            None => Trained::Full {
                gradients: Box::new(Weights::zeros(device, &inputs.config)?),
                start: match objective.name.needs_reference() {
                    false => None,
                    true => Some(Box::new(load()?)),
                },
            },
        };
        let rule = match inputs.recipe.optimizer.name {
            OptimizerName::Adamw => Rule::Torch,
            OptimizerName::Adamw8bit => Rule::BitsAndBytes,
        };
        let mut states = Vec::new();
        for (_, value, _) in pairs(&mut model, &mut trained) {
            states.push(adamw::State::new(device, rule, value.shape().len())?);
        }
        Ok(Learner { model, trained, states, rule, updates: 0, rewards: RunningMean::default() })
    }

    /// The adapter in training.
    pub fn policy(&self) -> Option<&Adapter> {
        match &self.trained {
            Trained::Adapter { policy, .. } => Some(policy),
            Trained::Full { .. } => None,
        }
    }

    /// What rewards are measured against under `objective`.
    pub fn reference(&self, objective: ObjectiveName) -> Reference<'_> {
        match &self.trained {
            _ if !objective.needs_reference() => Reference::None,
            Trained::Adapter { start, .. } => Reference::Along(start.as_deref()),
            Trained::Full { start, .. } => {
                start.as_deref().map_or(Reference::None, Reference::Apart)
            }
        }
    }

    /// The model, the adapter and where their gradients go, for backward.
    pub fn for_backward(&mut self) -> (&Model, Option<&Adapter>, Gradients<'_>) {
        match &mut self.trained {
            Trained::Adapter { policy, gradients, .. } => {
                (&self.model, Some(policy), Gradients::Adapter(gradients))
            }
            Trained::Full { gradients, .. } => (&self.model, None, Gradients::Full(gradients)),
        }
    }

    /// Every trained tensor as it is saved, in a fixed order.
    pub fn parameters_to_save(&mut self) -> Vec<Parameter<'_>> {
        let (values, starts) = match &mut self.trained {
            Trained::Adapter { policy, start, .. } => match start {
                Some(start) if policy.config.start.changes_base() => {
                    (policy.tensors_mut(), start.tensors_mut())
                }
                _ => (policy.tensors_mut(), Vec::new()),
            },
            Trained::Full { .. } => (self.model.weights.tensors_mut(), Vec::new()),
        };
        let mut starts = starts.into_iter().map(|(_, start)| &*start);
        values
            .into_iter()
            .zip(&mut self.states)
            .map(|((name, value), state)| Parameter { name, value, start: starts.next(), state })
            .collect()
    }

    /// To be called when what is trained was changed from outside.
    pub fn settle(&mut self) -> Result<()> {
        match &mut self.trained {
            Trained::Adapter { policy, .. } => Ok(policy.measure(&self.model.weights)?),
            Trained::Full { .. } => Ok(()),
        }
    }

    /// Every trained tensor with its name, and its optimizer state, in a fixed order.
    pub fn parameters_mut(&mut self) -> Vec<(String, &mut Tensor, &mut adamw::State)> {
        let pairs = pairs(&mut self.model, &mut self.trained);
        pairs
            .into_iter()
            .zip(&mut self.states)
            .map(|((name, value, _), state)| (name, value, state))
            .collect()
    }

    /// The norm of the gradient over all trained tensors.
    pub fn gradient_norm(&mut self) -> Result<f64> {
        let pairs = pairs(&mut self.model, &mut self.trained);
        let gradients: Vec<_> = pairs.iter().map(|(_, _, gradient)| gradient.view()).collect();
        Ok(grad_norm::sum_of_squares(&gradients)?.sqrt())
    }

    /// Updates what is trained.
    pub fn update(&mut self, hyper: Hyper) -> Result<()> {
        let mut parameters: Vec<adamw::Parameter<'_>> = pairs(&mut self.model, &mut self.trained)
            .into_iter()
            .zip(&mut self.states)
            .map(|((name, value, gradient), state)| {
                let (value, gradient) = (value.view_mut(), gradient.view());
                adamw::Parameter { value, gradient, state, decays: decays(&name) }
            })
            .collect();
        adamw::update(&mut parameters, self.rule, hyper)?;
        self.updates = hyper.step;
        self.settle()
    }

    /// Sets the gradient to zero.
    pub fn zero_gradient(&mut self) {
        for (_, _, gradient) in pairs(&mut self.model, &mut self.trained) {
            gradient.zero();
        }
    }
}

/// Norms and biases do not decay, as in transformers' Trainer.
fn decays(name: &str) -> bool {
    !name.ends_with("norm.weight") && !name.ends_with(".bias")
}

/// Every trained tensor: its name, itself, its gradient.
fn pairs<'a>(
    model: &'a mut Model,
    trained: &'a mut Trained,
) -> Vec<(String, &'a mut Tensor, &'a mut Tensor)> {
    let (values, gradients) = match trained {
        Trained::Adapter { policy, gradients, .. } => {
            (policy.tensors_mut(), gradients.tensors_mut())
        }
        Trained::Full { gradients, .. } => (model.weights.tensors_mut(), gradients.tensors_mut()),
    };
    values
        .into_iter()
        .zip(gradients)
        .map(|((name, value), (_, gradient))| (name, value, gradient))
        .collect()
}
