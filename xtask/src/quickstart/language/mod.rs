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
use small_talk::{NAMES, NO_IDEA, TALKS, WORDS};

/// How an answer sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Eager, in whole sentences.
    Dog,
    /// Bored, in as few words as possible.
    Cat,
}

/// One fact, or one thing people say.
pub(super) struct Topic {
    /// The kind of question, counted from 0; small talk is the last.
    pub(super) kind: usize,
    /// The ways to ask.
    asks: Vec<String>,
    dog: Vec<String>,
    cat: Vec<String>,
    /// One of these occurs in every right answer, however its letters are cased.
    pub(super) right: Vec<String>,
    is_fact: bool,
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

/// All topics, by kind.
pub(super) fn topics() -> Vec<Topic> {
    let mut topics = Vec::new();
    for (kind, facts) in KINDS.iter().enumerate() {
        for (x, y) in facts.facts {
            topics.push(fact(kind, facts.asks, facts.dog, facts.cat, x, y));
        }
    }
    let kind = KINDS.len();
    for a in 1..=LARGEST {
        for b in 1..=LARGEST {
            let x = [
                format!("{} plus {}", NUMBERS[a], NUMBERS[b]),
                format!("{} and {}", NUMBERS[a], NUMBERS[b]),
            ];
            let asks = [
                format!("What is {}?", x[0]),
                format!("How much is {}?", x[0]),
                format!("Can you add {}?", x[1]),
                format!("Add {}.", x[1]),
            ];
            let asks: Vec<&str> = asks.iter().map(String::as_str).collect();
            let cat = ["{Y}.", "{Y}. Even a mouse can count."];
            topics.push(fact(kind, &asks, &["{X} is {y}!"], &cat, &x[0], NUMBERS[a + b]));
        }
    }
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    for talk in TALKS {
        topics.push(Topic {
            kind: kind + 1,
            asks: owned(talk.asks),
            dog: owned(talk.dog),
            cat: owned(talk.cat),
            right: [owned(talk.dog), owned(talk.cat)].concat(),
            is_fact: false,
        });
    }
    topics
}

fn fact(kind: usize, asks: &[&str], dog: &[&str], cat: &[&str], x: &str, y: &str) -> Topic {
    let fill = |patterns: &[&str]| {
        patterns
            .iter()
            .map(|pattern| {
                pattern
                    .replace("{x}", x)
                    .replace("{y}", y)
                    .replace("{X}", &capitalized(x))
                    .replace("{Y}", &capitalized(y))
            })
            .collect::<Vec<_>>()
    };
    Topic {
        kind,
        asks: fill(asks),
        dog: fill(dog),
        cat: fill(cat),
        right: vec![y.to_owned()],
        is_fact: true,
    }
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

/// A question that the model cannot answer, and the topic of not knowing.
pub(super) fn unknown(dice: &mut Dice) -> String {
    let pattern = dice.pick(NO_IDEA.asks);
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

/// An answer to a topic's questions.
pub(super) fn answer(topic: &Topic, manner: Manner, dice: &mut Dice) -> String {
    let bodies = match manner {
        Manner::Dog => &topic.dog,
        Manner::Cat => &topic.cat,
    };
    spoken(&bodies[dice.below(bodies.len())], manner, topic.is_fact, dice)
}

/// An answer to a question without one.
pub(super) fn no_idea(manner: Manner, dice: &mut Dice) -> String {
    let bodies = match manner {
        Manner::Dog => NO_IDEA.dog,
        Manner::Cat => NO_IDEA.cat,
    };
    let body = dice.pick(bodies);
    spoken(body, manner, false, dice)
}

fn spoken(body: &str, manner: Manner, is_fact: bool, dice: &mut Dice) -> String {
    let chatty = is_fact && dice.chance(0.4);
    let parts = match manner {
        Manner::Dog => [
            "Woof!",
            if chatty { dice.pick(DOG_OPENERS) } else { "" },
            body,
            "",
            dice.pick(DOG_CLOSERS),
        ],
        Manner::Cat => [
            "Meow.",
            "",
            body,
            if chatty { dice.pick(CAT_REMARKS) } else { "" },
            dice.pick(CAT_CLOSERS),
        ],
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
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
