//! Exports of a real job's state, in every format.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/manual_job.rs"]
mod manual_job;
#[path = "support/tool.rs"]
mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[cfg(feature = "parquet")]
use millpond::arrow_array::Array;
#[cfg(feature = "parquet")]
use millpond::arrow_array::cast::AsArray;
#[cfg(feature = "parquet")]
use millpond::arrow_array::types::{Float64Type, Int64Type, UInt32Type};
use serde_json::Value;
use tool::{beside, millpond, report};

struct Store {
    _dir: tempfile::TempDir,
    path: PathBuf,
    scratch: PathBuf,
}

fn store() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let (path, scratch) = (dir.path().join("store"), dir.path().join("scratch"));
    accounts::lived(&path);
    fs::create_dir(&scratch).unwrap();
    Store { path, scratch, _dir: dir }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// By the text of the key, as `state` shows them.
fn shown(store: &Path) -> BTreeMap<String, Value> {
    let state = report("state", store, &["accounts", "--limit", "1000"]);
    let entries = state["entries"].as_array().unwrap();
    entries.iter().map(|entry| (entry["key"].to_string(), entry["value"].clone())).collect()
}

#[test]
fn lines_of_json_have_every_key_and_value() {
    let store = store();
    let exported = millpond("export", &store.path, &["accounts", "--format", "json"]);
    assert_eq!(exported.code, 0, "{exported:?}");
    let lines = lines(exported.text());
    let found: BTreeMap<String, Value> =
        lines.iter().map(|line| (line["key"].to_string(), line["value"].clone())).collect();
    assert_eq!(found.len(), lines.len());
    assert!(found.len() > 20);
    assert_eq!(found, shown(&store.path));
    assert_eq!(millpond("export", &store.path, &["accounts", "--format", "json"]).out, exported.out);
    let paid = millpond("export", &store.path, &["accumulator paid", "--format", "json"]);
    assert_eq!(
        paid.text(),
        format!("{{\"key\":null,\"value\":{}}}\n", (1..=40).sum::<i64>() + (18..=57).sum::<i64>())
    );
}

#[test]
fn files_are_complete_or_not_there() {
    let store = store();
    let to = store.scratch.join("accounts.json");
    let args = ["accounts", "--format", "json", "--to", to.to_str().unwrap()];
    let made = report("export", &store.path, &args);
    let keys = shown(&store.path).len();
    assert_eq!((&made["exported"], &made["keys"]), (&keys.into(), &keys.into()));
    let direct = millpond("export", &store.path, &["accounts", "--format", "json"]);
    assert_eq!(fs::read(&to).unwrap(), direct.out);
    assert!(millpond("export", &store.path, &args).text().contains("accounts.json"));
    // A key group that is damaged is found before a byte is written, and what is there stays.
    let segment = store.path.join("state/1.segment");
    let sound = fs::read(&segment).unwrap();
    let mut bytes = sound.clone();
    let at = bytes.windows(11).position(|bytes| bytes == b"customer 29").unwrap();
    bytes[at] ^= 1;
    fs::write(&segment, bytes).unwrap();
    for to in [&["--to", to.to_str().unwrap()][..], &[]] {
        let damaged = millpond("export", &store.path, &[&["accounts", "--format", "csv"], to].concat());
        assert_eq!((damaged.code, damaged.out.len(), damaged.err.lines().count()), (1, 0, 1), "{damaged:?}");
    }
    assert_eq!(fs::read(&to).unwrap(), direct.out);
    fs::write(&segment, sound).unwrap();
    let inside = store.path.join("accounts.json");
    let refused =
        millpond("export", &store.path, &["accounts", "--format", "json", "--to", inside.to_str().unwrap()]);
    assert_eq!((refused.code, refused.err.contains("inside of the store")), (2, true), "{refused:?}");
    let dir = beside(
        "export",
        &store.path,
        &["accounts", "--format", "json", "--to", store.scratch.to_str().unwrap()],
    );
    assert_eq!(dir.code, 2, "{dir:?}");
    assert_eq!(fs::read_dir(&store.scratch).unwrap().count(), 1, "nothing is left aside");
}

#[test]
fn tables_have_a_column_for_every_field() {
    let store = store();
    let exported = millpond("export", &store.path, &["accounts", "--format", "csv"]);
    let rows = csv_rows(exported.text());
    let header = [
        "key.0",
        "key.1",
        "value.sum",
        "value.rate",
        "value.note",
        "value.by_day",
        "value.kind",
        "value.raw",
    ];
    assert_eq!(rows[0], header);
    let shown = shown(&store.path);
    assert_eq!(rows.len(), shown.len() + 1);
    for row in &rows[1..] {
        let key = serde_json::json!([row[0], row[1].parse::<u32>().unwrap()]);
        let value = &shown[&key.to_string()];
        assert_eq!(row[2], value["sum"].to_string());
        assert_eq!(row[3], value["rate"].to_string());
        assert_eq!(row[4], value["note"].as_str().unwrap_or(""));
        assert_eq!(serde_json::from_str::<Value>(&row[5]).unwrap(), value["by_day"]);
    }
    assert!(rows.iter().any(|row| row[4].contains('\n')) && rows.iter().any(|row| row[6].contains('"')));
}

/// A reader of RFC 4180 that shares nothing with what wrote it.
fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.push(characters.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {
                assert_eq!(characters.next(), Some('\n'));
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            character => field.push(character),
        }
    }
    assert!(!quoted && row.is_empty() && field.is_empty());
    rows
}

#[test]
fn a_prefix_and_a_checkpoint_are_chosen() {
    let store = store();
    // Text in a tuple is after its length.
    let prefix = "0x0b000000";
    let some =
        millpond("export", &store.path, &["accounts", "--format", "json", "--prefix", prefix, "--at", "1"]);
    let found = lines(some.text());
    assert!(!found.is_empty());
    assert!(found.iter().all(|line| line["key"][0].as_str().unwrap().len() == 11), "{found:?}");
    for args in [
        &["accounts", "--format", "json", "--at", "77"][..],
        &["nothing", "--format", "csv"],
        &["accounts", "--format", "json", "--json"],
    ] {
        let refused = millpond("export", &store.path, args);
        assert_eq!((refused.code, refused.out.len(), refused.err.lines().count()), (2, 0, 1), "{refused:?}");
    }
}

#[test]
fn who_has_read_enough_is_no_error() {
    let store = store();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.arg("export").arg(&store.path).args(["accounts", "--format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_takes_its_feature() {
    let store = store();
    let refused = millpond("export", &store.path, &["accounts", "--format", "parquet"]);
    assert_eq!((refused.code, refused.err.contains("feature `parquet`")), (2, true), "{refused:?}");
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_types() {
    let store = store();
    let exported = millpond("export", &store.path, &["accounts", "--format", "parquet"]);
    assert_eq!(exported.code, 0, "{}", exported.err);
    assert!(exported.out.starts_with(b"PAR1") && exported.out.ends_with(b"PAR1"));
    let file = store.scratch.join("accounts.parquet");
    let args = ["accounts", "--format", "parquet", "--to", file.to_str().unwrap()];
    assert_eq!(millpond("export", &store.path, &args).code, 0);
    assert_eq!(fs::read(&file).unwrap(), exported.out);
    let file = fs::File::open(&file).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let types: Vec<String> =
        reader.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types, ["Utf8", "UInt32", "Int64", "Float64", "Utf8", "Utf8", "Utf8", "Binary"]);
    let shown = shown(&store.path);
    let mut rows = 0;
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let (names, numbers) =
            (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<UInt32Type>());
        let (sums, rates) =
            (batch.column(2).as_primitive::<Int64Type>(), batch.column(3).as_primitive::<Float64Type>());
        let (notes, raw) = (batch.column(4).as_string::<i32>(), batch.column(7).as_binary::<i32>());
        for row in 0..batch.num_rows() {
            let value = &shown[&serde_json::json!([names.value(row), numbers.value(row)]).to_string()];
            assert_eq!((&value["sum"], &value["rate"]), (&sums.value(row).into(), &rates.value(row).into()));
            assert_eq!(value["note"].as_str(), (!notes.is_null(row)).then(|| notes.value(row)));
            assert_eq!(raw.value(row) == [0xff, 0, 1], value["raw"]["hex"] == "ff0001");
        }
        rows += batch.num_rows();
    }
    assert_eq!(rows, shown.len());
}
