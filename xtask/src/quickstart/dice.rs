//! Random choices that are the same on every machine for the same seed.

use engine::random::Stream;

/// A source of random choices.
pub(super) struct Dice(Stream);

impl Dice {
    /// The choices number `stream` of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Dice {
        Dice(Stream::new(seed, stream))
    }

    /// A number from 0 to below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// One of `choices`.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.0.uniform() < probability
    }

    /// Any order of `items` (Fisher and Yates).
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
