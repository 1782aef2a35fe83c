//! How sources share a plan: a pure decision.

use std::collections::VecDeque;

use crate::source::SourceRange;

/// What a range takes in a plan besides its partition's name.
const RANGE_BYTES: usize = 64;

/// What a range takes in a plan.
pub(super) fn bytes_in_plan(range: &SourceRange) -> usize {
    range.partition.len() + RANGE_BYTES
}

/// Takes ranges from each of `offers` in turn, beginning with the one at `first`, until `budget` bytes of a
/// plan are used up. What is taken of an offer is its beginning, in its order; what is left is offered again.
///
/// Nobody is starved: sources that want all have equal shares, and an offer whose first range needs the whole
/// budget gets it when it is the first.
pub(super) fn deal(offers: Vec<Vec<SourceRange>>, first: usize, budget: usize) -> Vec<Vec<SourceRange>> {
    let mut taken: Vec<Vec<SourceRange>> = offers.iter().map(|_| Vec::new()).collect();
    let mut left = budget;
    let mut offers: VecDeque<_> =
        offers.into_iter().map(|offer| offer.into_iter().peekable()).enumerate().collect();
    offers.rotate_left(first.min(offers.len()));
    while let Some((source, mut offer)) = offers.pop_front() {
        let Some(range) = offer.next_if(|range| bytes_in_plan(range) <= left) else { continue };
        left -= bytes_in_plan(&range);
        taken[source].push(range);
        offers.push_back((source, offer));
    }
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(source: usize, names: &[usize]) -> Vec<SourceRange> {
        let range = |(at, length): (usize, &usize)| SourceRange {
            partition: format!("{source}").repeat(*length),
            start: at as u64,
            end: at as u64 + 1,
            size: 0,
            stamp: 0,
        };
        names.iter().enumerate().map(range).collect()
    }

    #[test]
    fn sources_that_want_all_have_equal_shares() {
        let offers = vec![offer(0, &[1; 100]), offer(1, &[1; 100]), offer(2, &[1; 2])];
        let counts = |first| {
            let dealt = deal(offers.clone(), first, 30 * 65);
            dealt.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(counts(0), [14, 14, 2]);
        assert_eq!(counts(1), [14, 14, 2]);
    }

    #[test]
    fn a_range_that_needs_the_whole_budget_has_its_turn() {
        let offers = vec![offer(0, &[1; 3]), offer(1, &[36])];
        let dealt = deal(offers.clone(), 0, 100);
        assert_eq!((dealt[0].len(), dealt[1].len()), (1, 0));
        let dealt = deal(offers, 1, 100);
        assert_eq!((dealt[0].len(), dealt[1].len()), (0, 1));
    }

    proptest! {
        #[test]
        fn what_is_dealt_fits_and_leaves_nothing_that_would_fit(
            names in proptest::collection::vec(proptest::collection::vec(1usize..200, 0..12), 1..5),
            first in 0usize..5,
            budget in 0usize..3_000,
        ) {
            let offers: Vec<_> = names.iter().enumerate().map(|(at, names)| offer(at, names)).collect();
            let dealt = deal(offers.clone(), first % offers.len(), budget);
            let used: usize = dealt.iter().flatten().map(bytes_in_plan).sum();
            prop_assert!(used <= budget);
            for (dealt, offer) in dealt.iter().zip(&offers) {
                prop_assert_eq!(&offer[..dealt.len()], &dealt[..]);
                if let Some(next) = offer.get(dealt.len()) {
                    prop_assert!(bytes_in_plan(next) > budget - used);
                }
            }
        }
    }
}
