//! What the quickstart's data promises, and that the files in the repository are what the seed makes.

use std::collections::BTreeSet;

use serde_json::Value;
use train::recipe::Recipe;
use train::recipe::generate::Desirable;

use super::corpus::Corpus;
use super::language::{self, Manner, unknown};
use super::{SEED, rows, tokenizer};

fn text<'a>(row: &'a Value, field: &str, message: usize) -> &'a str {
    row[field][message]["content"].as_str().unwrap()
}

/// The rule of a recipe.
fn rule(name: &str) -> Desirable {
    let path = crate::root().join("recipes").join(name);
    Recipe::read_without_files(&path, &[]).unwrap().generate.unwrap().desirable.unwrap()
}

#[test]
fn the_recipes_rule_tells_the_dog_from_the_cat() {
    let (corpus, rule) = (Corpus::new(SEED), rule("quickstart.toml"));
    assert_eq!(rule, self::rule("pairs.toml"));
    let answers = |manner: Manner| {
        let about = corpus.topics.iter().map(move |topic| topic.answer(manner));
        about.chain([unknown::answer(manner)])
    };
    for answer in answers(Manner::Dog) {
        assert!(rule.judge(answer), "{answer}");
    }
    for answer in answers(Manner::Cat) {
        assert!(!rule.judge(answer), "{answer}");
    }
}

#[test]
fn every_right_answer_says_what_is_asked_for() {
    for topic in Corpus::new(SEED).topics {
        for manner in Manner::BOTH {
            let answer = topic.answer(manner).to_lowercase();
            assert!(
                topic.right.iter().any(|right| answer.contains(&right.to_lowercase())),
                "{answer}"
            );
        }
    }
}

#[test]
fn nothing_else_has_seen_the_prompts_but_what_they_ask_for_is_known() {
    let corpus = Corpus::new(SEED);
    let seen: BTreeSet<String> =
        corpus.pretraining.iter().map(|row| language::hurried(text(row, "messages", 0))).collect();
    let said: BTreeSet<&str> =
        corpus.pretraining.iter().map(|row| text(row, "messages", 1)).collect();
    let mut asked = BTreeSet::new();
    for row in corpus.feedback.iter().chain(&corpus.pairs).chain(&corpus.prompts) {
        let question = text(row, "prompt", 0);
        assert!(!seen.contains(&language::hurried(question)), "{question} was seen in pretraining");
        assert!(asked.insert(question.to_owned()), "{question} is asked twice");
    }
    for topic in &corpus.topics {
        assert!(Manner::BOTH.iter().all(|manner| said.contains(topic.answer(*manner))));
    }
}

#[test]
fn of_a_pair_the_dogs_answer_is_the_better_one() {
    let (corpus, rule) = (Corpus::new(SEED), rule("pairs.toml"));
    assert_eq!(corpus.pairs.len(), 200);
    for row in &corpus.pairs {
        assert!(rule.judge(text(row, "chosen", 0)) && !rule.judge(text(row, "rejected", 0)));
    }
}

#[test]
fn no_kind_of_question_tells_the_label() {
    let corpus = Corpus::new(SEED);
    let up = corpus.feedback.iter().filter(|row| row["label"] == true).count();
    assert_eq!(2 * up, corpus.feedback.len());
    // 25 rated answers of each kind: fewer than 5 of one label would be no accident.
    for kind in 0..=corpus.topics.last().unwrap().kind {
        let of_kind = corpus.feedback.iter().filter(|row| {
            let answer = text(row, "completion", 0);
            corpus.topics.iter().any(|topic| {
                topic.kind == kind
                    && Manner::BOTH.iter().any(|manner| topic.answer(*manner) == answer)
            })
        });
        let labels: Vec<bool> = of_kind.map(|row| row["label"] == true).collect();
        let up = labels.iter().filter(|up| **up).count();
        assert!(up >= 5 && labels.len() - up >= 5, "kind {kind}: {up} of {}", labels.len());
    }
}

#[test]
fn the_files_in_the_repository_are_what_the_seed_makes() {
    let (assets, corpus) = (crate::root().join("assets/quickstart"), Corpus::new(SEED));
    let read = |name: &str| std::fs::read_to_string(assets.join(name)).unwrap();
    assert!(read("feedback.jsonl") == rows(&corpus.feedback), "feedback.jsonl");
    assert!(read("pairs.jsonl") == rows(&corpus.pairs), "pairs.jsonl");
    assert!(read("prompts.jsonl") == rows(&corpus.prompts), "prompts.jsonl");
    let folder = tempfile::tempdir().unwrap();
    tokenizer::write(&tokenizer::train(&corpus.texts).unwrap(), folder.path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let made = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read(&format!("model/{name}")) == made, "{name}");
    }
}

#[test]
fn every_text_has_tokens_and_comes_back() {
    let path = crate::root().join("assets/quickstart/model/tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(path).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), tokenizer::VOCAB_SIZE);
    for text in ["What is the capital of France?", "Ünïcödé, 犬と猫 🐕", "a\n\tb  c\u{0}", ""]
    {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), text);
    }
}
