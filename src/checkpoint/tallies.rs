//! What batches added to accumulators, as records of the catalog.
//!
//! A batch that is done is never emitted again, so that what its outputs added cannot be computed again: it is
//! committed right before the batch is.

use crate::format::records::{TalliesRecord, TallyDelta};

/// What the archives of one record take at most; see `RECORD_BYTES_MAX` of the catalog.
const TALLIES_BYTES_MAX: usize = 64 << 10;

/// What a delta takes besides its archive and its name.
const DELTA_BYTES: usize = 40;

/// Lays out what a batch added as records, as many as it takes; none for nothing.
pub(crate) fn records_of(batch: u64, deltas: &[TallyDelta]) -> Vec<TalliesRecord> {
    let mut parts: Vec<Vec<TallyDelta>> = Vec::new();
    let mut left = 0;
    for delta in deltas {
        let mut rest = &delta.archive[..];
        loop {
            let least = delta.name.len() + delta.schema.len() + DELTA_BYTES;
            if parts.is_empty() || left <= least {
                parts.push(Vec::new());
                left = TALLIES_BYTES_MAX;
            }
            let (archive, after) = rest.split_at(rest.len().min(left - least));
            left -= least + archive.len();
            let piece = TallyDelta {
                name: delta.name.clone(),
                schema: delta.schema.clone(),
                archive: archive.to_vec(),
            };
            parts.last_mut().into_iter().for_each(|part| part.push(piece.clone()));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    let count = parts.len() as u32;
    let record = |(part, deltas)| TalliesRecord { batch, part, parts: count, deltas };
    (0..).zip(parts).map(record).collect()
}

/// Puts the records together again, as they come in sequence.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// The parts of the newest attempt to finish a batch.
    parts: Vec<TalliesRecord>,
}

impl Tallies {
    pub(crate) fn add(&mut self, record: TalliesRecord) {
        // The batch before, or an attempt that a crash cut off.
        if record.part == 0 {
            self.parts.clear();
        }
        self.parts.push(record);
    }

    /// What the batch added that is done now, or what is wrong.
    pub(crate) fn of_done(&mut self, batch: u64) -> Result<Vec<TallyDelta>, String> {
        let parts = std::mem::take(&mut self.parts);
        let Some(count) = parts.iter().find(|part| part.batch == batch).map(|part| part.parts) else {
            return Ok(Vec::new());
        };
        let numbered = parts.iter().map(|part| (part.batch, part.part, part.parts));
        if !numbered.eq((0..count).map(|part| (batch, part, count))) {
            return Err(format!("batch {batch}: a part of what it added to accumulators is missing"));
        }
        let mut deltas: Vec<TallyDelta> = Vec::new();
        for delta in parts.into_iter().flat_map(|part| part.deltas) {
            match deltas.last_mut().filter(|last| last.name == delta.name) {
                Some(last) => last.archive.extend(delta.archive),
                None => deltas.push(delta),
            }
        }
        Ok(deltas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::records::Record;
    use crate::store::catalog::RECORD_BYTES_MAX;
    use proptest::prelude::*;

    fn put_together(batch: u64, records: Vec<TalliesRecord>) -> Result<Vec<TallyDelta>, String> {
        let mut tallies = Tallies::default();
        records.into_iter().for_each(|record| tallies.add(record));
        tallies.of_done(batch)
    }

    proptest! {
        #![proptest_config(crate::cases::cases(32))]
        #[test]
        fn tallies_of_any_size_are_cut_and_put_together(sizes in prop::collection::vec(0usize..200_000, 0..6)) {
            let delta = |(at, size): (usize, usize)| TallyDelta {
                name: format!("{at}{}", "n".repeat(200)),
                schema: "u64".to_owned(),
                archive: (0..size).map(|byte| byte as u8).collect(),
            };
            let deltas: Vec<_> = sizes.into_iter().enumerate().map(delta).collect();
            let records = records_of(9, &deltas);
            for record in &records {
                prop_assert!(record.to_frame(1).unwrap().len() < RECORD_BYTES_MAX);
            }
            if records.len() > 1 {
                prop_assert!(put_together(9, records[1..].to_vec()).is_err());
                prop_assert!(put_together(9, records[..records.len() - 1].to_vec()).is_err());
            }
            // An attempt that was cut off before.
            let attempts = records[..records.len() / 2].iter().chain(&records).cloned().collect();
            prop_assert_eq!(put_together(9, attempts).unwrap(), deltas);
        }
    }

    #[test]
    fn tallies_count_for_their_own_batch_only() {
        let deltas = [TallyDelta { name: "a".into(), schema: "u64".into(), archive: vec![1] }];
        let mut tallies = Tallies::default();
        records_of(3, &deltas).into_iter().for_each(|record| tallies.add(record));
        assert_eq!(tallies.of_done(4).unwrap(), []);
    }
}
