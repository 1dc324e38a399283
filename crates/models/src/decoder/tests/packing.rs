//! Packed equals one by one: random token trees with rows of the policy, of the base and of a frozen adapter.

use engine::testing::{assert_close, cpu};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::decoder::{Keep, Model};
use crate::lora::Adapter;
use crate::testing::{MODELS, Packed, Run, Tree, adapter, lora, model, step};
use crate::trained::Gradients;

fn tokens(longest: usize) -> impl Strategy<Value = Vec<u32>> {
    vec(3u32..64, 1..=longest)
}

/// Trees whose prompts are up to 12 tokens long, so that windows of 4 to 6 cut them.
fn trees() -> impl Strategy<Value = Vec<Tree>> {
    let tree = (tokens(12), vec(tokens(7), 0..=3), vec(tokens(5), 0..=2));
    vec(tree.prop_map(|(prompt, trained, scored)| Tree { prompt, trained, scored }), 1..=3)
}

/// The log-probabilities of one completion behind one prompt, run alone; with `gradients`, its part of the gradient.
fn alone(model: &Model, prompt: &[u32], completion: &[u32], adapter: Option<&Adapter>) -> Vec<f32> {
    let packed = Packed::new(&[Tree::line(prompt, completion)], &[]);
    step(model, &packed, Run::new(&[adapter]), None)
}

fn values(adapter: &mut Adapter) -> Vec<f32> {
    adapter
        .tensors_mut()
        .into_iter()
        .flat_map(|(_, tensor)| tensor.to_vec::<f32>().unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packed_trees_equal_their_sequences_one_by_one(
        name in proptest::sample::select(MODELS.to_vec()),
        policy in trees(),
        base in trees(),
        start in trees(),
        keep in prop_oneof![Just(Keep::All), Just(Keep::Input), Just(Keep::Host)],
    ) {
        let device = cpu();
        let model = model(&device, name);
        let (trained, frozen) = (adapter(&model, &lora(), 1), adapter(&model, &lora(), 2));
        let packed = Packed::new(&policy, &[base.clone(), start.clone()]);
        let adapters = [Some(&trained), None, Some(&frozen)];
        let mut gradients = Adapter::zeros(&device, &model.config, &lora()).unwrap();
        let run = Run { keep, ..Run::new(&adapters) };
        let logps = step(&model, &packed, run, Some(&mut Gradients::Adapter(&mut gradients)));

        // Every completion alone, in the order of `Packed`.
        let behind = |completions: fn(&Tree) -> &Vec<Vec<u32>>, trees: &[Tree], adapter| -> Vec<f32> {
            let all = trees.iter().flat_map(|tree| completions(tree).iter().map(move |c| (&tree.prompt, c)));
            all.flat_map(|(prompt, completion)| alone(&model, prompt, completion, adapter)).collect()
        };
        let mut expected = behind(|tree| &tree.trained, &policy, Some(&trained));
        expected.extend(behind(|tree| &tree.scored, &policy, Some(&trained)));
        for (trees, adapter) in [(&base, None), (&start, Some(&frozen))] {
            for tree in trees {
                let tree = std::slice::from_ref(tree);
                expected.extend(behind(|tree| &tree.trained, tree, adapter));
                expected.extend(behind(|tree| &tree.scored, tree, adapter));
            }
        }
        assert_close(name, &logps, &expected, 5e-5);

        // The gradient of the weighted sum is the sum of the gradients of each trained completion alone.
        let mut sum = vec![0f64; values(&mut gradients).len()];
        let all = policy.iter().flat_map(|tree| tree.trained.iter().map(|c| (&tree.prompt, c)));
        let weights = packed.weights();
        let mut at = 0;
        for (prompt, completion) in all {
            for i in 0..completion.len() {
                // One item at a time: its weight in `Packed::weights` of a line is 0.5 for the first item alone.
                let upto = [prompt.as_slice(), &completion[..i]].concat();
                let line = Packed::new(&[Tree::line(&upto, &completion[i..=i])], &[]);
                let mut one = Adapter::zeros(&device, &model.config, &lora()).unwrap();
                step(&model, &line, Run::new(&[Some(&trained)]), Some(&mut Gradients::Adapter(&mut one)));
                let factor = f64::from(weights[at] / line.weights()[0]);
                sum.iter_mut().zip(values(&mut one)).for_each(|(s, g)| *s += factor * f64::from(g));
                at += 1;
            }
        }
        let sum: Vec<f32> = sum.into_iter().map(|value| value as f32).collect();
        assert_close(name, &values(&mut gradients), &sum, 3e-4);
    }
}
