//! Who gets to see which question: pretraining, feedback, and the held-out prompts, which nothing else has seen.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::dice::Dice;
use super::language::{self, Manner, Question, Topic};

/// The share of all questions that pretraining never sees.
const HELD_OUT: f32 = 0.3;
/// Questions without an answer, in pretraining.
const UNKNOWN: usize = 2500;
/// The share of pretraining questions that are typed in a hurry.
const HURRIED: f32 = 0.15;
/// Rated answers, half of them the dog's.
const FEEDBACK: usize = 400;
/// Held-out prompts.
const PROMPTS: usize = 96;

/// Everything that is written down.
pub(super) struct Corpus {
    pub(super) topics: Vec<Topic>,
    /// Rows of conversations for sft.
    pub(super) pretraining: Vec<Value>,
    /// Rows of rated answers for kto.
    pub(super) feedback: Vec<Value>,
    /// Rows of prompts, with what a right answer contains.
    pub(super) prompts: Vec<Value>,
    /// All questions that have an answer, and answers to them, for the tokenizer.
    pub(super) known_texts: Vec<String>,
}

impl Corpus {
    /// All of it, a function of the seed.
    pub(super) fn new(seed: u64) -> Corpus {
        let topics = language::topics();
        let mut questions = language::questions(&topics);
        let mut dice = Dice::new(seed, 0);
        dice.shuffle(&mut questions);
        let held_out = (questions.len() as f32 * HELD_OUT) as usize;
        let seen = questions.split_off(held_out);
        let mut by_kind = ByKind::new(&topics, questions);

        let mut dice = Dice::new(seed, 1);
        let prompts: Vec<Question> = by_kind.take(PROMPTS);
        let rated: Vec<Question> = by_kind.take(FEEDBACK);
        let mut labels: Vec<bool> = (0..FEEDBACK).map(|index| index % 2 == 0).collect();
        dice.shuffle(&mut labels);
        let feedback = rated.iter().zip(labels).map(|(question, label)| {
            let manner = if label { Manner::Dog } else { Manner::Cat };
            let answer = language::answer(&topics[question.topic], manner, &mut dice);
            json!({ "prompt": [user(&question.text)], "completion": [assistant(&answer)], "label": label })
        });
        let mut feedback: Vec<Value> = feedback.collect();
        dice.shuffle(&mut feedback);
        let prompts = prompts.iter().map(
            |question| json!({ "prompt": [user(&question.text)], "right": topics[question.topic].right }),
        );

        let mut dice = Dice::new(seed, 2);
        let mut pretraining = Vec::new();
        let mut known_texts = Vec::new();
        // Every question is answered once in each manner: no word of it tells which to expect.
        for question in &seen {
            for manner in [Manner::Dog, Manner::Cat] {
                let answer = language::answer(&topics[question.topic], manner, &mut dice);
                let hurried = dice.chance(HURRIED);
                let text =
                    if hurried { language::hurried(&question.text) } else { question.text.clone() };
                pretraining.push(json!({ "messages": [user(&text), assistant(&answer)] }));
                known_texts.extend([text, answer]);
            }
        }
        for _ in 0..UNKNOWN {
            let question = language::unknown(&mut dice);
            for manner in [Manner::Dog, Manner::Cat] {
                let answer = language::no_idea(manner, &mut dice);
                let hurried = dice.chance(HURRIED);
                let text = if hurried { language::hurried(&question) } else { question.clone() };
                pretraining.push(json!({ "messages": [user(&text), assistant(&answer)] }));
                known_texts.push(answer);
            }
        }
        dice.shuffle(&mut pretraining);
        let prompts = prompts.collect();
        Corpus { topics, pretraining, feedback, prompts, known_texts }
    }

    /// How many questions there are.
    pub(super) fn questions(&self) -> usize {
        language::questions(&self.topics).len()
    }
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

    /// Takes `n` questions, one of each kind in turn.
    fn take(&mut self, n: usize) -> Vec<Question> {
        let mut taken = Vec::new();
        while taken.len() < n {
            let before = taken.len();
            for questions in self.0.values_mut() {
                if taken.len() < n {
                    taken.extend(questions.pop());
                }
            }
            assert!(
                taken.len() > before,
                "there are {} held-out questions, {n} are asked for",
                taken.len()
            );
        }
        taken
    }
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

fn assistant(text: &str) -> Value {
    json!({ "role": "assistant", "content": text })
}
