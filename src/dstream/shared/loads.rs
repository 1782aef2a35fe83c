//! The loads of a data set as records of its stream: where one begins, its rows, where it ends.

use std::sync::Arc;

use crate::error::Result;
use crate::id::BatchTime;
use crate::record::{Data, DataBuffer, Key};
use crate::state::{OperatorState, StateType};

/// A record of a load: what it is, a number, a key, a value.
pub(crate) type Piece = (u8, u64, Vec<u8>, Vec<u8>);

/// A load begins; the number is the time of the batch that it is for.
const BEGIN: u8 = 0;
/// A row; the number means nothing.
const ROW: u8 = 1;
/// The load is whole; the number is that of its rows.
const END: u8 = 2;
/// In state: the load that counts, by the time of the batch that it was for.
const LOADED: u8 = 3;

/// Archived rows.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A load as records.
pub(super) fn pieces_of(time: BatchTime, rows: Rows) -> impl Iterator<Item = Piece> {
    let begin = (BEGIN, time.0, Vec::new(), Vec::new());
    let end = (END, rows.len() as u64, Vec::new(), Vec::new());
    let rows = rows.into_iter().map(|(key, value)| (ROW, 0, key, value));
    std::iter::once(begin).chain(rows).chain(std::iter::once(end))
}

/// Which load counts, and what is there of one that is not whole yet: where a batch cannot take all blocks
/// that wait, it may end in the middle of a load. Under 0 there is the load that counts, under 1, 2, ... the
/// records of the unfinished one.
pub(super) struct Versions {
    state: Arc<OperatorState>,
}

impl Versions {
    pub(super) fn new(name: &str) -> Self {
        Versions { state: OperatorState::new(name, StateType::of::<u64, Piece>()) }
    }

    pub(super) fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    /// The time of the batch that the load was for which counts.
    pub(super) fn loaded_for(&self) -> Result<Option<BatchTime>> {
        Ok(self.get(0)?.map(|(_, time, ..)| BatchTime(time)))
    }

    /// Takes the records of a batch. Returns the newest load that is whole with them.
    pub(super) fn advance(&self, pieces: Vec<Piece>) -> Result<Option<(BatchTime, Rows)>> {
        let mut unfinished = Vec::new();
        while let Some(piece) = self.get(unfinished.len() as u64 + 1)? {
            unfinished.push(piece);
        }
        let before = unfinished.len();
        let mut kept = before;
        let mut whole = None;
        for piece in pieces {
            match piece.0 {
                BEGIN => {
                    // What is there of another load was cut off by a crash: it never ends.
                    (kept, unfinished) = (0, vec![piece]);
                }
                END => {
                    let load = std::mem::take(&mut unfinished);
                    kept = 0;
                    whole = finished(load, piece.1).or(whole);
                }
                _ => unfinished.push(piece),
            }
        }
        for at in kept..before.max(unfinished.len()) {
            self.put(at as u64 + 1, unfinished.get(at))?;
        }
        if let Some((time, _)) = &whole {
            self.put(0, Some(&(LOADED, time.0, Vec::new(), Vec::new())))?;
        }
        Ok(whole)
    }

    fn get(&self, at: u64) -> Result<Option<Piece>> {
        let mut key = Vec::new();
        at.encode_key(&mut key);
        let found = self.state.get(&key)?;
        found.map(|bytes| Piece::decode(&bytes, &mut DataBuffer::default())).transpose()
    }

    fn put(&self, at: u64, piece: Option<&Piece>) -> Result<()> {
        let (mut key, mut buffer) = (Vec::new(), DataBuffer::default());
        at.encode_key(&mut key);
        if let Some(piece) = piece {
            piece.encode(&mut buffer)?;
        }
        self.state.put(&key, piece.map(|_| buffer.as_bytes()))
    }
}

/// The load that ends, unless its beginning is not there.
fn finished(load: Vec<Piece>, rows: u64) -> Option<(BatchTime, Rows)> {
    let mut load = load.into_iter();
    let (BEGIN, time, ..) = load.next()? else { return None };
    let found: Rows = load.map(|(_, _, key, value)| (key, value)).collect();
    (found.len() as u64 == rows).then_some((BatchTime(time), found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(version: u64, count: usize) -> Rows {
        (0..count).map(|row| (vec![row as u8], version.to_le_bytes().to_vec())).collect()
    }

    proptest! {
        /// Loads, some cut off by a crash, dealt out to batches in any way: each counts whole or not at all,
        /// and nothing is left of it once the next has begun.
        #[test]
        fn a_load_counts_whole_or_not_at_all(
            loads in prop::collection::vec((0usize..6, any::<bool>()), 0..8),
            cuts in prop::collection::vec(0usize..40, 0..12),
        ) {
            let mut pieces: Vec<(Piece, Option<u64>)> = Vec::new();
            for (version, (count, is_cut)) in (1u64..).zip(&loads) {
                let load: Vec<_> = pieces_of(BatchTime(version), rows(version, *count)).collect();
                let until = if *is_cut { load.len() / 2 } else { load.len() };
                let ends = |at: usize| (!is_cut && at + 1 == until).then_some(version);
                pieces.extend(load.into_iter().take(until).enumerate().map(|(at, piece)| (piece, ends(at))));
            }
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(pieces.len())).collect();
            cuts.push(pieces.len());
            cuts.sort_unstable();
            let versions = Versions::new("versions");
            let (mut from, mut newest) = (0, None);
            for to in cuts {
                let batch = &pieces[from..to];
                let expected = batch.iter().filter_map(|(_, ends)| *ends).max();
                let found = versions.advance(batch.iter().map(|(piece, _)| piece.clone()).collect()).unwrap();
                let count = |version: u64| loads[version as usize - 1].0;
                let load = expected.map(|version| (BatchTime(version), rows(version, count(version))));
                prop_assert_eq!(found, load);
                newest = expected.or(newest);
                prop_assert_eq!(versions.loaded_for().unwrap(), newest.map(BatchTime));
                let unfinished = pieces[..to].iter().rev().take_while(|(piece, _)| piece.0 != END);
                let unfinished = unfinished.collect::<Vec<_>>();
                let kept = unfinished.iter().position(|(piece, _)| piece.0 == BEGIN).map_or(0, |at| at + 1);
                prop_assert_eq!(versions.state().live_keys(), kept as u64 + u64::from(newest.is_some()));
                from = to;
            }
        }
    }
}
