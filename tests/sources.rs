//! Files of records, files that are chosen, and sockets that send anything: real files, real connections.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use driven::{builder, tick};
use millpond::{
    BinaryRecordsSource, DStream, DirectorySource, ManualClock, Record, RunningContext, StopMode,
    StreamingContext, encode_raw_frame,
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

/// Starts a job with one stream.
fn start<T: Record>(
    dir: &Path,
    clock: &Arc<ManualClock>,
    describe: impl FnOnce(&StreamingContext) -> DStream<T>,
) -> (RunningContext, Emitted<T>) {
    let context = builder(dir, clock).build().unwrap();
    let emitted = collect(&describe(&context));
    (context.start().unwrap(), emitted)
}

#[test]
fn binary_files_come_record_by_record_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let clock = ManualClock::at(0);
    let source = || BinaryRecordsSource::new(&spool, 3).settle(Duration::ZERO).filter(|name| name != "other");
    let record = |n: u32| n.to_be_bytes()[1..].to_vec();
    // More than one range, and a length that divides none of the usual sizes.
    let many: Vec<u8> = (0..2_000_000).flat_map(record).collect();
    std::fs::write(spool.join("many"), &many).unwrap();
    std::fs::write(spool.join("none"), b"").unwrap();
    std::fs::write(spool.join("other"), b"x").unwrap();
    let (job, emitted) = start(dir.path(), &clock, |context| context.replayable_stream("in", source()));
    tick(&job, &clock);
    drop(job);
    assert_eq!(emitted.lock().unwrap().concat(), many);
    // After a restart only what is new.
    std::fs::write(spool.join("more"), b"abcdef").unwrap();
    let (job, emitted) = start(dir.path(), &clock, |context| context.replayable_stream("in", source()));
    tick(&job, &clock);
    assert_eq!(*emitted.lock().unwrap(), [b"abc".to_vec(), b"def".to_vec()]);
    // A file that is no records of three bytes stops the job, and says which.
    std::fs::write(spool.join("torn"), b"abcd").unwrap();
    clock.advance(driven::INTERVAL_MS);
    let error = job.await_termination().unwrap_err().to_string();
    assert!(error.contains("torn has 4 bytes, which are no records of 3"), "{error}");
}

#[test]
fn a_limit_is_kept_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::write(spool.join("file"), b"aabbccdde5").unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).source_bytes_per_batch_max(5).build().unwrap();
    let source = BinaryRecordsSource::new(&spool, 2).settle(Duration::ZERO);
    let emitted = collect(&context.replayable_stream("in", source));
    let job = context.start().unwrap();
    for expected in [2, 4, 5, 5] {
        tick(&job, &clock);
        assert_eq!(emitted.lock().unwrap().len(), expected);
    }
    assert_eq!(emitted.lock().unwrap().concat(), b"aabbccdde5");
}

#[test]
fn only_new_files_are_taken_where_asked_for_and_what_is_new_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let write = |name: &str, at_s: u64| {
        let file = std::fs::File::create(spool.join(name)).unwrap();
        writeln!(&file, "{name}").unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(at_s)).unwrap();
    };
    let clock = ManualClock::at(1_000_000);
    let source = || {
        let source = DirectorySource::new(&spool).settle(Duration::ZERO);
        source.new_files_only().filter(|name| !name.ends_with(".part"))
    };
    write("old", 10);
    let (job, emitted) = start(dir.path(), &clock, |context| context.file_stream("in", source()));
    tick(&job, &clock);
    write("new", 1_002);
    write("new.part", 1_002);
    tick(&job, &clock);
    assert_eq!(*emitted.lock().unwrap(), ["new"]);
    job.stop(StopMode::Graceful).unwrap();
    // It came while the job was down: newer than the first start, so it is taken; the old one never is.
    clock.advance(100_000);
    write("while-down", 1_050);
    let (job, emitted) = start(dir.path(), &clock, |context| context.file_stream("in", source()));
    tick(&job, &clock);
    tick(&job, &clock);
    assert_eq!(*emitted.lock().unwrap(), ["while-down"]);
}

/// Sends the parts over one connection each and waits until the receiver has closed or taken it.
fn serve(parts: Vec<Vec<u8>>) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        for part in parts {
            let (mut socket, _) = listener.accept().unwrap();
            for piece in part.chunks(7) {
                // The other end closes on what it refuses.
                if socket.write_all(piece).is_err() {
                    break;
                }
            }
        }
    });
    (address, server)
}

/// Runs batches until so many records have come.
fn run_until<T: Record>(job: &RunningContext, clock: &ManualClock, emitted: &Emitted<T>, records: usize) {
    while emitted.lock().unwrap().len() < records {
        tick(job, clock);
    }
}

#[test]
fn a_socket_is_decoded_as_its_function_says_and_connected_again_after_an_error() {
    let decode = |bytes: &[u8], numbers: &mut Vec<u16>| {
        let pairs = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        for (at, number) in pairs.enumerate() {
            if number == u16::MAX {
                return if at == 0 { Err("this number is refused".into()) } else { Ok(at * 2) };
            }
            numbers.push(number);
        }
        Ok(bytes.len() / 2 * 2)
    };
    let encode = |numbers: &[u16]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    let long: Vec<u16> = (0..5_000).collect();
    let (address, server) = serve(vec![encode(&[1, 2, 3]), encode(&[4, u16::MAX, 5]), encode(&long)]);
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (job, emitted) =
        start(dir.path(), &clock, |context| context.socket_stream("numbers", &address, decode));
    run_until(&job, &clock, &emitted, 4 + long.len());
    let expected: Vec<u16> = (1..=4).chain(long).collect();
    assert_eq!(*emitted.lock().unwrap(), expected);
    server.join().unwrap();
}

#[test]
fn raw_frames_are_taken_whole_or_not_at_all() {
    let frame = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        encode_raw_frame(&words).unwrap()
    };
    let mut unsound = frame(&["left", "out"]);
    // The second record runs over the end of the frame.
    let second = 4 + (unsound.len() - 4) / 2;
    unsound[second] += 1;
    let oversized = (64u32 << 20).to_le_bytes().to_vec();
    let parts = vec![
        [frame(&["one", "two"]), frame(&[]), frame(&["three"]), unsound].concat(),
        oversized,
        frame(&["four"]),
    ];
    let (address, server) = serve(parts);
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (job, emitted) =
        start(dir.path(), &clock, |context| context.raw_socket_stream::<String>("words", &address));
    run_until(&job, &clock, &emitted, 4);
    assert_eq!(*emitted.lock().unwrap(), ["one", "two", "three", "four"]);
    server.join().unwrap();
}
