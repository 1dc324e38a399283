//! Proofs of AdamW. The numbers of torch are made by fixtures/engine/make_engine.py.

use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::adamw::{self, Hyper, Parameter, Rule, State};
use crate::ops::nf4::tables;
use crate::random::Stream;
use crate::tensor::Tensor;
use crate::testing::{
    assert_close, cpu, cuda, filled, normal, plan_takes_what_cpu_takes, tensor, values,
};

fn hyper(step: u64, weight_decay: f64) -> Hyper {
    Hyper {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay,
        step,
        gradient_scale: 1.0,
    }
}

/// An update of one parameter.
fn update(
    param: &mut Tensor,
    gradient: &Tensor,
    state: &mut State,
    rule: Rule,
    hyper: Hyper,
) -> Result<()> {
    let (value, gradient) = (param.view_mut(), gradient.view());
    adamw::update(&mut [Parameter { value, gradient, state, decays: true }], rule, hyper)
}

#[test]
fn three_steps_are_torchs() {
    let path = format!("{}/../../fixtures/engine/engine.json", env!("CARGO_MANIFEST_DIR"));
    let fixture: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let floats = |value: &serde_json::Value| -> Vec<f32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32))
            .collect()
    };
    for case in fixture["adamw"].as_array().unwrap() {
        let device = cpu();
        let mut param = tensor(&device, (33, 1), &floats(&case["param"]));
        let mut state = State::new(&device, Rule::Torch, 33).unwrap();
        for step in 0..3 {
            let gradient = tensor(&device, (33, 1), &floats(&case["gradients"][step]));
            let hyper = hyper(step as u64 + 1, case["weight_decay"].as_f64().unwrap());
            update(&mut param, &gradient, &mut state, Rule::Torch, hyper).unwrap();
            assert_close("param", param.as_slice(), &floats(&case["after"][step]), 3e-7);
        }
    }
}

/// The formulas of the room, element by element in f64, moments through the code books: bitsandbytes' CUDA kernel
/// as its source has it, blocks of 256.
struct Reference {
    param: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Reference {
    fn step(&mut self, gradient: &[f32], hyper: Hyper) {
        let t = hyper.step as f64;
        let correction2 = (1.0 - hyper.beta2.powf(t)).sqrt();
        let size = hyper.learning_rate * correction2 / (1.0 - hyper.beta1.powf(t));
        for i in 0..gradient.len() {
            let g = f64::from(gradient[i]);
            self.m[i] = self.m[i] * hyper.beta1 + (1.0 - hyper.beta1) * g;
            self.v[i] = self.v[i] * hyper.beta2 + (1.0 - hyper.beta2) * g * g;
            self.param[i] -= size * self.m[i] / (self.v[i].sqrt() + correction2 * hyper.eps);
            self.param[i] *= 1.0 - hyper.learning_rate * hyper.weight_decay;
        }
        for (values, map) in
            [(&mut self.m, tables::dynamic_signed()), (&mut self.v, tables::dynamic_unsigned())]
        {
            for block in values.chunks_mut(256) {
                let absmax = block.iter().fold(0.0, |max: f64, value| max.max(value.abs()));
                for value in block {
                    let scaled = *value / absmax;
                    let distance = |code: &f32| (f64::from(*code) - scaled).abs();
                    let same_sign = |code: &&f32| scaled == 0.0 || (**code < 0.0) == (scaled < 0.0);
                    let nearest =
                        map.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
                    let code = if same_sign(&nearest) {
                        *nearest
                    } else {
                        *map.iter()
                            .filter(same_sign)
                            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
                            .unwrap()
                    };
                    *value = f64::from(code) * absmax;
                }
            }
        }
    }
}

#[test]
fn eight_bit_states_follow_the_kernels_formulas_with_decay_after_the_update() {
    let device = cpu();
    let n = 4096 + 47;
    let mut param = normal(&device, (n, 1), 1);
    let start: Vec<f64> = param.as_slice::<f32>().iter().map(|p| f64::from(*p)).collect();
    let mut reference = Reference { param: start, m: vec![0.0; n], v: vec![0.0; n] };
    let mut state = State::new(&device, Rule::BitsAndBytes, n).unwrap();
    assert!(matches!(state, State::Blockwise { .. }));
    for step in 1..=4 {
        let gradient = Stream::new(9, step).normals(n);
        let hyper = hyper(step, 0.1);
        let view = tensor(&device, (n, 1), &gradient);
        update(&mut param, &view, &mut state, Rule::BitsAndBytes, hyper).unwrap();
        reference.step(&gradient, hyper);
        let exact: Vec<f32> = reference.param.iter().map(|p| *p as f32).collect();
        // A moment between two codes may round to either one; that moves a parameter by at most a part of lr.
        let far = param
            .as_slice::<f32>()
            .iter()
            .zip(&exact)
            .filter(|(a, b)| (**a - **b).abs() > 1e-5)
            .count();
        assert!(far <= n / 500, "{far} of {n} parameters differ after step {step}");
        assert_close("param", param.as_slice(), &exact, 2e-2);
    }
}

#[test]
fn small_tensors_keep_f32_states_and_a_gradient_that_is_not_finite_changes_nothing() {
    let device = cpu();
    let mut param = filled(&device, (3, 1), 1.0);
    let mut state = State::new(&device, Rule::BitsAndBytes, 3).unwrap();
    assert!(matches!(state, State::Full { .. }));
    let gradient = tensor(&device, (3, 1), &[1.0, f32::NAN, -1.0]);
    update(&mut param, &gradient, &mut state, Rule::BitsAndBytes, hyper(1, 0.0)).unwrap();
    // After one step m / sqrt(v) is the gradient's sign whatever its size.
    assert_close("param", param.as_slice(), &[0.99, 1.0, 1.01], 1e-6);
    for (name, tensor) in state.tensors_mut() {
        assert!(tensor.as_slice::<f32>().iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn a_state_of_another_parameter_is_refused() {
    let device = cpu();
    let (mut param, gradient) = (filled(&device, (7, 1), 0.0), filled(&device, (7, 1), 0.0));
    let mut state = State::new(&device, Rule::Torch, 8).unwrap();
    let got = update(&mut param, &gradient, &mut state, Rule::Torch, hyper(1, 0.0));
    assert!(matches!(got, Err(Error::Shape { name: "exp_avg", .. })));
}

#[test]
fn plan_books_it() {
    plan_takes_what_cpu_takes(|device| {
        let (mut param, gradient) =
            (filled(device, (5000, 1), 0.0), filled(device, (5000, 1), 0.0));
        let mut state = State::new(device, Rule::BitsAndBytes, 5000).unwrap();
        update(&mut param, &gradient, &mut state, Rule::BitsAndBytes, hyper(1, 0.0)).unwrap();
    });
}

#[test]
fn on_cuda_it_computes_what_the_cpu_does() {
    let Some(gpu) = cuda() else { return };
    for (rule, n) in [(Rule::Torch, 1000), (Rule::BitsAndBytes, 1000), (Rule::BitsAndBytes, 5000)] {
        let run = |device: &Device| {
            let mut param = normal(device, (n, 1), 1);
            let mut state = State::new(device, rule, n).unwrap();
            for step in 1..4 {
                let mut gradient = Stream::new(5, step).normals(n);
                if rule == Rule::BitsAndBytes {
                    gradient[7] = f32::NAN;
                }
                let gradient = tensor(device, (n, 1), &gradient);
                let hyper = Hyper { gradient_scale: 0.7, ..hyper(step, 0.1) };
                update(&mut param, &gradient, &mut state, rule, hyper).unwrap();
            }
            let states = state.tensors_mut().into_iter().map(|(_, tensor)| match tensor.dtype() {
                DType::U8 => tensor.to_vec::<u8>().unwrap().iter().map(|c| f32::from(*c)).collect(),
                _ => values(tensor),
            });
            (values(&param), states.collect::<Vec<Vec<f32>>>())
        };
        let ((param, states), (ours, our_states)) = (run(&cpu()), run(&gpu));
        assert_close("param", &ours, &param, 1e-6);
        for (ours, state) in our_states.iter().zip(&states) {
            let off = ours.iter().zip(state).filter(|(a, b)| (**a - **b).abs() > 1e-6 * b.abs());
            // A moment that lies on the border between two codes may fall to either side.
            assert!(off.count() <= n / 500, "{rule:?}: states differ");
        }
    }
}

/// 150 parameters, which is more than one launch is told of, after two updates: all at once, or one after another.
fn many(device: &Device, rule: Rule, at_once: bool) -> Vec<Vec<f32>> {
    let length = |i: usize| [1, 300, 4096, 5001][i % 4];
    let normals = |i: usize, at: u64| normal(device, (length(i), 1), at + i as u64);
    let mut params: Vec<Tensor> = (0..150).map(|i| normals(i, 0)).collect();
    let mut states: Vec<State> =
        (0..150).map(|i| State::new(device, rule, length(i)).unwrap()).collect();
    for step in 1..3 {
        let gradients: Vec<Tensor> = (0..150).map(|i| normals(i, 1000 * step)).collect();
        let mut all: Vec<Parameter<'_>> = params
            .iter_mut()
            .zip(&gradients)
            .zip(&mut states)
            .enumerate()
            .map(|(i, ((param, gradient), state))| {
                let (value, gradient) = (param.view_mut(), gradient.view());
                Parameter { value, gradient, state, decays: i % 3 > 0 }
            })
            .collect();
        let apart = if at_once { all.len() } else { 1 };
        for some in all.chunks_mut(apart) {
            adamw::update(some, rule, hyper(step, 0.5)).unwrap();
        }
    }
    params.iter().map(values).collect()
}

#[test]
fn all_at_once_are_what_each_is_alone_and_those_that_do_not_decay_are_larger() {
    let devices: Vec<Device> = [Some(cpu()), cuda()].into_iter().flatten().collect();
    for rule in [Rule::Torch, Rule::BitsAndBytes] {
        for device in &devices {
            let all = many(device, rule, true);
            assert_eq!(all, many(device, rule, false), "{rule:?}");
            for (ours, cpus) in all.iter().zip(many(&cpu(), rule, true)) {
                let off = ours.iter().zip(&cpus).filter(|(a, b)| (**a - **b).abs() > 1e-5);
                assert!(off.count() <= ours.len() / 500, "{rule:?} on {:?}", device.kind());
            }
        }
        let size = |param: &[f32]| param.iter().map(|p| p.abs()).sum::<f32>();
        let before = |i: usize| normal(&cpu(), (5001, 1), i as u64).to_vec::<f32>().unwrap();
        let shrunk = |all: &[Vec<f32>], i: usize| size(&all[i]) / size(&before(i));
        // Two updates of lr 0.01 and decay 0.5 take 1 % from those that decay.
        let all = many(&cpu(), rule, true);
        assert!((shrunk(&all, 7) - 0.99).abs() < 2e-3, "{}", shrunk(&all, 7));
        assert!((shrunk(&all, 3) - 1.0).abs() < 2e-3, "{}", shrunk(&all, 3));
    }
}
