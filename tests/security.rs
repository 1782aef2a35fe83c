//! What others may not read, links that are not followed, and peers that send without end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/child.rs"]
mod child;
#[path = "support/driven.rs"]
mod driven;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use child::{child_dir, run_child_through, status_kib};
use driven::{builder, tick};
use millpond::{
    BinaryRecordsSource, DStream, DirectorySource, ErrorKind, ManualClock, Queue, ReceiverFailed, Record,
    RunningContext, StorageLevel, StreamingContext, StreamingListener, encode_raw_frame,
};

type Emitted<T> = Arc<Mutex<Vec<T>>>;

fn collect<T: Record>(stream: &DStream<T>) -> Emitted<T> {
    let emitted: Emitted<T> = Arc::default();
    let sink = emitted.clone();
    stream.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().extend(rdd.collect()?);
        Ok(())
    });
    emitted
}

/// Everything below a directory, itself included.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        // A job that runs removes what it no longer needs.
        let entries =
            path.symlink_metadata().ok().filter(|data| data.is_dir()).and_then(|_| fs::read_dir(&path).ok());
        found.extend(entries.into_iter().flatten().map(|entry| entry.unwrap().path()));
        at += 1;
    }
    found
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// What below a directory is for others than its owner too.
fn open_to_others(dir: &Path) -> Vec<String> {
    let open =
        below(dir).into_iter().filter(|path| path.symlink_metadata().is_ok() && mode(path) & 0o077 != 0);
    open.map(|path| format!("{} {:o}", path.display(), mode(&path))).collect()
}

fn sums(context: &StreamingContext) -> Queue<(u64, u64)> {
    let (pairs, queue) = context.queue_stream::<(u64, u64)>("pairs");
    pairs
        .update_state_by_key("sums", |new, sum: Option<u64>| Some(sum.unwrap_or(0) + new.iter().sum::<u64>()))
        .for_each_rdd(|_, _| Ok(()));
    queue
}

fn start_sums(dir: &Path, clock: &Arc<ManualClock>) -> millpond::Result<(RunningContext, Queue<(u64, u64)>)> {
    let context = builder(dir, clock).build()?;
    let queue = sums(&context);
    Ok((context.start()?, queue))
}

fn sum(job: &RunningContext, key: u64) -> Option<u64> {
    job.state::<u64, u64>("sums").unwrap().get(&key).unwrap()
}

// -- permissions --

/// What this process has open that has no name any more: where partitions are spilled to.
fn nameless_files() -> Vec<u32> {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let gone = open.filter(|fd| {
        fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().ends_with("(deleted)") && to.is_absolute())
    });
    gone.filter_map(|fd| Some(fs::metadata(fd).ok()?.mode() & 0o7777)).collect()
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_job_with_files_of_every_kind() {
    let Some(dir) = child_dir() else { return };
    let clock = ManualClock::at(0);
    let (spilled, staged) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    for start in 0..3 {
        let context = builder(&dir, &clock).checkpoint_every_batches(2).build().unwrap();
        let (pairs, queue) = context.queue_stream::<(u64, u64)>("pairs");
        let sums = pairs
            .update_state_by_key("sums", |new, sum: Option<u64>| Some(sum.unwrap_or(0) + new.len() as u64));
        let (modes, aside, out) = (spilled.clone(), staged.clone(), dir.join("out"));
        sums.for_each_rdd(move |rdd, info| {
            let kept = rdd.persist(StorageLevel::Disk);
            kept.count()?;
            modes.lock().unwrap().extend(nameless_files());
            let (aside, staging) = (aside.clone(), out.join(format!(".{}.tmp", info.time)));
            kept.map(move |(key, sum)| {
                aside.lock().unwrap().push(mode(&staging));
                format!("{key} {sum}")
            })
            .save_as_text_file(out.join(info.time.to_string()))?;
            Ok(())
        });
        let job = context.start().unwrap();
        for batch in 0..5 {
            queue.push((0..40).map(|key| (key % 7 + start, batch))).unwrap();
            tick(&job, &clock);
        }
        assert_eq!(open_to_others(&dir.join("store")), [""; 0], "while the job runs");
        drop(job);
    }
    let (spilled, staged) = (spilled.lock().unwrap(), staged.lock().unwrap());
    assert!(!spilled.is_empty() && spilled.iter().all(|mode| mode & 0o077 == 0), "{spilled:?}");
    assert!(!staged.is_empty() && staged.iter().all(|mode| *mode == 0o700), "{staged:?}");
}

/// The umask of the process lets everybody do everything.
#[test]
fn a_store_and_its_temporary_files_are_their_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    run_child_through("a_job_with_files_of_every_kind", "umask 000", dir.path());
    let store = dir.path().join("store");
    assert!(below(&store).len() > 15, "{:?}", below(&store));
    // sled writes more files when it closes: the directories alone keep others from those until the next start.
    let directories = below(&store).into_iter().filter(|path| path.is_dir());
    assert_eq!(
        directories.filter(|path| mode(path) != 0o700).collect::<Vec<_>>(),
        [""; 0].map(PathBuf::from)
    );
    // What was saved is for others, once it is whole.
    let saved = below(&dir.path().join("out"));
    assert!(saved.len() > 30, "{saved:?}");
    let shown = saved.iter().filter(|path| mode(path) != if path.is_dir() { 0o777 } else { 0o666 });
    assert_eq!(shown.collect::<Vec<_>>(), [""; 0].map(Path::new));
}

#[test]
fn a_store_that_was_restored_for_everybody_is_private_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    // The directory was made beforehand, as by who sets up a machine.
    fs::create_dir(dir.path().join("store")).unwrap();
    fs::set_permissions(dir.path().join("store"), fs::Permissions::from_mode(0o755)).unwrap();
    for start in 1..4 {
        let (job, queue) = start_sums(dir.path(), &clock).unwrap();
        assert_eq!(open_to_others(&dir.path().join("store")), [""; 0], "start {start}");
        (0..4).for_each(|_| {
            queue.push([(1, 1)]).unwrap();
            tick(&job, &clock);
        });
        assert_eq!(sum(&job, 1), Some(4 * start));
        drop(job);
        for path in below(&dir.path().join("store")) {
            let bits = if path.is_dir() { 0o777 } else { 0o666 };
            fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
        }
    }
}

// -- links --

#[test]
fn a_store_may_be_reached_over_a_link_and_has_none_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    fs::create_dir(dir.path().join("disk")).unwrap();
    symlink(dir.path().join("disk"), dir.path().join("store")).unwrap();
    let (job, queue) = start_sums(dir.path(), &clock).unwrap();
    for _ in 0..4 {
        queue.push([(1, 1)]).unwrap();
        tick(&job, &clock);
    }
    drop(job);
    fs::create_dir(dir.path().join("disk/pins")).unwrap();
    let elsewhere = dir.path().join("elsewhere");
    let store = dir.path().join("store/");
    for path in below(&store).into_iter().skip(1) {
        fs::rename(&path, &elsewhere).unwrap();
        let before = (mode(&elsewhere), elsewhere.metadata().unwrap().modified().unwrap());
        symlink(&elsewhere, &path).unwrap();
        let error = start_sums(dir.path(), &clock).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{}", error.chain());
        assert!(error.to_string().contains("is a symbolic link"), "{error}");
        let after = (mode(&elsewhere), elsewhere.metadata().unwrap().modified().unwrap());
        assert_eq!(before, after, "{}", path.display());
        fs::remove_file(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
    }
    symlink("/nowhere", dir.path().join("store/quarantine")).unwrap();
    start_sums(dir.path(), &clock).unwrap_err();
    fs::remove_file(dir.path().join("store/quarantine")).unwrap();
    assert_eq!(sum(&start_sums(dir.path(), &clock).unwrap().0, 1), Some(4));
}

#[test]
fn links_and_pipes_in_a_monitored_directory_are_passed_over_unless_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    fs::write(spool.join("a"), "public").unwrap();
    symlink("../secret", spool.join("b")).unwrap();
    symlink("nowhere", spool.join("c")).unwrap();
    symlink("..", spool.join("d")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(spool.join("e")).status().unwrap();
    assert!(pipe.success());
    symlink("e", spool.join("f")).unwrap();
    let now = || DirectorySource::new(&spool).settle(Duration::ZERO);
    let binary = || BinaryRecordsSource::new(&spool, 6).settle(Duration::ZERO);
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let lines = collect(&context.file_stream("lines", now()).map(|line| line.to_string()));
    let all = collect(&context.file_stream("all", now().follow_symlinks()).map(|line| line.to_string()));
    let records = collect(&context.replayable_stream("records", binary()));
    let all_records = collect(&context.replayable_stream("all records", binary().follow_symlinks()));
    let job = context.start().unwrap();
    (0..2).for_each(|_| tick(&job, &clock));
    let sorted = |emitted: &Emitted<String>| {
        let mut lines = emitted.lock().unwrap().clone();
        lines.sort();
        lines
    };
    assert_eq!(
        (sorted(&lines), sorted(&all)),
        (vec!["public".into()], vec!["public".into(), "secret".into()])
    );
    assert_eq!((records.lock().unwrap().len(), all_records.lock().unwrap().len()), (1, 2));
}

/// A link to a file of the same length and time is put in the place of one that was taken: a replay must not read it.
#[test]
fn a_link_in_the_place_of_a_planned_file_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, secret) = (dir.path().join("spool"), dir.path().join("secret"));
    fs::create_dir(&spool).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for (path, text) in [(spool.join("a"), "public"), (secret.clone(), "secret")] {
        fs::write(&path, text).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }
    let clock = ManualClock::at(0);
    let start = || {
        let context = builder(dir.path(), &clock).task_attempts_max(1).build().unwrap();
        let source = DirectorySource::new(&spool).settle(Duration::ZERO);
        let lines = context.file_stream("lines", source).map(|line| (line.to_string(), 1u64));
        let _counts = lines.update_state_by_key("counts", |new, count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
        context.start()
    };
    let count = |job: &RunningContext| {
        let counts = job.state::<String, u64>("counts").unwrap();
        (counts.get(&"public".to_owned()).unwrap(), counts.get(&"secret".to_owned()).unwrap())
    };
    let job = start().unwrap();
    tick(&job, &clock);
    assert_eq!(count(&job), (Some(1), None));
    drop(job);
    fs::rename(spool.join("a"), dir.path().join("a")).unwrap();
    for kind in ["link", "pipe"] {
        match kind {
            "link" => symlink(&secret, spool.join("a")).unwrap(),
            _ => {
                assert!(std::process::Command::new("mkfifo").arg(spool.join("a")).status().unwrap().success())
            }
        }
        let error = start().map(drop).unwrap_err().chain();
        let why = if kind == "link" { "it is a symbolic link" } else { "it is not a regular file" };
        assert!(error.contains("put it back as it was") && error.contains(why), "{error}");
        fs::remove_file(spool.join("a")).unwrap();
    }
    fs::rename(dir.path().join("a"), spool.join("a")).unwrap();
    assert_eq!(count(&start().unwrap()), (Some(1), None));
}

#[test]
fn a_save_does_not_replace_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("part-00000"), "theirs").unwrap();
    for (name, to) in [("link", elsewhere.clone()), ("dangling", dir.path().join("nowhere"))] {
        let target = dir.path().join(name);
        symlink(&to, &target).unwrap();
        millpond::doc::run_batch(["ours"], |lines| {
            let error = lines.save_as_text_file(&target).unwrap_err();
            assert!(error.chain().contains("is a symbolic link: it is left alone"), "{}", error.chain());
            Ok(())
        });
        assert_eq!(fs::read_link(&target).unwrap(), to);
    }
    assert_eq!(fs::read_to_string(elsewhere.join("part-00000")).unwrap(), "theirs");
}

// -- peers --

#[derive(Default)]
struct Refusals(Mutex<Vec<String>>);

impl StreamingListener for Refusals {
    fn receiver_error(&self, event: &ReceiverFailed) {
        self.0.lock().unwrap().push(event.error.clone());
    }
}

/// A server whose n-th connection gets what the n-th of `talks` says, over and over until nobody takes it any more.
fn serve(talks: Vec<(Vec<u8>, usize)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        // The last one stays open.
        let mut open = Vec::new();
        for (bytes, times) in talks {
            let (mut socket, _) = listener.accept().unwrap();
            let _hung_up = (0..times).try_for_each(|_| socket.write_all(&bytes));
            open.push(socket);
        }
        std::thread::park();
    });
    address
}

const MIB: usize = 1 << 20;

/// More than a job with these settings may take: blocks on their way, with what the allocator keeps of them.
const GROWTH_KIB_MAX: u64 = 40 << 10;

/// Runs a stream until `done` says that all is there; the memory of the process must not have grown over the bound.
fn run_bounded<T: Record>(
    dir: &Path,
    describe: impl FnOnce(&StreamingContext) -> DStream<T>,
    done: impl Fn(&[T]) -> bool,
) -> (Vec<T>, Vec<String>) {
    let (clock, refusals) = (ManualClock::at(0), Arc::new(Refusals::default()));
    let bounded = builder(dir, &clock).block_bytes_max(64 << 10).receive_buffer_bytes_max(MIB);
    let context = bounded.listener(refusals.clone()).build().unwrap();
    let emitted = collect(&describe(&context));
    let before = status_kib("VmHWM");
    let job = context.start().unwrap();
    while !done(&emitted.lock().unwrap()) {
        // Batches take memory too: not more of them than are needed.
        assert!(!job.await_termination_or_timeout(Duration::from_millis(10)).unwrap());
        tick(&job, &clock);
    }
    drop(job);
    let grown = status_kib("VmHWM") - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB for peers that send without end");
    let refusals = refusals.0.lock().unwrap().clone();
    (std::mem::take(&mut *emitted.lock().unwrap()), refusals)
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_line_without_end() {
    let Some(dir) = child_dir() else { return };
    let sent = 96 * MIB;
    let address = serve(vec![(vec![b'x'; MIB], sent / MIB)]);
    let lengths = |context: &StreamingContext| {
        context.socket_text_stream("lines", &address).map(|line| line.as_bytes().len()).map(|length| {
            assert!(length <= 3 * (64 << 10), "{length}");
            length
        })
    };
    let (lengths, _) = run_bounded(&dir, lengths, |lengths| lengths.iter().sum::<usize>() >= sent);
    assert_eq!(lengths.iter().sum::<usize>(), sent);
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn frames_without_end() {
    let Some(dir) = child_dir() else { return };
    let good = encode_raw_frame(&[7u64]).unwrap();
    // A length of 4 GiB and bytes to go with it; a length within a frame that goes beyond it; a frame.
    let huge = [&[0xff; 4][..], &vec![1; MIB]].concat();
    let lying = [&8u32.to_le_bytes()[..], &u32::MAX.to_le_bytes(), &[0; 4]].concat();
    let address = serve(vec![(huge, 96), (lying, 1), (good, 1)]);
    let frames = |context: &StreamingContext| context.raw_socket_stream::<u64>("frames", &address);
    let (records, refusals) = run_bounded(&dir, frames, |records| !records.is_empty());
    assert_eq!(records, [7]);
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert!(refusals[0].contains("a frame of 4294967295 bytes is over the limit of 65536"), "{refusals:?}");
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_record_without_end() {
    let Some(dir) = child_dir() else { return };
    let address = serve(vec![(vec![b'x'; MIB], 96), (b"x.".to_vec(), 1)]);
    let records = |context: &StreamingContext| {
        context.socket_stream("records", &address, |bytes, records: &mut Vec<u64>| {
            let end = bytes.iter().position(|byte| *byte == b'.');
            records.extend(end.map(|end| end as u64));
            Ok(end.map_or(0, |end| end + 1))
        })
    };
    let (records, refusals) = run_bounded(&dir, records, |records| !records.is_empty());
    assert_eq!(records, [1]);
    assert!(refusals.len() == 1 && refusals[0].contains("there is no record in "), "{refusals:?}");
}

#[test]
fn peers_that_send_without_end_take_a_bounded_memory() {
    for name in ["a_line_without_end", "frames_without_end", "a_record_without_end"] {
        let dir = tempfile::tempdir().unwrap();
        run_child_through(name, "true", dir.path());
    }
}
