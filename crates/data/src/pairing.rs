//! Partners for the KL term: whose completion is scored after an example's prompt.
//!
//! The partners of a KL group are a permutation of it, so the mismatched completions are the
//! same set as the rated ones (arXiv 2402.01306, section 4; TRL's rotation by one).

use crate::random;
use crate::sampler::Order;

/// Keeps the draws of this module apart from others with the same seed.
const STREAM: u64 = 0x9a17;

/// For each member of a group, the member whose completion follows its prompt.
///
/// `families[member]` names the member's prompt. In sequential order the group is rotated by one
/// as TRL does: the first gets the last one's completion. In shuffled order the members are drawn
/// family by family and rotated by the size of the largest family, which gives nobody a
/// completion that answers its own prompt, if there is a way: a family of more than half the
/// group cannot avoid itself, and then as few members as possible keep such a partner. A group
/// of one is its own partner.
pub fn partners(order: Order, families: &[usize], seed: u64, epoch: u64, group: u64) -> Vec<usize> {
    let count = families.len();
    if order == Order::Sequential {
        return (0..count).map(|member| (member + count - 1) % count).collect();
    }
    let draw =
        |what: u64, item: usize| random::bits(&[STREAM, seed, epoch, group, what, item as u64]);
    let mut drawn: Vec<usize> = (0..count).collect();
    drawn.sort_unstable_by_key(|&member| {
        let family = families[member];
        (draw(0, family), family, draw(1, member), member)
    });
    let largest = drawn
        .chunk_by(|&one, &other| families[one] == families[other])
        .map(<[usize]>::len)
        .max()
        .unwrap_or(0);
    let mut partners = vec![0; count];
    for (place, &member) in drawn.iter().enumerate() {
        partners[member] = drawn[(place + largest) % count];
    }
    partners
}

/// How many members have a partner with the same prompt, whose "mismatched" completion in fact
/// answers it.
pub fn matched(partners: &[usize], families: &[usize]) -> usize {
    (0..partners.len()).filter(|&member| families[member] == families[partners[member]]).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequential_groups_rotate_by_one() {
        assert_eq!(partners(Order::Sequential, &[0, 1, 2, 3], 1, 0, 0), [3, 0, 1, 2]);
        assert_eq!(partners(Order::Sequential, &[0], 1, 0, 0), [0]);
        assert_eq!(partners(Order::Shuffled, &[0], 1, 0, 0), [0]);
    }

    proptest! {
        #[test]
        fn shuffled_partners_are_a_permutation_with_as_few_matches_as_can_be(
            families in proptest::collection::vec(0usize..6, 1..24),
            seed: u64,
        ) {
            let partners = partners(Order::Shuffled, &families, seed, 2, 3);
            let mut sorted = partners.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..families.len()).collect::<Vec<_>>());
            let size = |family| families.iter().filter(|&&other| other == family).count();
            let largest = families.iter().map(|&family| size(family)).max().unwrap_or(0);
            let least = (2 * largest).saturating_sub(families.len());
            prop_assert_eq!(matched(&partners, &families), least);
        }
    }
}
