//! What makes records leave the job.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::suite::{Input, Order, Row};

pub const ROWS: &[Row] = &[
    Row {
        // Every third batch fails once when it was emitted already, and is emitted again.
        name: "for_each_rdd",
        covers: &["DStream::for_each_rdd"],
        describe: |job| {
            let emitted = job.collector(Order::Exact);
            let failed = AtomicU64::new(0);
            job.left.for_each_rdd(move |rdd, info| {
                emitted.put(info, [(info.batch.0, info.time.0, rdd.collect()?)]);
                if info.batch.0 % 3 == 0 && failed.swap(info.batch.0, Ordering::SeqCst) != info.batch.0 {
                    return Err("the sink has trouble for once".into());
                }
                Ok(())
            });
        },
        oracle: |input, expected| {
            expected.emit(
                input
                    .left
                    .iter()
                    .enumerate()
                    .map(|(index, batch)| [(index as u64 + 1, Input::batch_time(index), batch)]),
            );
        },
    },
    Row {
        name: "save_as_text_files",
        covers: &["DStream::save_as_text_files"],
        describe: |job| {
            let lines = job.left.map(|(key, value)| format!("{key} {value}"));
            lines.save_as_text_files(job.dir.join("out"), "txt");
            let dir = job.dir.clone();
            job.emitted_outside(Order::Exact, move |time_ms| {
                let mut parts: Vec<_> = std::fs::read_dir(dir.join(format!("out-{time_ms}.txt")))
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect();
                parts.sort();
                parts.iter().map(|part| format!("{:?}", std::fs::read_to_string(part).unwrap())).collect()
            });
        },
        oracle: |input, expected| {
            let lines = |part: &[(u16, i64)]| -> String {
                part.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
            };
            expected.emit(input.left_partitions().map(|parts| parts.into_iter().map(lines)));
        },
    },
];
