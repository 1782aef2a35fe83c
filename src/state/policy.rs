//! Which key groups a checkpoint rewrites whole: a pure decision over sizes.
//!
//! Deltas pile up until a base replaces them. Bases are rewritten piecewise: each checkpoint takes on a few
//! groups, those with the most to gain first, within a budget that follows the size of its deltas, so that
//! no checkpoint pays for the whole state.

/// A group is worth rewriting when its chain holds this many times its live bytes.
const WASTE_FACTOR: u64 = 2;

/// ... or when it is this many parts long, each a lookup after a restart.
const CHAIN_PARTS_MAX: usize = 32;

/// A small group is worth rewriting when its chain begins this many segments back: a segment stays as long as any group
/// needs a part of it, be it only the word that the group is empty.
const AGE_MAX: u64 = 8;

/// What counts as small: all groups of an operator together then take 1 MiB in as many checkpoints.
const SMALL_BYTES: u64 = 4 << 10;

/// So many segments a checkpoint refers to, and a few more for as long as groups that need the oldest are rewritten. Each
/// is a file, and takes room in the checkpoint's record, which has a limit. Without this one, a state that few keys of
/// are changed between checkpoints would come to as many as its groups have parts.
pub(crate) const SEGMENTS_MAX: usize = 2_048;

/// Bases may always take this much of a checkpoint, so that small state stays compact.
const BASE_BYTES_MIN: u64 = 1 << 20;

/// The size of one key group as a checkpoint finds it, its delta included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupSize {
    pub(crate) chain_parts: usize,
    pub(crate) chain_bytes: u64,
    pub(crate) live_bytes: u64,
    /// How many segments back its chain begins.
    pub(crate) age: u64,
    /// Its chain begins in a segment that is one too many.
    pub(crate) is_pressed: bool,
}

impl GroupSize {
    fn is_wasteful(&self) -> bool {
        let is_long = self.chain_parts > CHAIN_PARTS_MAX;
        self.chain_parts > 1 && (is_long || self.chain_bytes > WASTE_FACTOR * self.live_bytes)
    }

    fn keeps_a_segment(&self) -> bool {
        self.chain_parts > 0 && self.age > AGE_MAX && self.live_bytes <= SMALL_BYTES
    }
}

/// The oldest segment that may stay when `needed`, ascending, are those that a checkpoint refers to: at most `most`.
pub(crate) fn oldest_to_keep(needed: &[u64], most: usize) -> u64 {
    needed.len().checked_sub(most).and_then(|beyond| needed.get(beyond)).copied().unwrap_or(0)
}

/// Which of `groups` to rewrite as bases when their deltas take `delta_bytes`.
pub(crate) fn groups_to_rewrite(groups: &[GroupSize], delta_bytes: u64) -> Vec<usize> {
    let mut worth: Vec<usize> = (0..groups.len())
        .filter(|&group| {
            let size = groups[group];
            size.is_pressed || size.is_wasteful() || size.keeps_a_segment()
        })
        .collect();
    worth.sort_by_key(|&group| {
        let size = groups[group];
        let gain = size.chain_bytes.saturating_sub(size.live_bytes);
        (std::cmp::Reverse((size.is_pressed, gain)), group)
    });
    let mut budget = BASE_BYTES_MIN.max(delta_bytes / 2);
    let worst = worth.first().copied();
    worth.retain(|&group| {
        // The worst one goes whatever its size: one that is over every budget would never be rewritten.
        let fits = Some(group) == worst || groups[group].live_bytes <= budget;
        if fits {
            budget = budget.saturating_sub(groups[group].live_bytes);
        }
        fits
    });
    worth
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(chain_parts: usize, chain_bytes: u64, live_bytes: u64) -> GroupSize {
        GroupSize { chain_parts, chain_bytes, live_bytes, age: 1, is_pressed: false }
    }

    #[test]
    fn as_many_segments_stay_as_may() {
        assert_eq!(oldest_to_keep(&[3, 5, 9], 3), 3);
        assert_eq!(oldest_to_keep(&[3, 5, 9], 2), 5);
        assert_eq!((oldest_to_keep(&[3, 5, 9], 4), oldest_to_keep(&[], 0)), (0, 0));
    }

    #[test]
    fn only_wasteful_or_long_chains_are_rewritten() {
        let groups =
            [size(1, 900, 100), size(3, 150, 100), size(3, 250, 100), size(40, 110, 100), size(0, 0, 0)];
        assert_eq!(groups_to_rewrite(&groups, 0), [2, 3]);
    }

    #[test]
    fn the_budget_follows_the_deltas_and_the_worst_go_first() {
        let groups = [size(2, 3 << 20, 1 << 20), size(2, 9 << 20, 1 << 20), size(2, 5 << 20, 1 << 20)];
        assert_eq!(groups_to_rewrite(&groups, 0), [1]);
        assert_eq!(groups_to_rewrite(&groups, 4 << 20), [1, 2]);
        assert_eq!(groups_to_rewrite(&groups, 100 << 20), [1, 2, 0]);
    }

    #[test]
    fn a_group_that_is_over_every_budget_is_rewritten_when_it_is_the_worst() {
        let groups = [size(9, 90 << 20, 10 << 20), size(40, 70 << 20, 10 << 20), size(3, 900, 100)];
        assert_eq!(groups_to_rewrite(&groups, 1 << 20), [0]);
    }

    #[test]
    fn a_small_group_does_not_keep_an_old_segment() {
        let aged = |size: GroupSize, age| GroupSize { age, ..size };
        let (empty, small, large) = (size(1, 40, 0), size(1, 4_000, 4_000), size(1, 5_000, 5_000));
        let groups =
            [aged(empty, 8), aged(empty, 9), aged(small, 9), aged(large, 90), aged(size(0, 0, 0), 9)];
        assert_eq!(groups_to_rewrite(&groups, 0), [1, 2]);
    }
}
