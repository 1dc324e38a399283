//! Rows of every form against what TRL 1.16.0's trainers make of them (`fixtures/data/rows.json`,
//! made by `fixtures/data/tokenize_rows.py`).

use std::path::{Path, PathBuf};

use data::template::Moment;
use data::{DataOptions, Dataset, Example, Form, Order, Report, Tokenizer, pairing};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data")
}

fn load(name: &str, form: Form, max_length: Option<usize>) -> (Dataset, Report) {
    let tokenizer = Tokenizer::load(&fixtures().join("tokenizer")).expect("tokenizer");
    let path = fixtures().join("rows").join(format!("{name}.jsonl"));
    let options = DataOptions { form, max_length, now: Moment(0) };
    Dataset::load(&[path], &tokenizer, &options).expect("dataset")
}

/// Examples as the rows TRL makes of them.
fn rows(examples: &[Example], form: Form) -> Vec<Value> {
    match form {
        Form::Unpaired => {
            let blocks: Vec<&[Example]> = examples.chunks(4).collect();
            let row = |block: &[Example], place: usize| {
                let families: Vec<usize> = block.iter().map(|example| example.family).collect();
                let partner = pairing::partners(Order::Sequential, &families, 0, 0, 0)[place];
                json!({
                    "prompt_ids": block[place].prompt_ids,
                    "completion_ids": block[place].completion_ids,
                    "KL_completion_ids": block[partner].completion_ids,
                    "label": block[place].label,
                })
            };
            let rows = |block: &[Example]| -> Vec<Value> {
                (0..block.len()).map(|place| row(block, place)).collect()
            };
            blocks.into_iter().flat_map(rows).collect()
        }
        Form::Paired => examples
            .chunks(2)
            .map(|pair| {
                assert_eq!(pair[0].prompt_ids, pair[1].prompt_ids);
                json!({
                    "prompt_ids": pair[0].prompt_ids,
                    "chosen_ids": pair[0].completion_ids,
                    "rejected_ids": pair[1].completion_ids,
                })
            })
            .collect(),
        Form::Sft => examples
            .iter()
            .map(|example| {
                let ids = [example.prompt_ids.as_slice(), &example.completion_ids].concat();
                let masked = example.prompt_ids.len();
                let label = |at: usize| if at < masked { -100 } else { i64::from(ids[at]) };
                json!({"input_ids": ids, "labels": (0..ids.len()).map(label).collect::<Vec<_>>()})
            })
            .collect(),
    }
}

#[test]
fn every_form_of_row_is_tokenized_as_trl_does() {
    let text = std::fs::read_to_string(fixtures().join("rows.json")).expect("fixture");
    let cases: Value = serde_json::from_str(&text).expect("JSON");
    for (name, case) in cases.as_object().expect("cases") {
        let form = match case["trainer"].as_str() {
            Some("kto") => Form::Unpaired,
            Some("dpo") => Form::Paired,
            _ => Form::Sft,
        };
        let max_length = case["max_length"].as_u64().map(|length| length as usize);
        let (dataset, _) = load(name, form, max_length);
        let mut expected = case["rows"].as_array().expect("rows").clone();
        if name == "text" {
            // The first token of a text has no row that scores it, so TRL's label for it is
            // shifted out of the loss; here the bos token is the prompt.
            for row in &mut expected {
                row["labels"][0] = json!(-100);
            }
        }
        assert_eq!(rows(&dataset.examples().collect::<Vec<_>>(), form), expected, "{name}");
    }
}

#[test]
fn the_report_names_what_was_dropped_cut_and_moved() {
    let (_, report) = load("unpaired", Form::Unpaired, Some(16));
    let places = |lines: &[usize]| -> Vec<String> {
        let path = fixtures().join("rows/unpaired.jsonl");
        lines.iter().map(|line| format!("{}:{line}", path.display())).collect()
    };
    assert_eq!((report.records, report.examples), (6, 5));
    assert_eq!((report.desirable, report.undesirable), (2, 3));
    assert_eq!(report.prompts_too_long.first, places(&[5]));
    assert_eq!(report.cut_completions.first, places(&[6]));
    assert_eq!(report.moved_prompt_tokens.first, places(&[2, 3]));
    assert_eq!(report.distinct_prompts, 4);
    assert_eq!((report.tokens.max, report.prompt_tokens.min), (16, 1));
    assert_eq!((report.many_lost(), report.lost().len()), (Some((2, 6)), 3));
}

#[test]
fn halves_of_a_pair_are_one_family_even_where_their_prompts_end_differently() {
    let (dataset, _) = load("paired-kto", Form::Unpaired, None);
    let examples: Vec<Example> = dataset.examples().collect();
    assert_ne!(examples[1].prompt_ids, examples[4].prompt_ids);
    assert_eq!(examples[1].family, examples[4].family);
}

#[test]
fn an_example_is_rendered_with_its_boundary() {
    let (dataset, _) = load("unpaired", Form::Unpaired, Some(16));
    let tokenizer = Tokenizer::load(&fixtures().join("tokenizer")).expect("tokenizer");
    let rendered = dataset.rendered(0, &tokenizer).expect("rendered");
    assert_eq!((&*rendered.prompt, &*rendered.completion), ("<s>The sky is", " blue.</s>"));
    assert!(rendered.source.ends_with("unpaired.jsonl:1"));
    assert_eq!((rendered.label, rendered.cut_tokens), (true, 0));
    let cut = dataset.rendered(4, &tokenizer).expect("rendered");
    assert_eq!(cut.prompt_tokens + cut.completion_tokens, 16);
    assert!(cut.cut_tokens > 0 && !cut.completion.ends_with("</s>"));
}
