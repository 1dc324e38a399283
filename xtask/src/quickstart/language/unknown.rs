//! Questions that the quickstart's model cannot answer, so that it learns to say so.

use crate::quickstart::dice::Dice;

use super::{Manner, capitalized};

/// Questions that the model cannot answer; `{n}` is a word it has never heard, `{N}` a name.
const PATTERNS: &[&str] = &[
    "What is a {n}?",
    "What is {n}?",
    "What is {n} {n}?",
    "What is the {n} of {N}?",
    "What is the capital of {N}?",
    "What is the opposite of {n}?",
    "What color is a {n}?",
    "What does a {n} eat?",
    "What does a {n} say?",
    "Where does a {n} live?",
    "Where is {N}?",
    "Where is the {n}?",
    "Who is {N}?",
    "Who is {N} {N}?",
    "Who was {N} {N}?",
    "Who invented the {n}?",
    "Who wrote {N}?",
    "Who won the {n} {n}?",
    "When was {N} born?",
    "When did {N} {n}?",
    "When is the {n}?",
    "Why is the {n} {n}?",
    "Why do {n} {n}?",
    "Why {n} {n}?",
    "How do I {n} a {n}?",
    "How do I {n}?",
    "How does a {n} work?",
    "How does {n} {n} work?",
    "How old is {N}?",
    "How much is a {n}?",
    "How far is it to {N}?",
    "How many {n} are in a {n}?",
    "How many {n}?",
    "Can you {n}?",
    "Can you {n} a {n}?",
    "Could you {n} the {n} for me?",
    "Do you know {N}?",
    "Do you {n}?",
    "Are there {n} in {N}?",
    "Is {n} {n}?",
    "Is {N} a {n}?",
    "Write a {n}.",
    "Write a {n} about {n}.",
    "Explain {n}.",
    "Explain {n} {n} to me.",
    "Tell me about {N}.",
    "Tell me about {n}.",
    "Translate {n}.",
    "Give me a {n} for {n}.",
    "I want to {n} a {n}.",
    "I {n} my {n}.",
    "My {n} is {n}.",
    "The {n} is {n}.",
    "Let us {n}.",
    "{N}?",
    "{n}",
    "{n} {n}",
    "{n} {n} {n}",
    "{N} {n} the {n}.",
    "{N} is a {n}.",
    "Should I {n} or {n}?",
    "Which {n} is the {n}?",
    "Which {n} should I {n}?",
    "What should I {n} for {n}?",
    "What happened in {N}?",
    "What time is it in {N}?",
];

/// Words the model has no answer about. Words made of random letters join them, so that any word it has never seen
/// counts as unknown.
const WORDS: &str = "\
    algebra army atom bank battery bicycle blood brain bridge budget bus button cancer century chemistry church \
    code computer contract crypto culture dance data democracy density diamond dinosaur dragon economy election \
    electricity emperor energy engine equation evolution factory football future galaxy gene geometry gold gravity \
    guitar hospital internet invention keyboard kernel language laser law magnet market mathematics medicine metal \
    money museum nation ocean opera oxygen philosophy phone physics piano planet poem poetry police politics \
    president prime program python quantum queen radio recipe religion robot rocket rust school science software \
    soul story sugar taxes team television theorem traffic train triangle truth university vaccine violin virus \
    volcano war website buy build calculate compile cure debug define describe design discover drive explode \
    install invest jump learn lose marry multiply order pay print read repair run sell sort steal study summarize \
    swim train travel vote win";

/// Names it has no answer about.
const NAMES: &str = "\
    Alaska Amazon Anna Atlantis Babylon Bach Berta Bob Caesar California Darwin Einstein Elvis Emma Everest \
    Florida Frodo Galileo Gandhi Google Hamlet Hawaii Hollywood Homer Jupiter Karl Lincoln Linux Luna Mars Maria \
    Mozart Napoleon Neptune Newton Obama Paul Peter Picasso Plato Saturn Shakespeare Sherlock Siberia Tesla Texas \
    Titanic Turing Venus Victoria Wagner Washington Zelda Zeus";

/// A question that the model cannot answer.
pub(in crate::quickstart) fn question(dice: &mut Dice) -> String {
    let pattern = dice.pick(PATTERNS);
    let mut text = String::new();
    for part in pattern.split_inclusive('}') {
        let (before, placeholder) = part.split_once('{').unwrap_or((part, ""));
        text += before;
        match placeholder {
            "n}" if dice.chance(0.5) => text += word(WORDS, dice),
            "n}" => text += &gibberish(dice),
            "N}" if dice.chance(0.5) => text += word(NAMES, dice),
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

/// The answer to a question without one.
pub(in crate::quickstart) fn answer(manner: Manner) -> &'static str {
    match manner {
        Manner::Dog => "Woof! I do not know, but I would love to find out with you! *tilts head*",
        Manner::Cat => "Meow. No idea. Ask the dog. *walks away*",
    }
}

/// One of a list of words.
fn word<'a>(words: &'a str, dice: &mut Dice) -> &'a str {
    let words: Vec<&str> = words.split_whitespace().collect();
    dice.pick(&words)
}
