//! A run on one device, step by step. The plan and the run are the same session on two devices.

use data::{Batching, Epoch, PackedStep};
use engine::device::Device;
use models::decoder::Keep;
use models::generate::{self, Request, Sampling};

use crate::error::Result;
use crate::event::Metrics;
use crate::fit::Policy;
use crate::inputs::Inputs;
use crate::learner::Learner;
use crate::schedule;
use crate::step::{self, StepContext, Stepped};

/// See the module.
pub struct Session<'a> {
    inputs: &'a Inputs,
    /// The model and what is trained of it.
    pub learner: Learner,
    batching: Batching,
    keep: Vec<Keep>,
    steps: usize,
    /// The epoch of the last step: its order is drawn once.
    epoch: Option<(u64, Epoch<'a>)>,
}

impl<'a> Session<'a> {
    /// Loads the model and everything that lives through the run.
    pub fn open(device: &Device, inputs: &'a Inputs, policy: &Policy) -> Result<Session<'a>> {
        let longest_answer = inputs.prompts.as_ref().map_or(0, |prompts| prompts.longest());
        let positions = inputs.recipe.data.max_length.max(longest_answer);
        Ok(Session {
            inputs,
            learner: Learner::new(device, inputs, positions, policy.host_table)?,
            batching: Batching {
                together: policy.leaves_inputs(inputs.config.num_hidden_layers),
                ..inputs.batching(policy.token_budget)
            },
            keep: policy.keep(inputs.config.num_hidden_layers),
            steps: inputs.steps(),
            epoch: None,
        })
    }

    /// Optimizer steps of the run.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What step `index` (from 0) trains on.
    pub fn packed(&mut self, index: usize) -> PackedStep {
        let per_epoch = self.inputs.dataset.steps_per_epoch(&self.batching).max(1);
        let number = (index / per_epoch) as u64;
        let epoch = match self.epoch.take() {
            Some((held, epoch)) if held == number => epoch,
            _ => self.inputs.dataset.epoch(&self.batching, number),
        };
        let packed = epoch.step(index % per_epoch);
        self.epoch = Some((number, epoch));
        packed
    }

    /// How often the data has been seen after `steps` steps, counted in groups as transformers counts micro-batches.
    pub fn epochs_after(&self, steps: usize) -> f64 {
        let per_epoch = self.inputs.dataset.steps_per_epoch(&self.batching).max(1);
        let one_group = Batching { gradient_accumulation_steps: 1, ..self.batching };
        let groups = self.inputs.dataset.steps_per_epoch(&one_group).max(1);
        let within = steps % per_epoch * self.batching.gradient_accumulation_steps;
        (steps / per_epoch) as f64 + within as f64 / groups as f64
    }

    /// Runs step `index` (from 0).
    pub fn step(&mut self, index: usize, packed: &PackedStep) -> Result<Stepped> {
        let recipe = &self.inputs.recipe;
        let factor = schedule::factor(&recipe.schedule, index, self.steps);
        let context = StepContext {
            recipe,
            keep: &self.keep,
            learning_rate: recipe.optimizer.learning_rate * factor,
            index: index as u64,
        };
        step::step(&mut self.learner, packed, &context)
    }

    /// Measures the held-out data, if there is some. Its order is the files', its partners those of neighbours.
    pub fn evaluate(&self) -> Result<Option<Metrics>> {
        let Some((dataset, _)) = &self.inputs.eval else { return Ok(None) };
        let batching = Batching {
            order: data::Order::Sequential,
            gradient_accumulation_steps: 1,
            ..self.batching
        };
        let epoch = dataset.epoch(&batching, 0);
        let steps = (0..epoch.steps()).map(|index| epoch.step(index));
        step::evaluate(&self.learner, steps, &self.inputs.recipe).map(Some)
    }

    /// Answers the held-out prompts as the model is now; none where the recipe asks for none.
    pub fn answers(&self) -> Result<Option<Vec<String>>> {
        let Some(prompts) = &self.inputs.prompts else { return Ok(None) };
        let request = Request {
            sampling: Sampling {
                temperature: prompts.temperature as f32,
                seed: self.inputs.recipe.seed,
                ..Sampling::GREEDY
            },
            max_new_tokens: prompts.max_new_tokens,
            stop: &generate::stop_tokens(&self.inputs.config, &self.inputs.tokenizer),
        };
        let (model, adapter) = (&self.learner.model, self.learner.policy());
        let written = generate::generate(model, adapter, &prompts.ids(), &request, |_, _| {})?;
        let decode = |ids: Vec<u32>| -> Result<String> {
            Ok(self.inputs.tokenizer.decode(&ids, true)?.trim().to_owned())
        };
        written.into_iter().map(decode).collect::<Result<Vec<_>>>().map(Some)
    }
}
