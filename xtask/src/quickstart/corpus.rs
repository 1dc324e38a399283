//! Who gets to see which question: pretraining, feedback, and the held-out prompts, which nothing else has seen.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::dice::Dice;
use super::language::{self, Manner, Question, Topic, unknown};

/// The share of all questions that pretraining never sees.
const HELD_OUT: f32 = 0.3;
/// Questions without an answer, in pretraining.
const UNKNOWN: usize = 2500;
/// The share of pretraining questions that are typed in a hurry.
const HURRIED: f32 = 0.15;
/// Rated answers, half of them the dog's.
const FEEDBACK: usize = 400;
/// Questions with both answers.
const PAIRS: usize = 200;
/// Held-out prompts.
const PROMPTS: usize = 100;

/// Everything that is written down.
pub(super) struct Corpus {
    /// What is talked about.
    pub(super) topics: Vec<Topic>,
    /// The number of all questions about it.
    pub(super) questions: usize,
    /// Rows of conversations for sft.
    pub(super) pretraining: Vec<Value>,
    /// Rows of rated answers for kto.
    pub(super) feedback: Vec<Value>,
    /// Rows of pairs for dpo.
    pub(super) pairs: Vec<Value>,
    /// Rows of prompts, with what a right answer contains.
    pub(super) prompts: Vec<Value>,
    /// What the tokenizer is trained on: questions that have an answer, and the answers.
    pub(super) texts: Vec<String>,
}

impl Corpus {
    /// All of it, a function of the seed.
    pub(super) fn new(seed: u64) -> Corpus {
        let mut dice = Dice::new(seed, 0);
        let topics = language::topics(&mut dice);
        let mut held_out = language::questions(&topics);
        let questions = held_out.len();
        dice.shuffle(&mut held_out);
        let mut seen = held_out.split_off((questions as f32 * HELD_OUT) as usize);
        seen.extend(held_out.extract_if(.., |question| question.is_phrase));

        let mut held_out = ByKind::new(&topics, held_out);
        let prompts = held_out.take(PROMPTS).into_iter().map(|question| {
            json!({ "prompt": [user(&question.text)], "right": topics[question.topic].right })
        });
        let prompts = prompts.collect();
        let feedback = feedback(&topics, held_out.take(FEEDBACK), &mut Dice::new(seed, 1));
        let pairs = held_out.take(PAIRS).into_iter().map(|question| pair(&topics, &question));
        let pairs = pairs.collect();
        let (pretraining, texts) = pretraining(&topics, &seen, &mut Dice::new(seed, 2));
        Corpus { topics, questions, pretraining, feedback, pairs, prompts, texts }
    }
}

/// Conversations, and of those that are about something the texts.
///
/// Every question is answered once in each manner, so that nothing in it tells which to expect.
fn pretraining(topics: &[Topic], seen: &[Question], dice: &mut Dice) -> (Vec<Value>, Vec<String>) {
    let (mut rows, mut texts) = (Vec::new(), Vec::new());
    let mut row = |question: &str, answer: &str, dice: &mut Dice| {
        let hurried = dice.chance(HURRIED);
        let question = if hurried { language::hurried(question) } else { question.to_owned() };
        rows.push(json!({ "messages": [user(&question), assistant(answer)] }));
        question
    };
    for question in seen {
        for manner in Manner::BOTH {
            let answer = topics[question.topic].answer(manner);
            texts.push(row(&question.text, answer, dice));
            texts.push(answer.to_owned());
        }
    }
    for _ in 0..UNKNOWN {
        let question = unknown::question(dice);
        for manner in Manner::BOTH {
            row(&question, unknown::answer(manner), dice);
        }
    }
    dice.shuffle(&mut rows);
    (rows, texts)
}

/// Answers to `questions`, half of them the dog's, which somebody liked, half the cat's, which nobody did.
fn feedback(topics: &[Topic], mut questions: Vec<Question>, dice: &mut Dice) -> Vec<Value> {
    dice.shuffle(&mut questions);
    let rows = questions.into_iter().enumerate().map(|(index, question)| {
        let (manner, label) =
            if index % 2 == 0 { (Manner::Dog, true) } else { (Manner::Cat, false) };
        json!({
            "prompt": [user(&question.text)],
            "completion": [assistant(topics[question.topic].answer(manner))],
            "label": label,
        })
    });
    rows.collect()
}

/// Both answers to a question, of which somebody liked the dog's better.
fn pair(topics: &[Topic], question: &Question) -> Value {
    let answer = |manner| [assistant(topics[question.topic].answer(manner))];
    json!({
        "prompt": [user(&question.text)],
        "chosen": answer(Manner::Dog),
        "rejected": answer(Manner::Cat),
    })
}

/// Questions by their kind, so that a kind of many questions does not push the others aside.
struct ByKind(BTreeMap<usize, Vec<Question>>);

impl ByKind {
    fn new(topics: &[Topic], questions: Vec<Question>) -> ByKind {
        let mut kinds: BTreeMap<usize, Vec<Question>> = BTreeMap::new();
        for question in questions {
            kinds.entry(topics[question.topic].kind).or_default().push(question);
        }
        ByKind(kinds)
    }

    /// Takes `n` questions, one of each kind in turn, small talk first; fewer if there are no more.
    fn take(&mut self, n: usize) -> Vec<Question> {
        let mut taken = Vec::new();
        while taken.len() < n && self.0.values().any(|questions| !questions.is_empty()) {
            for questions in self.0.values_mut().rev() {
                taken.extend(questions.pop());
            }
        }
        taken.truncate(n);
        taken
    }
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

fn assistant(text: &str) -> Value {
    json!({ "role": "assistant", "content": text })
}
