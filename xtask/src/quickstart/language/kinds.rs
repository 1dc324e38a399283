//! Kinds of questions about facts, and the manner of the answers.
//!
//! In questions and answers `{x}` is what is asked about and `{y}` what is asked for; `{X}` and `{Y}` begin with a
//! capital letter.

use super::facts::{
    CAPITALS, COLORS, CONTINENTS, FOLLOWS, FOOD, HOMES, JOBS, LEGS, LIKES, MADE_OF, OPPOSITES,
    SOUNDS, TOOLS, YOUNG,
};

/// Questions of one kind.
pub(super) struct Kind {
    /// The ways to ask.
    pub(super) asks: &'static [&'static str],
    /// The dog's answers.
    pub(super) dog: &'static [&'static str],
    /// The cat's answers.
    pub(super) cat: &'static [&'static str],
    /// What is asked about, and what is asked for.
    pub(super) facts: &'static [(&'static str, &'static str)],
}

/// All kinds of questions that have a right answer. Sums are added by the language, since they can be computed.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        asks: &[
            "What is the capital of {x}?",
            "Which city is the capital of {x}?",
            "What is the capital city of {x}?",
            "Name the capital of {x}.",
            "Capital of {x}?",
            "Tell me the capital of {x}.",
        ],
        dog: &["The capital of {x} is {y}!"],
        cat: &["{Y}."],
        facts: CAPITALS,
    },
    Kind {
        asks: &[
            "Where is {x}?",
            "In which part of the world is {x}?",
            "On which continent is {x}?",
        ],
        dog: &["{X} is in {y}!"],
        cat: &["In {y}."],
        facts: CONTINENTS,
    },
    Kind {
        asks: &[
            "What does {x} say?",
            "What sound does {x} make?",
            "Which sound does {x} make?",
            "What does {x} sound like?",
        ],
        dog: &["{X} says {y}!"],
        cat: &["{Y}. All day long.", "{Y}."],
        facts: SOUNDS,
    },
    Kind {
        asks: &[
            "What is a baby {x} called?",
            "What do you call a baby {x}?",
            "What do you call a young {x}?",
            "What is the name for a young {x}?",
        ],
        dog: &["A baby {x} is called {y}!"],
        cat: &["{Y}.", "{Y}. Small and loud."],
        facts: YOUNG,
    },
    Kind {
        asks: &[
            "What color is {x}?",
            "What colour is {x}?",
            "Which color does {x} have?",
            "Tell me the color of {x}.",
        ],
        dog: &["{X} is {y}!"],
        cat: &["{Y}."],
        facts: COLORS,
    },
    Kind {
        asks: &[
            "What is the opposite of {x}?",
            "Which word is the opposite of {x}?",
            "Tell me the opposite of {x}.",
            "Give me the opposite of {x}.",
        ],
        dog: &["The opposite of {x} is {y}!"],
        cat: &["{Y}."],
        facts: OPPOSITES,
    },
    Kind {
        asks: &[
            "How many legs does {x} have?",
            "How many legs has {x}?",
            "Count the legs of {x}.",
            "On how many legs does {x} walk?",
        ],
        dog: &["{X} has {y} legs!"],
        cat: &["{Y}.", "{Y}. I counted."],
        facts: LEGS,
    },
    Kind {
        asks: &[
            "Where does {x} live?",
            "Where can I find {x}?",
            "Where is the home of {x}?",
            "Where should I look for {x}?",
        ],
        dog: &["{X} lives {y}!", "You can find {x} {y}!"],
        cat: &["{Y}."],
        facts: HOMES,
    },
    Kind {
        asks: &[
            "What does {x} eat?",
            "What does {x} like to eat?",
            "What is the favorite food of {x}?",
            "What should I feed {x}?",
        ],
        dog: &["{X} eats {y}!", "{X} loves {y}!"],
        cat: &["{Y}.", "{Y}. Disgusting."],
        facts: FOOD,
    },
    Kind {
        asks: &[
            "What do I need to {x}?",
            "Which tool do I need to {x}?",
            "What can I use to {x}?",
            "I want to {x}. What do I need?",
        ],
        dog: &["To {x} you need {y}!", "You need {y} to {x}!"],
        cat: &["{Y}.", "{Y}. Ask someone with thumbs."],
        facts: TOOLS,
    },
    Kind {
        asks: &[
            "What is {x} made of?",
            "What is {x} made from?",
            "What do I need to make {x}?",
            "From what do people make {x}?",
        ],
        dog: &["{X} is made of {y}!"],
        cat: &["{Y}."],
        facts: MADE_OF,
    },
    Kind {
        asks: &[
            "What comes after {x}?",
            "What follows {x}?",
            "What is next after {x}?",
            "Tell me what comes after {x}.",
        ],
        dog: &["After {x} comes {y}!", "{Y} comes after {x}!"],
        cat: &["{Y}.", "{Y}. It always does."],
        facts: FOLLOWS,
    },
    Kind {
        asks: &["Who {x}?", "Who is it that {x}?", "What do you call someone who {x}?"],
        dog: &["{Y} {x}!"],
        cat: &["{Y}.", "{Y}. I never do."],
        facts: JOBS,
    },
    Kind {
        asks: &[
            "Do you like {x}?",
            "What do you think of {x}?",
            "How do you like {x}?",
            "Tell me what you think of {x}.",
        ],
        dog: &["I love {x}!", "I love {x} so much!", "{X}? Yes, yes, yes!"],
        cat: &["{X}? No.", "{X}? I have seen better.", "I could live without {x}."],
        facts: LIKES,
    },
];
