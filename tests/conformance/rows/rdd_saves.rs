//! RDDs in files; each batch replaces what the one before left.

use std::path::Path;

use crate::suite::{Order, Pair, Row};

/// The content of the part files, in order.
fn parts(dir: &Path) -> Vec<String> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[cfg(feature = "parquet")]
fn save_and_read_parquet(rdd: &millpond::Rdd<Pair>, dir: &Path) -> millpond::Result<Vec<Vec<Pair>>> {
    use std::sync::Arc;

    use millpond::arrow_array::cast::AsArray;
    use millpond::arrow_array::types::{Int64Type, UInt16Type};
    use millpond::arrow_array::{Int64Array, RecordBatch, UInt16Array};
    use millpond::arrow_schema::{DataType, Field, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let fields = [("key", DataType::UInt16), ("value", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()));
    rdd.save_as_parquet(dir, schema.clone(), |records| {
        let keys = UInt16Array::from_iter_values(records.iter().map(|(key, _)| *key));
        let values = Int64Array::from_iter_values(records.iter().map(|(_, value)| *value));
        Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(keys), Arc::new(values)])?)
    })?;
    let read = |number: usize| {
        let file = std::fs::File::open(dir.join(format!("part-{number:05}.parquet"))).unwrap();
        let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let mut records = Vec::new();
        for batch in batches.map(Result::unwrap) {
            let keys = batch.column(0).as_primitive::<UInt16Type>().values().iter().copied();
            records.extend(keys.zip(batch.column(1).as_primitive::<Int64Type>().values().iter().copied()));
        }
        records
    };
    Ok((0..rdd.partitions()).map(read).collect())
}

pub const ROWS: &[Row] = &[
    Row {
        name: "rdd, saved as text",
        covers: &["Rdd::save_as_text_file"],
        describe: |job| {
            let dir = job.dir.join("text");
            job.act(&job.left, Order::Exact, move |rdd| {
                rdd.map(|(key, value)| format!("{key} {value}")).save_as_text_file(&dir)?;
                Ok(parts(&dir))
            });
        },
        oracle: |input, expected| {
            let lines = |part: &[Pair]| -> String {
                part.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
            };
            expected.emit(input.left_partitions().map(|parts| parts.into_iter().map(lines)));
        },
    },
    Row {
        name: "rdd, saved as objects",
        covers: &["Rdd::save_as_object_file"],
        describe: |job| {
            let dir = job.dir.join("objects");
            job.act(&job.left, Order::Exact, move |rdd| {
                rdd.save_as_object_file(&dir)?;
                millpond::read_object_file::<Pair>(&dir)?.collect()
            });
        },
        oracle: |input, expected| expected.emit(input.left_partitions()),
    },
    #[cfg(feature = "json")]
    Row {
        name: "rdd, saved as JSON",
        covers: &["Rdd::save_as_json_lines"],
        describe: |job| {
            let dir = job.dir.join("json");
            job.act(&job.left, Order::Exact, move |rdd| {
                rdd.save_as_json_lines(&dir)?;
                Ok(parts(&dir))
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
        name: "rdd, saved as Parquet",
        covers: &["Rdd::save_as_parquet"],
        describe: |job| {
            let dir = job.dir.join("parquet");
            job.act(&job.left, Order::Exact, move |rdd| save_and_read_parquet(rdd, &dir));
        },
        oracle: |input, expected| expected.emit(input.left_partitions()),
    },
];
