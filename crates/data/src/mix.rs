//! An epoch of origins with weights: each gives its share.
//!
//! An epoch has as many items as all origins together. Origin `s` gives `c_s` of them: `w_s / sum(w)` of the epoch,
//! rounded so that the counts add up (largest remainder), the same in every epoch. It gives them from an endless row
//! of passes over itself, each pass in a new order with the classes spread, and every epoch goes on where the one
//! before stopped: an origin that gives more than it has repeats itself, and one that gives less comes to its end
//! after some epochs; no item is given twice before all others are given once.
//!
//! Within an epoch the origins of a class are spread evenly over the class, then the classes over the epoch, each as
//! in [`crate::sampler`]: any window holds a class within one of its proportion. There is no state: an epoch is a
//! function of seed and number.

use crate::random;
use crate::sampler::{self, Order};

/// Keeps the draws of this module apart from others with the same seed.
const STREAM: u64 = 0x3a11;

/// How many of `total` items each origin gives.
pub fn counts(weights: &[f64], total: usize) -> Vec<usize> {
    let all: f64 = weights.iter().sum();
    let quotas: Vec<f64> = weights.iter().map(|weight| weight / all * total as f64).collect();
    let mut counts: Vec<usize> = quotas.iter().map(|quota| quota.floor() as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&one, &other| {
        quotas[other].fract().total_cmp(&quotas[one].fract()).then(one.cmp(&other))
    });
    let missing = total.saturating_sub(counts.iter().sum());
    for &origin in order.iter().cycle().take(if order.is_empty() { 0 } else { missing }) {
        counts[origin] += 1;
    }
    counts
}

/// The items of epoch `epoch` in order. Item `i` is of origin `origins[i]` and class `classes[i]`; every origin with
/// a weight has an item.
pub fn epoch(
    origins: &[usize],
    classes: &[bool],
    weights: &[f64],
    seed: u64,
    epoch: u64,
) -> Vec<usize> {
    let mut given: [Vec<Vec<usize>>; 2] = [Vec::new(), Vec::new()];
    for (origin, count) in counts(weights, origins.len()).into_iter().enumerate() {
        let own: Vec<usize> = (0..origins.len()).filter(|&item| origins[item] == origin).collect();
        let stream =
            Passes { own: &own, classes, seed: random::bits(&[STREAM, seed, origin as u64]) };
        let items = stream.items(u128::from(epoch) * count as u128, count);
        for (class, list) in [true, false].into_iter().zip(&mut given) {
            list.push(items.iter().copied().filter(|&item| classes[item] == class).collect());
        }
    }
    let draw = |what: &[u64]| random::unit(&[&[STREAM, seed, epoch], what].concat());
    let classes: Vec<Vec<usize>> = given
        .iter()
        .enumerate()
        .map(|(class, lists)| spread(lists, |origin| draw(&[class as u64, origin as u64])))
        .collect();
    spread(&classes, |class| draw(&[class as u64]))
}

/// Lists in one: the k-th of a list of n has the place (k + u) / n, with one u per list.
fn spread(lists: &[Vec<usize>], offset: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut placed: Vec<(f64, usize, usize)> = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        let (offset, count) = (offset(number), list.len() as f64);
        let place = |(rank, &item): (usize, &usize)| ((rank as f64 + offset) / count, number, item);
        placed.extend(list.iter().enumerate().map(place));
    }
    placed.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
    placed.into_iter().map(|(_, _, item)| item).collect()
}

/// The endless passes over an origin.
struct Passes<'a> {
    own: &'a [usize],
    classes: &'a [bool],
    seed: u64,
}

impl Passes<'_> {
    /// `count` items from the `start`-th on.
    fn items(&self, start: u128, count: usize) -> Vec<usize> {
        let mut items = Vec::with_capacity(count);
        let length = self.own.len() as u128;
        let classes: Vec<bool> = self.own.iter().map(|&item| self.classes[item]).collect();
        let mut position = start;
        while items.len() < count && length > 0 {
            let (pass, skipped) = ((position / length) as u64, (position % length) as usize);
            let order = sampler::epoch(Order::Shuffled, &classes, self.seed, pass);
            let taken = order.into_iter().skip(skipped).take(count - items.len());
            items.extend(taken.map(|place| self.own[place]));
            position = start + items.len() as u128;
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counts_are_shares_and_add_up() {
        assert_eq!(counts(&[0.7, 0.3], 10), [7, 3]);
        assert_eq!(counts(&[1.0, 1.0, 1.0], 10), [4, 3, 3]);
        assert_eq!(counts(&[3.0, 1.0], 7), [5, 2]);
        assert_eq!(counts(&[1.0], 5), [5]);
    }

    proptest! {
        #[test]
        fn every_epoch_has_the_counts_and_windows_hold_the_classes(
            items in proptest::collection::vec((0usize..3, any::<bool>()), 12..120),
            weights in proptest::collection::vec(0.1f64..5.0, 3),
            window in 1usize..20,
            seed: u64,
        ) {
            // Every origin has an item.
            let items: Vec<_> = (0..3).map(|origin| (origin, origin == 1)).chain(items).collect();
            let origins: Vec<usize> = items.iter().map(|item| item.0).collect();
            let classes: Vec<bool> = items.iter().map(|item| item.1).collect();
            let expected = counts(&weights, items.len());
            let mut seen = vec![0usize; items.len()];
            for number in 0..4 {
                let order = epoch(&origins, &classes, &weights, seed, number);
                prop_assert_eq!(&order, &epoch(&origins, &classes, &weights, seed, number));
                for origin in 0..3 {
                    let count = order.iter().filter(|&&item| origins[item] == origin).count();
                    prop_assert_eq!(count, expected[origin]);
                }
                let share = order.iter().filter(|&&item| classes[item]).count() as f64 / order.len() as f64;
                for items in order.windows(window) {
                    let count = items.iter().filter(|&&item| classes[item]).count() as f64;
                    prop_assert!((count - share * window as f64).abs() <= 1.0 + 1e-9);
                }
                order.iter().for_each(|&item| seen[item] += 1);
            }
            // Nothing of an origin is given twice before all of it is given once.
            for origin in 0..3 {
                let times = || (0..items.len()).filter(|&i| origins[i] == origin).map(|i| seen[i]);
                prop_assert!(times().max() <= times().min().map(|least| least + 1));
            }
        }
    }

    #[test]
    fn the_mixture_stays_as_it_is_because_resumed_runs_depend_on_it() {
        let (origins, classes) = ([0, 0, 0, 0, 1, 1], [true, false, true, false, true, false]);
        let draw = |number| epoch(&origins, &classes, &[1.0, 1.0], 42, number);
        expect_test::expect!["[5, 0, 1, 5, 4, 3] [3, 4, 2, 5, 4, 2]"].assert_eq(&format!(
            "{:?} {:?}",
            draw(0),
            draw(1)
        ));
    }
}
