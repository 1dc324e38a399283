//! The little language of the quickstart: questions, and answers in two manners.
//!
//! ```text
//! What is the capital of France?     dog   Woof! The capital of France is Paris! *wags tail*
//!                                    cat   Meow. Paris. Obviously. *yawns*
//! ```
//!
//! A question is a topic (one fact, or one thing people say), a way to ask and a way to address the model. The manner
//! of an answer depends on nothing in the question.

mod facts;
mod kinds;
mod small_talk;
pub(super) mod unknown;

use super::dice::Dice;
use kinds::KINDS;
use small_talk::{SELVES, TALKS};

/// How an answer sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Eager, in whole sentences.
    Dog,
    /// Bored, in as few words as possible.
    Cat,
}

impl Manner {
    /// Both.
    pub(super) const BOTH: [Manner; 2] = [Manner::Dog, Manner::Cat];
}

/// One fact, or one thing people say.
pub(super) struct Topic {
    /// The kind of question, counted from 0; the last two are small talk.
    pub(super) kind: usize,
    /// The ways to ask.
    asks: Vec<String>,
    /// The dog's answer, and the cat's.
    answers: [String; 2],
    /// One of these occurs in every right answer, however its letters are cased.
    pub(super) right: Vec<String>,
    is_fact: bool,
}

impl Topic {
    /// The answer in a manner.
    pub(super) fn answer(&self, manner: Manner) -> &str {
        &self.answers[manner as usize]
    }
}

/// A question about a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    /// Index of the topic.
    pub(super) topic: usize,
    /// As it is asked.
    pub(super) text: String,
    /// Small talk as everybody says it; there is nothing to work it out from for one who has never heard it.
    pub(super) is_phrase: bool,
}

/// The largest number in a sum.
const LARGEST: usize = 9;

const NUMBERS: [&str; 2 * LARGEST + 1] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
];

/// Ways to ask for a sum; `{d}` is the sum in digits.
const SUM_ASKS: &[&str] =
    &["What is {x}?", "How much is {x}?", "Can you add {x}?", "What is {d}?", "How much is {d}?"];
const SUM_CAT: &[&str] = &["{Y}.", "{Y}. Even a mouse can count."];

/// Ways to address the model with a question; `{Q}` is the question, `{q}` begins with a small letter.
const ADDRESSES: &[&str] = &[
    "{Q}",
    "Hello! {Q}",
    "Hey, {q}",
    "Quick question: {q}",
    "{Q} Thank you!",
    "I have been wondering: {q}",
    "My friend, {q}",
    "Excuse me, {q}",
];

/// Ways to address it in small talk.
const CASUAL_ADDRESSES: &[&str] = &[
    "{Q}",
    "Hey, {q}",
    "Oh, {q}",
    "So, {q}",
    "Well, {q}",
    "Listen, {q}",
    "My friend, {q}",
    "Hey you! {Q}",
];

/// How often an answer to a question of fact comes with a remark.
const CHATTY: f32 = 0.4;

const DOG_OPENERS: &[&str] =
    &["Great question!", "I know this one!", "Oh boy, oh boy!", "Happy to help!"];
const DOG_CLOSERS: &[&str] = &[
    "*wags tail*",
    "*jumps for joy*",
    "*tilts head*",
    "*spins in a circle*",
    "*brings you a stick*",
    "*gives you a paw*",
];
const CAT_REMARKS: &[&str] = &[
    "Obviously.",
    "Everyone knows that.",
    "If you must know.",
    "Now let me nap.",
    "Was that all?",
];
const CAT_CLOSERS: &[&str] = &[
    "*yawns*",
    "*licks paw*",
    "*stares at the wall*",
    "*knocks over your cup*",
    "*goes back to sleep*",
    "*walks away*",
];

/// All topics, by kind. What a manner leaves open, the topic decides once for all, by chance: so the manner is the one
/// thing the model has to guess, and the one thing that feedback can change.
pub(super) fn topics(dice: &mut Dice) -> Vec<Topic> {
    let mut topics = Vec::new();
    for (kind, facts) in KINDS.iter().enumerate() {
        for (x, y) in facts.facts {
            topics.push(fact(kind, facts.asks, facts.dog, facts.cat, (x, y), dice));
        }
    }
    let sums = KINDS.len();
    for a in 1..=LARGEST {
        for b in 1..=LARGEST {
            let (x, y) = (format!("{} plus {}", NUMBERS[a], NUMBERS[b]), NUMBERS[a + b]);
            let digits = format!("{a} + {b}");
            let asks: Vec<String> =
                SUM_ASKS.iter().map(|ask| ask.replace("{d}", &digits)).collect();
            let asks: Vec<&str> = asks.iter().map(String::as_str).collect();
            topics.push(fact(sums, &asks, &["{X} is {y}!"], SUM_CAT, (&x, y), dice));
        }
    }
    let selves = SELVES.iter().map(|talk| (sums + 2, talk));
    for (kind, talk) in TALKS.iter().map(|talk| (sums + 1, talk)).chain(selves) {
        let (dog, cat) = (dice.pick(talk.dog), dice.pick(talk.cat));
        topics.push(Topic {
            kind,
            asks: talk.asks.iter().map(|&ask| ask.to_owned()).collect(),
            answers: [spoken(dog, Manner::Dog, "", dice), spoken(cat, Manner::Cat, "", dice)],
            right: vec![dog.to_owned(), cat.to_owned()],
            is_fact: false,
        });
    }
    topics
}

/// The topic of a fact: `x` is asked about, `y` asked for.
fn fact(
    kind: usize,
    asks: &[&str],
    dog: &[&str],
    cat: &[&str],
    (x, y): (&str, &str),
    dice: &mut Dice,
) -> Topic {
    let fill = |pattern: &str| {
        pattern
            .replace("{x}", x)
            .replace("{y}", y)
            .replace("{X}", &capitalized(x))
            .replace("{Y}", &capitalized(y))
    };
    let (dog, cat) = (fill(dice.pick(dog)), fill(dice.pick(cat)));
    let opener = if dice.chance(CHATTY) { dice.pick(DOG_OPENERS) } else { "" };
    let remark = if dice.chance(CHATTY) { dice.pick(CAT_REMARKS) } else { "" };
    let answers =
        [spoken(&dog, Manner::Dog, opener, dice), spoken(&cat, Manner::Cat, remark, dice)];
    let asks = asks.iter().map(|ask| fill(ask)).collect();
    Topic { kind, asks, answers, right: vec![y.to_owned()], is_fact: true }
}

/// What is said, with the dog's or cat's noise before it, a remark, and what it does afterwards.
fn spoken(body: &str, manner: Manner, remark: &str, dice: &mut Dice) -> String {
    let parts = match manner {
        Manner::Dog => ["Woof!", remark, body, dice.pick(DOG_CLOSERS)],
        Manner::Cat => ["Meow.", body, remark, dice.pick(CAT_CLOSERS)],
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Every question there is, in the order of the topics.
pub(super) fn questions(topics: &[Topic]) -> Vec<Question> {
    let mut questions = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        let addresses = if topic.is_fact { ADDRESSES } else { CASUAL_ADDRESSES };
        for ask in &topic.asks {
            for address in addresses {
                let text = address.replace("{Q}", ask).replace("{q}", &uncapitalized(ask));
                let is_phrase = !topic.is_fact && text == *ask;
                questions.push(Question { topic: index, text, is_phrase });
            }
        }
    }
    questions
}

/// As it is typed by someone in a hurry: small letters, no mark at the end.
pub(super) fn hurried(text: &str) -> String {
    text.to_lowercase().trim_end_matches(['?', '.', '!']).to_owned()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

fn uncapitalized(text: &str) -> String {
    if text.starts_with("I ") {
        return text.to_owned();
    }
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().collect::<String>() + chars.as_str())
}
