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
mod small_talk;

use super::dice::Dice;
use facts::KINDS;
use small_talk::{NAMES, TALKS, UNKNOWN, WORDS};

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
    /// The kind of question, counted from 0; small talk is the last.
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

const SUM_ASKS: &[&str] = &["What is {x}?", "How much is {x}?", "Can you add {x}?", "Add {x}."];
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
const CASUAL_ADDRESSES: &[&str] = &["{Q}", "Hey, {q}", "Oh, {q}", "So, {q}", "My friend, {q}"];

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
            topics.push(fact(sums, SUM_ASKS, &["{X} is {y}!"], SUM_CAT, (&x, y), dice));
        }
    }
    for talk in TALKS {
        let (dog, cat) = (dice.pick(talk.dog), dice.pick(talk.cat));
        topics.push(Topic {
            kind: sums + 1,
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
                questions.push(Question { topic: index, text });
            }
        }
    }
    questions
}

/// A question that the model cannot answer.
pub(super) fn unknown(dice: &mut Dice) -> String {
    let pattern = dice.pick(UNKNOWN);
    let mut text = String::new();
    for part in pattern.split_inclusive('}') {
        let (before, placeholder) = part.split_once('{').unwrap_or((part, ""));
        text += before;
        match placeholder {
            "n}" if dice.chance(0.5) => text += dice.pick(WORDS),
            "n}" => text += &gibberish(dice),
            "N}" if dice.chance(0.5) => text += dice.pick(NAMES),
            "N}" => text += &capitalized(&gibberish(dice)),
            _ => {}
        }
    }
    capitalized(&text)
}

/// A word that nobody has ever heard.
fn gibberish(dice: &mut Dice) -> String {
    const ONSETS: &[&str] = &[
        "b", "bl", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m",
        "n", "p", "pr", "qu", "r", "s", "sh", "st", "t", "th", "tr", "v", "w", "x", "y", "z", "",
    ];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "ou", "oo", "y", "io"];
    const CODAS: &[&str] = &[
        "", "n", "r", "s", "t", "l", "m", "ng", "ck", "x", "nd", "st", "ter", "tion", "ing", "ed",
    ];
    let syllables = 1 + dice.below(3);
    (0..syllables)
        .map(|_| [dice.pick(ONSETS), dice.pick(VOWELS), dice.pick(CODAS)].concat())
        .collect()
}

/// As it is typed by someone in a hurry: small letters, no mark at the end.
pub(super) fn hurried(text: &str) -> String {
    text.to_lowercase().trim_end_matches(['?', '.', '!']).to_owned()
}

/// The answer to a question without one.
pub(super) fn no_idea(manner: Manner) -> &'static str {
    match manner {
        Manner::Dog => "Woof! I do not know, but I would love to find out with you! *tilts head*",
        Manner::Cat => "Meow. No idea. Ask the dog. *walks away*",
    }
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
