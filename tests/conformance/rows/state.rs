//! What is kept from batch to batch.

use std::collections::BTreeMap;

use millpond::{StateSpec, Visit};

use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Row};

pub const ROWS: &[Row] = &[
    Row {
        // A list of a key's values shows their order; a key whose sum is a multiple of three is
        // removed and may come back.
        name: "update_state_by_key, touched keys",
        covers: &["DStream::update_state_by_key"],
        describe: |job| {
            let kept = job.left.update_state_by_key("touched", |new: &[i64], list: Option<Vec<i64>>| {
                let list = [list.unwrap_or_default(), new.to_vec()].concat();
                (list.iter().sum::<i64>() % 3 != 0).then_some(list)
            });
            job.emit(&kept, BY_HASH);
            job.keeps::<u16, Vec<i64>>("touched");
        },
        oracle: |input, expected| {
            let mut state = BTreeMap::<u16, Vec<i64>>::new();
            let mut batches = Vec::new();
            for batch in &input.left {
                let mut emitted = Vec::new();
                for (key, new) in grouped(batch) {
                    let list = [state.remove(&key).unwrap_or_default(), new].concat();
                    if list.iter().sum::<i64>() % 3 != 0 {
                        emitted.push((key, list.clone()));
                        state.insert(key, list);
                    }
                }
                batches.push(emitted);
            }
            expected.emit(batches);
            expected.state("touched", state);
        },
    },
    Row {
        // A key is let go in the third batch without new values.
        name: "update_state_by_key, all keys",
        covers: &["DStream::update_state_by_key"],
        describe: |job| {
            let spec = StateSpec::named("all").visit(Visit::All);
            let kept = job.left.update_state_by_key(spec, |new: &[i64], state: Option<(u32, i64)>| {
                let (idle, sum) = state.unwrap_or_default();
                let idle = if new.is_empty() { idle + 1 } else { 0 };
                (idle < 3).then(|| (idle, sum + new.iter().sum::<i64>()))
            });
            job.emit(&kept, BY_HASH);
            job.keeps::<u16, (u32, i64)>("all");
        },
        oracle: |input, expected| {
            let mut state = BTreeMap::<u16, (u32, i64)>::new();
            let mut batches = Vec::new();
            for batch in &input.left {
                state.values_mut().for_each(|(idle, _)| *idle += 1);
                for (key, new) in grouped(batch) {
                    let (idle, sum) = state.entry(key).or_default();
                    (*idle, *sum) = (0, *sum + new.iter().sum::<i64>());
                }
                state.retain(|_, (idle, _)| *idle < 3);
                batches.push(state.clone());
            }
            expected.emit(batches);
            expected.state("all", state);
        },
    },
    Row {
        // State that is fed by state, without a shuffle between them.
        name: "update_state_by_key, chained",
        covers: &["DStream::update_state_by_key"],
        describe: |job| {
            let sums =
                job.left.reduce_by_key(|a, b| a + b).update_state_by_key("sums", |new, sum: Option<i64>| {
                    Some(sum.unwrap_or(0) + new.iter().sum::<i64>())
                });
            let peaks = sums
                .update_state_by_key("peaks", |new, peak: Option<i64>| new.iter().copied().chain(peak).max());
            job.emit(&peaks, BY_HASH);
            job.keeps::<u16, i64>("sums");
            job.keeps::<u16, i64>("peaks");
        },
        oracle: |input, expected| {
            let (mut sums, mut peaks) = (BTreeMap::<u16, i64>::new(), BTreeMap::<u16, i64>::new());
            let mut batches = Vec::new();
            for batch in &input.left {
                let mut emitted = Vec::new();
                for (key, new) in grouped(batch) {
                    let sum = sums.entry(key).or_default();
                    *sum += new.iter().sum::<i64>();
                    let peak = peaks.entry(key).or_insert(*sum);
                    *peak = *sum.max(peak);
                    emitted.push((key, *peak));
                }
                batches.push(emitted);
            }
            expected.emit(batches);
            expected.state("sums", sums);
            expected.state("peaks", peaks);
        },
    },
];
