//! Several origins, with weights and without.

use super::*;

/// Rows of plain text: their labels, and the word they are all about.
fn file(folder: &Path, name: &str, labels: &[bool]) -> PathBuf {
    let row = |(number, label): (usize, &bool)| {
        format!(r#"{{"prompt": "{name} {number}", "completion": "sky", "label": {label}}}"#)
    };
    let rows: Vec<String> = labels.iter().enumerate().map(row).collect();
    let path = folder.join(format!("{name}.jsonl"));
    std::fs::write(&path, rows.join("\n")).expect("written");
    path
}

fn open(origins: &[Origin], form: Form) -> Result<(Dataset, Report)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data/tokenizer");
    let tokenizer = Tokenizer::load(&folder).expect("tokenizer");
    Dataset::open(
        origins,
        None,
        &tokenizer,
        &DataOptions { form, max_length: None, now: Moment(0) },
    )
}

fn batching(order: Order) -> Batching {
    Batching {
        order,
        seed: 5,
        batch_size: 4,
        gradient_accumulation_steps: 1,
        token_budget: 1000,
        mismatched: true,
        together: false,
        scored_prompts: false,
    }
}

#[test]
fn weights_are_shares_of_an_epoch_and_classes_stay_spread() {
    let folder = tempfile::tempdir().expect("folder");
    let large: Vec<bool> = (0..30).map(|number| number % 2 == 0).collect();
    let origins: Vec<Origin> = [("large", large.as_slice(), 1.0), ("small", &[true, false], 3.0)]
        .map(|(name, labels, weight)| Origin {
            files: vec![file(folder.path(), name, labels)],
            weight: Some(weight),
            ..Origin::default()
        })
        .into();
    let (dataset, report) = open(&origins, Form::Unpaired).expect("dataset");
    let shares: Vec<(usize, usize)> =
        report.parts.iter().map(|part| (part.examples, part.per_epoch)).collect();
    assert_eq!(shares, [(30, 8), (2, 24)]);
    let batching = batching(Order::Shuffled);
    let mut seen = [0; 32];
    for number in 0..4 {
        let epoch = dataset.epoch(&batching, number);
        assert_eq!(epoch.steps(), 8);
        for step in 0..8 {
            let packed = epoch.step(step);
            let examples = &packed.groups[0].examples;
            assert_eq!(examples.iter().filter(|example| example.label).count(), 2);
            examples.iter().for_each(|example| seen[example.index] += 1);
        }
    }
    // 32 draws of the large one's 30: each once, and two a second time.
    assert!(seen[..30].iter().all(|&times| times == 1 || times == 2));
    assert_eq!(seen[30..], [48, 48]);
}

#[test]
fn without_weights_origins_are_one_after_another() {
    let folder = tempfile::tempdir().expect("folder");
    let paths = [("a", &[true, false][..]), ("b", &[false, true, true])]
        .map(|(name, labels)| file(folder.path(), name, labels));
    let (one, _) = open(&[Origin { files: paths.to_vec(), ..Origin::default() }], Form::Unpaired)
        .expect("dataset");
    let each = paths.map(|path| Origin { files: vec![path], ..Origin::default() });
    let (two, report) = open(&each, Form::Unpaired).expect("dataset");
    assert!(one.examples().eq(two.examples()));
    assert_eq!(report.parts.iter().map(|part| part.per_epoch).collect::<Vec<_>>(), [2, 3]);
    for order in [Order::Shuffled, Order::Sequential] {
        let batching = batching(order);
        assert_eq!(one.epoch(&batching, 1).step(0), two.epoch(&batching, 1).step(0));
    }
}

#[test]
fn origins_may_differ_in_form() {
    let folder = tempfile::tempdir().expect("folder");
    let pairs = folder.path().join("pairs.jsonl");
    std::fs::write(&pairs, r#"{"prompt": "p", "chosen": " a", "rejected": " b"}"#)
        .expect("written");
    let files = [file(folder.path(), "a", &[true]), pairs.clone()];
    let each = files.clone().map(|path| Origin { files: vec![path], ..Origin::default() });
    let (dataset, report) = open(&each, Form::Unpaired).expect("dataset");
    assert_eq!(dataset.count(), 3);
    let forms: Vec<&str> = report.parts.iter().map(|part| part.read.form.as_str()).collect();
    assert_eq!(forms, ["unpaired", "paired"]);
    let one = Origin { files: files.to_vec(), ..Origin::default() };
    let error = open(&[one], Form::Unpaired).expect_err("one source has one form");
    assert!(error.message.contains("but the first row"), "{error}");
}

#[test]
fn a_weight_that_gives_nothing_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let origins = [("a", 1000.0), ("b", 1.0)].map(|(name, weight)| Origin {
        files: vec![file(folder.path(), name, &[true, false])],
        weight: Some(weight),
        ..Origin::default()
    });
    let error = open(&origins, Form::Unpaired).expect_err("must fail");
    assert!(error.message.contains("none of the 4 examples of an epoch"), "{error}");
}
