//! Steps of a dataset: every example once per epoch, groups and pairs whole, any step computed
//! directly.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use data::template::Moment;
use data::{Batching, DataOptions, Dataset, Form, Order, PackedStep, Role, Tokenizer};

fn tokenizer() -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto/model");
    Tokenizer::load(&folder).expect("tokenizer")
}

fn load(lines: &[String], form: Form) -> Dataset {
    let folder = tempfile::tempdir().expect("folder");
    let path: PathBuf = folder.path().join("rows.jsonl");
    std::fs::write(&path, lines.join("\n")).expect("written");
    let options = DataOptions { form, max_length: Some(20), now: Moment(0) };
    Dataset::load(&[path], &tokenizer(), &options).expect("dataset").0
}

/// `count` rows of which every third is desirable; two rows each share a prompt.
fn unpaired(count: usize) -> Dataset {
    let row = |i: usize| {
        let (prompt, label) = (i / 2 % 50 + 4, i.is_multiple_of(3));
        format!(r#"{{"prompt": "w{prompt}", "completion": " w{}", "label": {label}}}"#, i % 60 + 4)
    };
    load(&(0..count).map(row).collect::<Vec<_>>(), Form::Unpaired)
}

fn batching(order: Order) -> Batching {
    Batching {
        order,
        seed: 11,
        batch_size: 6,
        gradient_accumulation_steps: 2,
        token_budget: 40,
        mismatched: true,
        together: false,
        scored_prompts: false,
    }
}

fn indices(step: &PackedStep) -> Vec<usize> {
    step.groups.iter().flat_map(|group| &group.examples).map(|example| example.index).collect()
}

#[test]
fn every_example_comes_once_in_an_epoch_and_every_group_holds_both_classes() {
    let dataset = unpaired(100);
    let epoch = dataset.epoch(&batching(Order::Shuffled), 3);
    assert_eq!(epoch.steps(), 9);
    let steps: Vec<PackedStep> = (0..epoch.steps()).map(|index| epoch.step(index)).collect();
    let mut seen: Vec<usize> = steps.iter().flat_map(indices).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    for group in steps.iter().flat_map(|step| &step.groups) {
        if group.examples.len() == 6 {
            let desirable = group.examples.iter().filter(|example| example.label).count();
            assert!((1..=3).contains(&desirable), "{desirable} of 6, not about 2");
        }
    }
    assert_eq!(epoch.matched_partners(), 0);
    assert!(epoch.step(9).groups.is_empty() && epoch.step(usize::MAX).groups.is_empty());
}

#[test]
fn a_step_asked_for_directly_is_the_step_of_a_run() {
    let dataset = unpaired(50);
    let batching = batching(Order::Shuffled);
    let first: Vec<PackedStep> = (0..2)
        .flat_map(|number| {
            let epoch = dataset.epoch(&batching, number);
            (0..epoch.steps()).map(|index| epoch.step(index)).collect::<Vec<_>>()
        })
        .collect();
    let steps = dataset.steps_per_epoch(&batching);
    assert_eq!(first.len(), 2 * steps);
    for at in [steps + 2, 1, 2 * steps - 1] {
        let again = dataset.epoch(&batching, (at / steps) as u64).step(at % steps);
        assert_eq!(again, first[at]);
    }
}

#[test]
fn examples_of_one_prompt_in_a_group_share_its_segment() {
    let dataset = unpaired(6);
    let batching = Batching { token_budget: 1000, ..batching(Order::Sequential) };
    let step = dataset.epoch(&batching, 0).step(0);
    let batch = &step.micro_batches[0];
    // Three prompts of one token, and twelve completions of a word and the eos token.
    assert_eq!((batch.rows(), batch.rated_rows), (3 + 12 * 2, 3 + 6 * 2));
    assert_eq!(batch.completions.len(), 12);
    assert_eq!(batch.scored.len(), 24);
}

#[test]
fn groups_of_pairs_hold_whole_pairs_in_one_micro_batch() {
    let row = |i: usize| {
        format!(r#"{{"prompt": "w{0} w5", "chosen": " w{0} w9", "rejected": " w8"}}"#, i % 50 + 4)
    };
    let dataset = load(&(0..31).map(row).collect::<Vec<_>>(), Form::Paired);
    let batching = Batching {
        batch_size: 3,
        token_budget: 11,
        mismatched: false,
        together: false,
        ..batching(Order::Shuffled)
    };
    let epoch = dataset.epoch(&batching, 0);
    assert_eq!(epoch.steps(), 6);
    for step in (0..epoch.steps()).map(|index| epoch.step(index)) {
        assert!(step.kl_micro_batches.is_empty());
        for group in &step.groups {
            for (place, example) in group.examples.iter().enumerate() {
                let other = &group.examples[example.pair.expect("a pair")];
                assert_eq!((other.pair, other.index), (Some(place), example.index ^ 1));
                assert_eq!(example.label, place % 2 == 0);
            }
        }
        let mut place = HashMap::new();
        for (number, batch) in step.micro_batches.iter().enumerate() {
            for completion in &batch.completions {
                assert_eq!(completion.role, Role::Rated);
                place.insert((completion.group, completion.example), number);
            }
        }
        assert!(place.iter().all(|(&(group, example), number)| {
            place.get(&(group, example ^ 1)) == Some(number)
        }));
    }
}

#[test]
fn zero_sizes_count_as_one() {
    let dataset = unpaired(4);
    let batching = Batching {
        batch_size: 0,
        gradient_accumulation_steps: 0,
        token_budget: 0,
        ..batching(Order::Sequential)
    };
    let epoch = dataset.epoch(&batching, 0);
    assert_eq!(epoch.steps(), 4);
    assert_eq!(indices(&epoch.step(2)), [2]);
}
