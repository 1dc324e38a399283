//! Parity with TRL 1.16.0's KTO trainer: ids, masks, mismatched ids and masks, and labels of
//! every micro-batch of `fixtures/kto/fixture_kto.json` (batch size 4, accumulation 2, two
//! epochs of 14 rows with an evaluation of the first 6 after each, `max_length` 14).

use std::path::{Path, PathBuf};

use data::template::Moment;
use data::{
    Batching, Completion, DataOptions, Dataset, Form, MicroBatch, Order, PackedStep, Role,
    Tokenizer,
};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/kto")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).expect("fixture")).expect("JSON")
}

fn load(paths: &[PathBuf]) -> Dataset {
    let tokenizer = Tokenizer::load(&fixtures().join("model")).expect("tokenizer");
    let options = DataOptions { form: Form::Unpaired, max_length: Some(14), now: Moment(0) };
    Dataset::load(paths, &tokenizer, &options).expect("dataset").0
}

fn batching(token_budget: usize) -> Batching {
    Batching {
        order: Order::Sequential,
        seed: 0,
        batch_size: 4,
        gradient_accumulation_steps: 2,
        token_budget,
        mismatched: true,
        together: false,
        scored_prompts: false,
    }
}

/// The ids of a completion with its prompt, and which of them are scored.
fn sequence(batch: &MicroBatch, number: usize) -> (Vec<u32>, Vec<u64>) {
    let segment = &batch.segments[batch.completion_segments()[number]];
    let mut ids = Vec::new();
    if let Some(parent) = segment.parent {
        let parent = &batch.segments[parent];
        ids.extend_from_slice(&batch.tokens[parent.start..parent.start + parent.len]);
    }
    ids.extend_from_slice(&batch.tokens[segment.start..segment.start + segment.len]);
    let mut mask = vec![0; ids.len()];
    let positions = batch.positions();
    for scored in batch.scored.iter().filter(|scored| scored.completion == number) {
        let position = positions[scored.row] as usize + 1;
        assert_eq!(ids[position], scored.target);
        mask[position] = 1;
    }
    (ids, mask)
}

fn find(step: &PackedStep, wanted: Completion) -> (Vec<u32>, Vec<u64>) {
    let batches = step.kl_micro_batches.iter().chain(&step.micro_batches);
    let mut found = batches.flat_map(|batch| {
        let here = batch.completions.iter().enumerate().filter(|(_, here)| **here == wanted);
        here.map(|(number, _)| sequence(batch, number))
    });
    let sequence = found.next().expect("the completion is in the step");
    assert!(found.next().is_none(), "the completion is in the step twice");
    sequence
}

/// Compares one group of a step with a micro-batch as TRL collated it, padding aside.
fn check_group(step: &PackedStep, group: usize, expected: &Value) {
    let labels: Vec<bool> =
        step.groups[group].examples.iter().map(|example| example.label).collect();
    assert_eq!(Value::from(labels.clone()), expected["label"]);
    for (role, ids_key, mask_key) in [
        (Role::Rated, "ids", "completion_mask"),
        (Role::Mismatched, "KL_ids", "KL_completion_mask"),
    ] {
        for example in 0..labels.len() {
            let (mut ids, mut mask) = find(step, Completion { group, example, role });
            let padded = expected[ids_key][example].as_array().expect("ids").len();
            assert!(ids.len() <= padded);
            ids.resize(padded, 0);
            mask.resize(padded, 0);
            assert_eq!(Value::from(ids), expected[ids_key][example]);
            assert_eq!(Value::from(mask), expected[mask_key][example]);
        }
    }
}

fn check(token_budget: usize) {
    let folder = tempfile::tempdir().expect("folder");
    let rows = json(&fixtures().join("dataset.json"));
    let evaluation_path = folder.path().join("evaluation.jsonl");
    let lines: Vec<String> =
        rows.as_array().expect("rows")[..6].iter().map(Value::to_string).collect();
    std::fs::write(&evaluation_path, lines.join("\n")).expect("written");
    let training = load(&[fixtures().join("dataset.json")]);
    let evaluation = load(&[evaluation_path]);

    let fixture = json(&fixtures().join("fixture_kto.json"));
    let mut expected = fixture["microbatches"].as_array().expect("micro-batches").iter();
    let batching = batching(token_budget);
    for number in 0..2 {
        for (dataset, is_training) in [(&training, true), (&evaluation, false)] {
            let epoch = dataset.epoch(&batching, number);
            for step in (0..epoch.steps()).map(|index| epoch.step(index)) {
                for group in 0..step.groups.len() {
                    let expected = expected.next().expect("another micro-batch");
                    assert_eq!(expected["train"], is_training);
                    check_group(&step, group, expected);
                }
            }
        }
    }
    assert!(expected.next().is_none());
}

#[test]
fn every_micro_batch_equals_trls_when_a_step_fits_one_micro_batch() {
    check(1000);
}

#[test]
fn every_micro_batch_equals_trls_when_groups_are_split() {
    check(30);
}

#[test]
fn steps_per_epoch_count_the_short_last_one() {
    let dataset = load(&[fixtures().join("dataset.json")]);
    let epoch = dataset.epoch(&batching(1000), 0);
    assert_eq!(epoch.steps(), 2);
    let groups: Vec<Vec<usize>> = (0..2)
        .map(|index| epoch.step(index).groups.iter().map(|group| group.examples.len()).collect())
        .collect();
    assert_eq!(groups, [vec![4, 4], vec![4, 2]]);
}
