//! A whole training step of a small decoder: weights quantized to NF4, an adapter on every linear layer, a prompt with
//! two completions, the reference's rows along; forward, backward, AdamW, forward again.
//!
//! Loss, gradient norm and the loss after the update are held against the values below, which the CPU computed once;
//! on the CPU the gradient is checked by finite differences as well, so that those values are no mere habit.

use engine::ops::adamw::{self, Hyper, Rule, State};
use engine::ops::attention::Segment;
use engine::ops::nf4;
use engine::random::Stream;
use models::config::ModelConfig;
use models::decoder::{self, Keep, Model, Pass, RowGroup};
use models::head;
use models::lora::{Adapter, LoraConfig};
use models::trained::Gradients;
use models::weights::{self, Quantization, Storage, Weight};

use super::{Bench, Outcome, Tested, exact, get, put, words};

/// Loss, gradient norm, loss after the update.
const KNOWN: [f64; 3] = [8.8938, 7.1942, 8.0307];

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 512,
    "tie_word_embeddings": false, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256, "rope_theta": 1e4, "eos_token_id": 2}"#;

const PROMPT: usize = 40;
const COMPLETION: usize = 24;
/// Rows of the policy: the prompt and two completions, of which the first is trained.
const ROWS: usize = PROMPT + 2 * COMPLETION;

struct Small {
    model: Model,
    adapter: Adapter,
    gradients: Adapter,
}

pub(super) fn step(bench: &Bench) -> Tested<Outcome> {
    let mut small = small(bench)?;
    let (before, gradients) = small.pass(true)?;
    let square: f64 = gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum();
    let slope = if bench.on_gpu() { None } else { Some(small.slope(&gradients, square)?) };
    small.update(bench, 1e-3)?;
    let (after, _) = small.pass(false)?;
    let ours = [before, square.sqrt(), after];
    let off = ours.iter().zip(KNOWN).map(|(ours, known)| (ours / known - 1.0).abs());
    let worst =
        off.fold(0.0, |worst: f64, off| if off.is_nan() { f64::NAN } else { worst.max(off) });
    // bf16 keeps 8 bits of every activation on the way.
    let allowed = if bench.on_gpu() { 2e-2 } else { 1e-3 };
    let found =
        format!(" of loss {before:.4}, gradient norm {:.4}, loss after {after:.4}", ours[1]);
    let mut outcome = Outcome::of(worst, allowed, &found);
    if let Some(slope) = slope {
        outcome.words += &format!("; finite differences agree to {slope:.0e}");
        outcome.passed &= slope <= 1e-2;
    }
    Ok(outcome)
}

fn small(bench: &Bench) -> Tested<Small> {
    let device = &bench.device;
    let config = ModelConfig::from_json(CONFIG).map_err(words)?;
    let quantization = Quantization::Nf4 { double_quant: true };
    let weights = weights::load(device, &config, None, quantization, Storage::Bf16);
    let mut weights = weights.map_err(words)?;
    let mut stream = 100;
    let mut draw = |n: usize, scale: f32| {
        stream += 1;
        let values = Stream::new(7, stream).normals(n);
        exact(&values.iter().map(|value| value * scale).collect::<Vec<_>>())
    };
    for layer in &mut weights.layers {
        for linear in &mut layer.linears {
            let Some(Weight::FourBit(quantized)) = linear else { continue };
            let shape = (quantized.shape.rows, quantized.shape.cols);
            let values = bench.activations(shape, &draw(shape.0 * shape.1, 0.08))?;
            nf4::quantize(values.view(), quantized).map_err(words)?;
        }
    }
    for (name, tensor) in weights.tensors_mut() {
        let n = tensor.shape().len();
        let values = if name.ends_with("norm.weight") { vec![1.0; n] } else { draw(n, 0.2) };
        put(tensor, &values)?;
    }
    let model = Model::new(device, config.clone(), weights, PROMPT + COMPLETION).map_err(words)?;
    let lora = LoraConfig { r: 8, lora_alpha: 16.0, ..LoraConfig::default() };
    let mut adapter = Adapter::zeros(device, &config, &lora).map_err(words)?;
    for (_, tensor) in adapter.tensors_mut() {
        // Both matrices are random, so that both have a gradient.
        put(tensor, &draw(tensor.shape().len(), 0.05))?;
    }
    let gradients = Adapter::zeros(device, &config, &lora).map_err(words)?;
    Ok(Small { model, adapter, gradients })
}

impl Small {
    /// The mean loss of the trained completion's tokens; with `backward` the gradient of every matrix of the adapter.
    fn pass(&mut self, backward: bool) -> Tested<(f64, Vec<Vec<f32>>)> {
        let device = self.model.device().clone();
        let words_of = |row: usize| (row * 37 % 509 + 1) as u32;
        let once: Vec<u32> = (0..ROWS).map(words_of).collect();
        let at = |row: usize| if row < PROMPT + COMPLETION { row } else { row - COMPLETION } as u32;
        let positions: Vec<u32> = (0..2 * ROWS).map(|row| at(row % ROWS)).collect();
        let child = |base: usize, start: usize| Segment {
            query_start: start,
            key_start: start,
            len: COMPLETION,
            parent_start: base,
            parent_len: PROMPT,
            position0: PROMPT,
        };
        let mut segments = Vec::new();
        for base in [0, ROWS] {
            let prompt = child(base, base);
            segments.push(Segment {
                len: PROMPT,
                parent_start: 0,
                parent_len: 0,
                position0: 0,
                ..prompt
            });
            segments.extend([PROMPT, PROMPT + COMPLETION].map(|start| child(base, base + start)));
        }
        let grad_rows = PROMPT + COMPLETION;
        let both = once.repeat(2);
        let ids = device.upload(&both).map_err(words)?;
        let positions = device.upload(&positions).map_err(words)?;
        let pass = |groups| Pass {
            tokens: ids.view(),
            ids: &both,
            positions: positions.view(),
            segments: segments.clone(),
            groups,
            grad_rows,
            dropout: None,
        };
        let items: Vec<(u32, u32)> =
            (PROMPT - 1..PROMPT + COMPLETION - 1).map(|row| (row as u32, once[row + 1])).collect();
        let groups = vec![
            RowGroup { rows: 0..ROWS, adapter: Some(&self.adapter) },
            RowGroup { rows: ROWS..2 * ROWS, adapter: None },
        ];
        // One block keeps what backward reads, the other computes it again.
        let keep = [Keep::Input, Keep::All];
        let forward = decoder::forward(&self.model, &pass(groups.clone()), &keep).map_err(words)?;
        let (mut hidden, mut kept) = forward.into_parts();
        let scored =
            head::forward(&self.model, hidden.view(), &groups, &items, grad_rows).map_err(words)?;
        let n = items.len() as f32;
        let loss = -scored.logps.iter().map(|l| f64::from(*l)).sum::<f64>() / f64::from(n);
        if !backward {
            return Ok((loss, Vec::new()));
        }
        self.gradients.tensors_mut().into_iter().for_each(|(_, tensor)| tensor.zero());
        let mut dhidden = hidden.slice_mut(0..grad_rows);
        let mut to = Gradients::Adapter(&mut self.gradients);
        let dlogps = vec![-1.0 / n; items.len()];
        let policy = Some(&self.adapter);
        head::backward(&self.model, policy, &scored, &dlogps, dhidden.reborrow(), &mut to)
            .map_err(words)?;
        drop(scored);
        let groups = vec![RowGroup { rows: 0..ROWS, adapter: Some(&self.adapter) }];
        decoder::backward(&self.model, &pass(groups), &mut kept, dhidden, &mut to)
            .map_err(words)?;
        let gradients = self.gradients.tensors_mut();
        let values = gradients.into_iter().map(|(_, tensor)| get(tensor)).collect::<Tested<_>>()?;
        Ok((loss, values))
    }

    /// How far the loss's slope along the gradient, by central differences, is from the gradient's square.
    fn slope(&mut self, gradients: &[Vec<f32>], square: f64) -> Tested<f64> {
        let start: Vec<Vec<f32>> =
            self.adapter.tensors_mut().into_iter().map(|(_, t)| get(t)).collect::<Tested<_>>()?;
        // A step along the gradient that changes the loss by about a hundredth.
        let size = 5e-3 / square;
        let mut losses = [0.0; 2];
        for (loss, sign) in losses.iter_mut().zip([1.0, -1.0]) {
            let moved = start.iter().zip(gradients).map(|(values, gradient)| -> Vec<f32> {
                let step = |(v, g): (&f32, &f32)| v + (sign * size * f64::from(*g)) as f32;
                values.iter().zip(gradient).map(step).collect()
            });
            let moved: Vec<Vec<f32>> = moved.collect();
            for ((_, tensor), values) in self.adapter.tensors_mut().into_iter().zip(&moved) {
                put(tensor, values)?;
            }
            *loss = self.pass(false)?.0;
        }
        for ((_, tensor), values) in self.adapter.tensors_mut().into_iter().zip(&start) {
            put(tensor, values)?;
        }
        Ok(((losses[0] - losses[1]) / (2.0 * size) / square - 1.0).abs())
    }

    /// One step of AdamW on the whole adapter.
    fn update(&mut self, bench: &Bench, learning_rate: f64) -> Tested<()> {
        let hyper = Hyper {
            learning_rate,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
        };
        let tensors = self.adapter.tensors_mut().into_iter().zip(self.gradients.tensors_mut());
        for ((_, value), (_, gradient)) in tensors {
            let n = value.shape().len();
            let state = &mut State::new(&bench.device, Rule::Torch, n).map_err(words)?;
            let (value, gradient) = (value.view_mut(), gradient.view());
            let parameter = adamw::Parameter { value, gradient, state, decays: true };
            adamw::update(&mut [parameter], Rule::Torch, hyper).map_err(words)?;
        }
        Ok(())
    }
}
