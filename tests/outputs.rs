//! Outputs: each batch is there once and whole, whatever step the job crashes at; what is not ours is left alone; and
//! damaged object files are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use millpond::doc::run_batch;
use millpond::testkit::FaultPlan;
use millpond::{
    BatchInfo, Begin, DStream, ErrorKind, FnSink, ManualClock, OutputError, Sink, SinkId, SinkStart,
    read_object_file,
};
use support::INTERVAL_MS;
use support::through::{builder, run_to, some_chunks, start, through, tree};

// -- directories of files --

fn describe_files(out: &Path, pairs: &DStream<(u16, i64)>) {
    let sums = pairs.reduce_by_key(|a, b| a + b);
    sums.map(|(key, sum)| format!("{key} {sum}")).save_as_text_files(out.join("deep/er/text"), "txt");
    sums.save_as_object_files(out.join("objects"), "");
    #[cfg(feature = "json")]
    sums.save_as_json_lines(out.join("json/lines"), "d");
    #[cfg(feature = "parquet")]
    save_parquet(&sums, &out.join("parquet"));
}

#[cfg(feature = "parquet")]
fn save_parquet(sums: &DStream<(u16, i64)>, prefix: &Path) {
    use millpond::arrow_array::{Int64Array, RecordBatch, UInt16Array};
    use millpond::arrow_schema::{DataType, Field, Schema};
    let fields = [("key", DataType::UInt16), ("sum", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()));
    let of = schema.clone();
    sums.save_as_parquet(prefix, "", schema, move |sums| {
        let keys = UInt16Array::from_iter_values(sums.iter().map(|(key, _)| *key));
        let sums = Int64Array::from_iter_values(sums.iter().map(|(_, sum)| *sum));
        Ok(RecordBatch::try_new(of.clone(), vec![Arc::new(keys), Arc::new(sums)])?)
    });
}

/// What the job above writes, with the plans of its starts.
fn files_after(batches: u16, plans: &[Arc<FaultPlan>]) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    through(dir.path(), &some_chunks(batches), plans, &|pairs| describe_files(&out, pairs));
    tree(&out)
}

fn sums_of(batch: u16) -> BTreeMap<u16, i64> {
    let mut sums = BTreeMap::new();
    for (key, value) in &some_chunks(batch)[usize::from(batch) - 1] {
        *sums.entry(*key).or_default() += value;
    }
    sums
}

#[test]
fn every_batch_has_its_files_with_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    through(dir.path(), &some_chunks(4), &[], &|pairs| describe_files(&out, pairs));
    for batch in 1..=4u16 {
        let (time, expected) = (u64::from(batch) * INTERVAL_MS, sums_of(batch));
        let text = tree(&out.join(format!("deep/er/text-{time}.txt")));
        assert_eq!(text.keys().collect::<Vec<_>>(), ["part-00000", "part-00001"]);
        let lines: BTreeMap<u16, i64> = text
            .values()
            .flat_map(|bytes| std::str::from_utf8(bytes).unwrap().lines())
            .map(|line| line.split_once(' ').unwrap())
            .map(|(key, sum)| (key.parse().unwrap(), sum.parse().unwrap()))
            .collect();
        assert_eq!(lines, expected);
        let objects = read_object_file::<(u16, i64)>(out.join(format!("objects-{time}"))).unwrap();
        let objects: Vec<Vec<(u16, i64)>> = objects.collect::<Result<_, _>>().unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects.into_iter().flatten().collect::<BTreeMap<_, _>>(), expected);
        #[cfg(feature = "json")]
        {
            let json = tree(&out.join(format!("json/lines-{time}.d")));
            assert_eq!(json.keys().collect::<Vec<_>>(), ["part-00000.jsonl", "part-00001.jsonl"]);
            let rows = json.values().flat_map(|bytes| bytes.split(|byte| *byte == b'\n'));
            let rows = rows.filter(|line| !line.is_empty());
            let rows: BTreeMap<u16, i64> = rows.map(|line| serde_json::from_slice(line).unwrap()).collect();
            assert_eq!(rows, expected);
        }
        #[cfg(feature = "parquet")]
        assert_eq!(read_parquet(&out.join(format!("parquet-{time}"))), expected);
    }
}

#[cfg(feature = "parquet")]
fn read_parquet(dir: &Path) -> BTreeMap<u16, i64> {
    use millpond::arrow_array::cast::AsArray;
    use millpond::arrow_array::types::{Int64Type, UInt16Type};
    let mut rows = BTreeMap::new();
    for name in ["part-00000.parquet", "part-00001.parquet"] {
        let file = fs::File::open(dir.join(name)).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
        for batch in reader.unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let keys = batch.column(0).as_primitive::<UInt16Type>().values().iter().copied();
            rows.extend(keys.zip(batch.column(1).as_primitive::<Int64Type>().values().iter().copied()));
        }
    }
    rows
}

#[test]
fn a_crash_at_every_step_leaves_each_batch_once_and_whole() {
    let never = FaultPlan::never();
    let expected = files_after(3, std::slice::from_ref(&never));
    let steps = never.steps();
    assert!(steps > 150, "only {steps} steps: the files are not among them");
    for step in 1..=steps {
        let found = files_after(3, &[FaultPlan::crash_at(step)]);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "step {step}");
        assert!(found == expected, "other files after a crash at step {step} of {steps}");
    }
}

/// A crash, then one at each of the steps of the start after it, which emits the batch again.
#[test]
fn a_crash_while_a_batch_is_emitted_again_changes_nothing() {
    let never = FaultPlan::never();
    let expected = files_after(2, std::slice::from_ref(&never));
    for second in (1..never.steps() / 2).step_by(3) {
        let plans = [never.steps() / 2, second, second + 7].map(FaultPlan::crash_at);
        assert!(files_after(2, &plans) == expected, "other files after a second crash at step {second}");
    }
}

#[test]
fn a_full_disk_is_waited_out_by_the_files_too() {
    let never = FaultPlan::never();
    let expected = files_after(3, std::slice::from_ref(&never));
    for first in (40..never.steps() - 4).step_by(11) {
        let found = files_after(3, &[FaultPlan::full_during(first..first + 40)]);
        assert!(found == expected, "other files when the disk is full from step {first}");
    }
}

fn save(path: &Path) -> millpond::Result<()> {
    let mut saved = Ok(());
    run_batch(["a", "b"], |lines| {
        saved = lines.save_as_text_file(path);
        Ok(())
    });
    saved
}

#[test]
fn a_save_replaces_what_a_save_wrote_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not/there/yet");
    save(&path).unwrap();
    fs::write(path.join("part-00007"), "of an earlier, larger save").unwrap();
    save(&path).unwrap();
    assert_eq!(
        tree(dir.path()),
        BTreeMap::from([("not/there/yet/part-00000".to_owned(), b"a\nb\n".to_vec())])
    );

    for (name, theirs) in [("thesis", "thesis/thesis.tex"), ("notes", "notes")] {
        let theirs = dir.path().join(theirs);
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "precious").unwrap();
        let error = save(&dir.path().join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "precious");
    }
    assert_eq!(save(Path::new("..")).unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
fn a_path_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    // Nobody may make directories there, whoever runs this.
    for above in [Path::new("/proc/self"), &dir.path().join("file")] {
        let error = save(&above.join("out")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        assert!(error.to_string().contains(&*above.join("").to_string_lossy()), "{error}");
    }
    let clock = ManualClock::at(0);
    let job = start(builder(dir.path(), &clock).task_attempts_max(2), &some_chunks(1), &|pairs| {
        pairs.map(|(key, _)| key).save_as_text_files("/proc/self/out", "");
    });
    let job = job.unwrap();
    assert!(!run_to(&job, &clock, 1));
    let error = job.await_termination().unwrap_err();
    assert!(error.to_string().contains("/proc/self/"), "{error}");
    assert!(error.to_string().contains("batch 1: output `"), "{error}");
}

/// The one test that looks at the directory the process is in.
#[test]
fn a_prefix_without_a_directory_means_the_one_the_process_is_in() {
    let dir = tempfile::tempdir().unwrap();
    std::env::set_current_dir(dir.path()).unwrap();
    through(dir.path(), &some_chunks(1), &[], &|pairs| {
        pairs.map(|(key, _)| key).repartition(1).save_as_text_files("keys", "");
    });
    assert!(dir.path().join("keys-1000/part-00000").is_file());
}

#[test]
fn two_outputs_of_one_name_or_place_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |describe: &dyn Fn(&DStream<u16>)| {
        let job = start(builder(dir.path(), &ManualClock::at(0)), &some_chunks(1), &|pairs| {
            describe(&pairs.map(|(key, _)| key));
        });
        let error = job.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidGraph);
        error.to_string()
    };
    let sink = || FnSink::new(|_, _: Vec<u16>| Ok(()));
    let twice = refused(&|keys| {
        keys.write_to("keys", sink());
        keys.write_to("keys", sink());
    });
    assert!(twice.contains("two outputs are called `keys`"), "{twice}");
    let place = refused(&|keys| {
        keys.save_as_text_files("out/keys", "txt");
        keys.save_as_object_files("out/keys", "txt");
    });
    assert!(place.contains("two outputs save to `out/keys-TIME.txt`"), "{place}");
    assert!(refused(&|keys| keys.save_as_text_files("keys", "../x")).contains("must not have a `/`"));
    assert!(refused(&|keys| keys.write_to("", sink())).contains("1 to 255 bytes"));
    assert!(!dir.path().join("store").exists(), "nothing was opened");
}

// -- object files --

/// Three partitions with more than one frame of records in all.
fn save_objects(path: &Path, last: &str) {
    let last = last.to_owned();
    run_batch(["a", "b", "c", "d"], |lines| {
        let pairs = lines.map(|line| (line.to_string(), 7u64)).repartition(3);
        pairs.map(move |(word, n)| (word + &last, n)).save_as_object_file(path)
    });
}

fn read_objects(path: &Path) -> millpond::Result<Vec<(String, u64)>> {
    let partitions: Vec<Vec<_>> = read_object_file::<(String, u64)>(path)?.collect::<Result<_, _>>()?;
    Ok(partitions.into_iter().flatten().collect())
}

#[test]
fn damaged_object_files_are_refused_whatever_bit_or_byte_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects");
    save_objects(&path, " a word that is not kept inline");
    let sound = read_objects(&path).unwrap();
    assert_eq!(sound.len(), 4);
    let refused = |what: &str| {
        let error = read_objects(&path).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible), "{what}: {error:?}");
        error.to_string()
    };
    for name in tree(&path).keys() {
        let file = path.join(name);
        let good = fs::read(&file).unwrap();
        for length in 0..good.len() {
            fs::write(&file, &good[..length]).unwrap();
            assert!(refused(&format!("{length} bytes left")).contains(name));
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, bad).unwrap();
            assert!(refused(&format!("bit {bit} flipped")).contains(name));
        }
        fs::write(&file, [&good[..], b"x"].concat()).unwrap();
        refused("a byte more");
        fs::remove_file(&file).unwrap();
        assert!(matches!(read_objects(&path).unwrap_err().kind(), ErrorKind::Corrupt | ErrorKind::Io));
        fs::write(&file, good).unwrap();
    }
    let (one, two) = (path.join("part-00001.object"), path.join("part-00002.object"));
    let (first, second) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    fs::write(&one, second).unwrap();
    fs::write(&two, first).unwrap();
    assert!(refused("swapped files").contains("partition 2"));
    save_objects(&path, "");
    assert_eq!(read_objects(&path).unwrap().len(), 4);
}

#[test]
fn an_object_file_is_read_as_what_it_was_written_as() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects");
    save_objects(&path, "");
    let error = read_object_file::<(String, i64)>(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("(String, u64)"), "{error}");
    assert_eq!(read_object_file::<u64>(dir.path().join("none")).unwrap_err().kind(), ErrorKind::Io);
    // More records than a frame holds come back in their order.
    let many = dir.path().join("many");
    run_batch(["x"], |lines| {
        lines.flat_map(|_, out| (0..200_000u64).for_each(|n| out.emit(n))).save_as_object_file(&many)
    });
    let read: Vec<_> = read_object_file::<u64>(&many).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(read, [(0..200_000).collect::<Vec<u64>>()]);
}

// -- sinks --

type RowsByKey = BTreeMap<String, Vec<(u16, i64)>>;

/// What a sink was asked to do, and rows by key; it may fail on request.
#[derive(Clone, Default)]
struct Recording {
    calls: Arc<Mutex<Vec<String>>>,
    rows: Arc<Mutex<RowsByKey>>,
    failures: Arc<AtomicU64>,
}

impl Recording {
    fn call(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    /// Whether a failure is left.
    fn fails(&self) -> bool {
        self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

impl Sink<(u16, i64)> for Recording {
    type Staged = (String, Vec<(u16, i64)>);

    fn open(&self, start: &SinkStart) -> Result<(), OutputError> {
        assert_eq!((start.store.len(), start.lost.is_empty()), (32, true));
        self.call(format!("open {} {} after {}", start.job, start.output, start.last_batch.0));
        Ok(())
    }

    fn begin(&self, batch: &BatchInfo) -> Result<Begin, OutputError> {
        self.call(format!("begin {}", batch.batch.0));
        Ok(if batch.batch.0 == 2 { Begin::Skip } else { Begin::Write })
    }

    fn write(&self, id: &SinkId, records: Vec<(u16, i64)>) -> Result<Self::Staged, OutputError> {
        assert!(id.partition > 0 || !self.fails(), "asked to panic");
        self.call(format!("write {}", id.idempotency_key()));
        Ok((id.idempotency_key(), records))
    }

    fn commit(&self, batch: &BatchInfo, staged: Vec<Self::Staged>) -> Result<(), OutputError> {
        self.call(format!("commit {} of {}", batch.batch.0, staged.len()));
        self.rows.lock().unwrap().extend(staged);
        if batch.batch.0 == 3 && self.fails() { Err("asked to fail".into()) } else { Ok(()) }
    }
}

#[test]
fn a_sink_is_opened_then_given_each_batch_until_it_commits() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Recording::default();
    sink.failures.store(2, Ordering::SeqCst);
    let describe = |pairs: &DStream<(u16, i64)>| pairs.write_to("rows", sink.clone());
    through(dir.path(), &Arc::new(vec![vec![(1, 1), (2, 2)]; 3]), &[], &describe);
    let calls = sink.calls.lock().unwrap().join(", ");
    let expected = "open outputs-test rows after 0, \
         begin 1, write outputs-test/rows/1/0, write outputs-test/rows/1/1, commit 1 of 2, \
         begin 2, \
         begin 3, write outputs-test/rows/3/0, write outputs-test/rows/3/1, commit 3 of 2";
    assert_eq!(calls, expected);
    let rows = sink.rows.lock().unwrap();
    assert_eq!(rows["outputs-test/rows/1/1"], [(2, 2)]);
}

#[test]
fn an_idempotent_sink_is_exactly_once_and_a_plain_one_at_least_once() {
    let chunks = some_chunks(4);
    let run = |plans: &[Arc<FaultPlan>]| {
        let dir = tempfile::tempdir().unwrap();
        let (sink, plain) = (Recording::default(), Arc::new(Mutex::new(Vec::new())));
        through(dir.path(), &chunks, plans, &|pairs| {
            pairs.write_to("rows", sink.clone());
            let plain = plain.clone();
            pairs.write_to(
                "plain",
                FnSink::new(move |id, records: Vec<(u16, i64)>| {
                    plain.lock().unwrap().push((id.idempotency_key(), records));
                    Ok(())
                }),
            );
        });
        (std::mem::take(&mut *sink.rows.lock().unwrap()), std::mem::take(&mut *plain.lock().unwrap()))
    };
    let never = FaultPlan::never();
    let (rows, once) = run(std::slice::from_ref(&never));
    assert_eq!(once.len(), rows.len() + 2, "the recording sink skips batch 2");
    let mut most = 0;
    for step in 1..=never.steps() {
        let (rows_again, plain) = run(&[FaultPlan::crash_at(step)]);
        assert_eq!(rows_again, rows, "after a crash at step {step}");
        most = most.max(plain.len());
        // Some may be there twice, none is missing, and twice means the same.
        let all: BTreeSet<_> = plain.into_iter().collect();
        assert_eq!(all, once.iter().cloned().collect(), "after a crash at step {step}");
    }
    assert!(most > once.len(), "no crash fell between a write and the record that the batch is done");
}

#[test]
fn a_sink_that_refuses_or_panics_at_the_start_stops_it_before_anything_is_changed() {
    struct Refuses(bool);
    impl Sink<(u16, i64)> for Refuses {
        type Staged = ();
        fn open(&self, _: &SinkStart) -> Result<(), OutputError> {
            if self.0 { panic!("no such table") } else { Err("no such table".into()) }
        }
        fn write(&self, _: &SinkId, _: Vec<(u16, i64)>) -> Result<(), OutputError> {
            Ok(())
        }
        fn commit(&self, _: &BatchInfo, _: Vec<()>) -> Result<(), OutputError> {
            Ok(())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for panics in [false, true] {
        let job = start(builder(dir.path(), &ManualClock::at(0)), &some_chunks(1), &|pairs| {
            pairs.write_to("rows", Refuses(panics));
        });
        let error = job.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UserCode);
        assert!(
            error.chain().contains("output `rows`") && error.chain().contains("no such table"),
            "{error:?}"
        );
    }
    assert_eq!(fs::read_dir(dir.path().join("store/epochs")).unwrap().count(), 0);
}
