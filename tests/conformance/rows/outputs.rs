//! What makes records leave the job.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::suite::{Input, Order, Pair, Row};

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
                parts_of(&dir.join(format!("out-{time_ms}.txt")))
            });
        },
        oracle: |input, expected| {
            let lines = |part: &[(u16, i64)]| -> String {
                part.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
            };
            expected.emit(input.left_partitions().map(|parts| parts.into_iter().map(lines)));
        },
    },
    Row {
        name: "save_as_object_files",
        covers: &["DStream::save_as_object_files"],
        describe: |job| {
            job.left.save_as_object_files(job.dir.join("pairs"), "");
            let dir = job.dir.clone();
            job.emitted_outside(Order::Exact, move |time_ms| {
                let records =
                    millpond::read_object_file::<Pair>(dir.join(format!("pairs-{time_ms}"))).unwrap();
                records.flat_map(Result::unwrap).map(|record| format!("{record:?}")).collect()
            });
        },
        oracle: |input, expected| expected.emit(&input.left),
    },
    #[cfg(feature = "json")]
    Row {
        name: "save_as_json_lines",
        covers: &["DStream::save_as_json_lines"],
        describe: |job| {
            job.left.save_as_json_lines(job.dir.join("lines"), "json");
            let dir = job.dir.clone();
            job.emitted_outside(Order::Exact, move |time_ms| {
                parts_of(&dir.join(format!("lines-{time_ms}.json")))
            });
        },
        oracle: |input, expected| {
            let lines = |part: &[Pair]| -> String {
                part.iter().map(|(key, value)| format!("[{key},{value}]\n")).collect()
            };
            expected.emit(input.left_partitions().map(|parts| parts.into_iter().map(lines)));
        },
    },
    #[cfg(feature = "parquet")]
    Row {
        name: "save_as_parquet",
        covers: &["DStream::save_as_parquet"],
        describe: |job| {
            let values = job.left.map(|(_, value)| value);
            values.save_as_parquet(job.dir.join("values"), "", parquet_file::schema(), parquet_file::columns);
            let dir = job.dir.clone();
            job.emitted_outside(Order::Exact, move |time_ms| {
                parquet_file::values_in(&dir.join(format!("values-{time_ms}")))
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| batch.iter().map(|(_, value)| value)));
        },
    },
];

/// The files of a directory in order, as text.
fn parts_of(dir: &Path) -> Vec<String> {
    let text = |part: PathBuf| format!("{:?}", std::fs::read_to_string(part).unwrap());
    files_of(dir).into_iter().map(text).collect()
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[cfg(feature = "parquet")]
mod parquet_file {
    use std::path::Path;
    use std::sync::Arc;

    use millpond::OutputError;
    use millpond::arrow_array::cast::AsArray;
    use millpond::arrow_array::types::Int64Type;
    use millpond::arrow_array::{Int64Array, RecordBatch};
    use millpond::arrow_schema::{DataType, Field, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    pub fn schema() -> Arc<Schema> {
        Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]))
    }

    pub fn columns(values: &[i64]) -> Result<RecordBatch, OutputError> {
        let values = Int64Array::from_iter_values(values.iter().copied());
        Ok(RecordBatch::try_new(schema(), vec![Arc::new(values)])?)
    }

    pub fn values_in(dir: &Path) -> Vec<String> {
        let mut values = Vec::new();
        for file in super::files_of(dir) {
            let file = std::fs::File::open(file).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                values
                    .extend(batch.column(0).as_primitive::<Int64Type>().values().iter().map(i64::to_string));
            }
        }
        values
    }
}
