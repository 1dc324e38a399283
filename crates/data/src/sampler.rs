//! The order of the examples in an epoch.
//!
//! `sequential` is the order of the files, the same in every epoch (TRL's KTO trainer knows no
//! other). `shuffled` draws a new order for every epoch and spreads the classes evenly over it: each class is
//! shuffled by a hash, the k-th of a class of n takes the place (k + u) / n in the epoch, with one
//! u per class, and all are sorted by place. Any window of the epoch then holds a class within
//! one of its proportion. There is no state: an epoch is a function of seed and number.

use crate::random;

/// The order in which an epoch visits the examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A new order for every epoch, classes spread evenly.
    Shuffled,
    /// The order of the files, in every epoch.
    Sequential,
}

/// Keeps the draws of this module apart from others with the same seed.
const STREAM: u64 = 0x5a3c;

/// The items of epoch `epoch` in order. `classes[item]` is the class of an item.
pub fn epoch(order: Order, classes: &[bool], seed: u64, epoch: u64) -> Vec<usize> {
    match order {
        Order::Sequential => (0..classes.len()).collect(),
        Order::Shuffled => shuffled(classes, seed, epoch),
    }
}

fn shuffled(classes: &[bool], seed: u64, epoch: u64) -> Vec<usize> {
    let mut placed: Vec<(f64, usize)> = Vec::with_capacity(classes.len());
    for class in [true, false] {
        let mut items: Vec<(u64, usize)> = (0..classes.len())
            .filter(|&item| classes[item] == class)
            .map(|item| (random::bits(&[STREAM, seed, epoch, item as u64]), item))
            .collect();
        items.sort_unstable();
        let offset = random::unit(&[STREAM, seed, epoch, u64::MAX, u64::from(class)]);
        let count = items.len() as f64;
        placed.extend(
            items
                .iter()
                .enumerate()
                .map(|(rank, &(_, item))| ((rank as f64 + offset) / count, item)),
        );
    }
    placed.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    placed.into_iter().map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_item_comes_once_and_every_window_is_balanced(
            classes in proptest::collection::vec(any::<bool>(), 1..200),
            window in 1usize..20,
            seed: u64,
            number in 0u64..5,
        ) {
            let order = epoch(Order::Shuffled, &classes, seed, number);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..classes.len()).collect::<Vec<_>>());
            let share = classes.iter().filter(|&&class| class).count() as f64 / classes.len() as f64;
            for items in order.windows(window) {
                let count = items.iter().filter(|&&item| classes[item]).count() as f64;
                prop_assert!((count - share * window as f64).abs() <= 1.0 + 1e-9);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat_exactly() {
        let classes: Vec<bool> = (0..50).map(|item| item % 3 == 0).collect();
        let draw = |seed, number| epoch(Order::Shuffled, &classes, seed, number);
        assert_eq!(draw(1, 3), draw(1, 3));
        assert_ne!(draw(1, 3), draw(1, 4));
        assert_ne!(draw(1, 3), draw(2, 3));
        assert_eq!(epoch(Order::Sequential, &classes, 1, 3), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_shuffle_stays_as_it_is_because_resumed_runs_depend_on_it() {
        let classes = [true, false, true, false, false, true, false, false];
        expect_test::expect!["[2, 6, 1, 5, 7, 0, 3, 4]"]
            .assert_eq(&format!("{:?}", epoch(Order::Shuffled, &classes, 42, 0)));
    }
}
