//! Jobs as users write them, on real files, sockets and threads: what they compute, how they stop, and what
//! they say when something is wrong. Cases of Spark's suites are marked with the suite they come from.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::{
    BlockStore, DStream, DirectorySource, ErrorKind, FileSource, ManualClock, Queue, Rdd, Receiver,
    ReceiverError, RunningContext, StopMode, StreamingContext, Text,
};

fn word_totals(lines: &DStream<Text>) -> DStream<(Text, u64)> {
    lines
        .flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        })
}

fn totals(job: &RunningContext) -> Vec<(String, u64)> {
    let mut rows = Vec::new();
    job.state::<Text, u64>("totals")
        .unwrap()
        .for_each(|word, total| rows.push((word.to_string(), total)))
        .unwrap();
    rows.sort();
    rows
}

fn row(word: &str, total: u64) -> (String, u64) {
    (word.to_owned(), total)
}

type Seen<T> = Arc<Mutex<Vec<Vec<T>>>>;

type Kept<T> = Arc<Mutex<Vec<Rdd<T>>>>;

fn see<T: millpond::Record>(stream: &DStream<T>) -> Seen<T> {
    let seen = Seen::default();
    let sink = seen.clone();
    stream.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().push(rdd.collect()?);
        Ok(())
    });
    seen
}

/// CheckpointSuite, file stream: stopped in the middle, files added while down; none missed, none doubled.
#[test]
fn files_are_taken_exactly_once_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = dir.path().join("inbox");
    std::fs::create_dir(&inbox).unwrap();
    let clock = ManualClock::at(0);
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let source = DirectorySource::new(&inbox).settle(Duration::ZERO);
        let _totals = word_totals(&context.replayable_stream("files", source));
        context.start().unwrap()
    };
    let put = |name: &str, content: &str| {
        std::fs::write(inbox.join(".aside"), content).unwrap();
        std::fs::rename(inbox.join(".aside"), inbox.join(name)).unwrap();
    };
    let job = start();
    put("1", "a b");
    tick(&job, &clock);
    put("2", "a\r\nno line end");
    put("empty", "");
    tick(&job, &clock);
    put("3.tmp", "not yet");
    put(".hidden", "never");
    drop(job);
    put("4", "a while down\n");
    std::fs::rename(inbox.join("3.tmp"), inbox.join("3")).unwrap();
    let job = start();
    tick(&job, &clock);
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    let expected: Vec<_> = [
        ("a", 3),
        ("b", 1),
        ("down", 1),
        ("end", 1),
        ("line", 1),
        ("no", 1),
        ("not", 1),
        ("while", 1),
        ("yet", 1),
    ]
    .map(|(word, total)| row(word, total))
    .into();
    assert_eq!(totals(&job), expected);
    drop(job);
    let job = start();
    tick(&job, &clock);
    assert_eq!(totals(&job), expected);
}

/// A directory that is not mounted is empty: the files that come back with it were taken. A name that comes
/// back with another content is new.
#[test]
fn an_emptied_directory_forgets_no_file_that_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, away) = (dir.path().join("inbox"), dir.path().join("away"));
    std::fs::create_dir(&inbox).unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let source = DirectorySource::new(&inbox).settle(Duration::ZERO);
    let _totals = word_totals(&context.replayable_stream("files", source));
    let job = context.start().unwrap();
    std::fs::write(inbox.join("1"), "a").unwrap();
    std::fs::write(inbox.join("2"), "b").unwrap();
    tick(&job, &clock);
    for unmounted in [false, true] {
        std::fs::rename(&inbox, &away).unwrap();
        if unmounted {
            std::fs::create_dir(&inbox).unwrap();
        }
        tick(&job, &clock);
        if unmounted {
            std::fs::remove_dir(&inbox).unwrap();
            std::fs::write(away.join("2"), "another").unwrap();
        }
        std::fs::rename(&away, &inbox).unwrap();
        tick(&job, &clock);
    }
    tick(&job, &clock);
    assert_eq!(totals(&job), [row("a", 1), row("another", 1), row("b", 1)]);
}

#[test]
fn a_file_is_read_by_ranges_and_on_as_it_grows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "one two\nincomp").unwrap();
    let clock = ManualClock::at(0);
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let _totals = word_totals(&context.replayable_stream("log", FileSource::new(&path)));
        context.start().unwrap()
    };
    let job = start();
    tick(&job, &clock);
    assert_eq!(totals(&job), [row("one", 1), row("two", 1)]);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"lete\n").unwrap();
    tick(&job, &clock);
    drop(job);
    let job = start();
    tick(&job, &clock);
    assert_eq!(totals(&job), [row("incomplete", 1), row("one", 1), row("two", 1)]);
    std::fs::write(&path, "cut").unwrap();
    clock.advance(INTERVAL_MS);
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.to_string().contains("it was cut"), "{error}");
}

/// A file that is gone when its batch has to be computed again stops the job by name; put back, it goes on.
#[test]
fn a_file_deleted_between_plan_and_replay_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let inbox = dir.path().join("inbox");
    std::fs::create_dir(&inbox).unwrap();
    let clock = ManualClock::at(0);
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let source = DirectorySource::new(&inbox).settle(Duration::ZERO);
        let _totals = word_totals(&context.replayable_stream("files", source));
        context.start()
    };
    std::fs::write(inbox.join("orders"), "a b\n").unwrap();
    let job = start().unwrap();
    tick(&job, &clock);
    drop(job);
    let away = dir.path().join("away");
    std::fs::rename(inbox.join("orders"), &away).unwrap();
    let error = start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.chain().contains("orders"), "{}", error.chain());
    std::fs::rename(&away, inbox.join("orders")).unwrap();
    assert_eq!(totals(&start().unwrap()), [row("a", 1), row("b", 1)]);
}

/// StreamingContextSuite: a graceful stop processes exactly what was received.
#[test]
fn a_graceful_stop_drains_the_socket_and_bad_bytes_pass() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let context = StreamingContext::builder("jobs")
        .store(dir.path().join("store"))
        .batch_interval(Duration::from_millis(20))
        .block_bytes_max(1 << 12)
        .receive_buffer_bytes_max(1 << 15)
        .stop_on_signals(false)
        .build()
        .unwrap();
    let lines = context.socket_text_stream("lines", &address);
    let longest = see(&lines.map(|line| line.len()));
    let _totals = word_totals(&lines);
    let job = context.start().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    // More than the receive buffer holds: the socket waits. One line is longer than a block.
    for line in 0..5_000 {
        writeln!(socket, "word{} \u{e9}t\u{e9} x", line % 10).unwrap();
    }
    socket.write_all(b"\xff\xfe \0nul\n").unwrap();
    socket.write_all(&vec![b'L'; 10_000]).unwrap();
    socket.write_all(b"\nlast line without an end").unwrap();
    drop(socket);
    let (mut again, _) = listener.accept().unwrap();
    again.write_all(b"reconnected\n").unwrap();
    while !totals(&job).contains(&row("reconnected", 1)) {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(5)).unwrap());
    }
    job.stop(StopMode::Graceful).unwrap();
    let totals = totals(&job);
    assert!(totals.contains(&row("word3", 500)) && totals.contains(&row("x", 5_000)), "{totals:?}");
    assert!(totals.contains(&row("last", 1)) && totals.contains(&row("\0nul", 1)), "{totals:?}");
    let words: u64 = totals.iter().filter(|(word, _)| !word.starts_with('L')).map(|(_, total)| total).sum();
    assert_eq!(words, 15_000 + 2 + 5 + 1);
    let pieces: usize = longest.lock().unwrap().iter().flatten().filter(|length| **length > 100).sum();
    assert_eq!(pieces, 10_000);
}

#[test]
fn a_connection_that_breaks_within_a_line_drops_that_line_only() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let context = StreamingContext::builder("jobs")
        .store(dir.path().join("store"))
        .batch_interval(Duration::from_millis(10))
        .stop_on_signals(false)
        .build()
        .unwrap();
    let lines = context.socket_text_stream("lines", &listener.local_addr().unwrap().to_string());
    let _totals = word_totals(&lines);
    let job = context.start().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    socket.write_all(b"whole\nhal").unwrap();
    while totals(&job).is_empty() {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(5)).unwrap());
    }
    // A linger of zero makes the kernel reset the connection when it is closed.
    let socket = tokio::net::TcpSocket::from_std_stream(socket);
    socket.set_zero_linger().unwrap();
    drop(socket);
    let (mut again, _) = listener.accept().unwrap();
    again.write_all(b"next\n").unwrap();
    while totals(&job).len() < 2 {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(5)).unwrap());
    }
    assert_eq!(totals(&job), [row("next", 1), row("whole", 1)]);
}

/// A receiver that fails, panics and ends: it is started again until it ends, and what it stored counts once.
#[test]
fn a_failing_receiver_is_started_again() {
    struct Flaky(u64);

    impl Receiver for Flaky {
        type Item = u64;

        async fn receive(&mut self, blocks: BlockStore<u64>) -> Result<(), ReceiverError> {
            self.0 += 1;
            blocks.store(vec![self.0]).await?;
            match self.0 {
                1 => Err("first".into()),
                2 => panic!("second"),
                _ => Ok(()),
            }
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let seen = see(&context.receiver_stream("flaky", Flaky(0)));
    let job = context.start().unwrap();
    while seen.lock().unwrap().iter().flatten().count() < 3 {
        tick(&job, &clock);
    }
    job.stop(StopMode::Graceful).unwrap();
    assert_eq!(seen.lock().unwrap().concat(), [1, 2, 3]);
}

/// What was acknowledged counts exactly once, whether it was in a batch before the job went down or not.
#[test]
fn acknowledged_blocks_count_once_after_any_stop() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = || -> (RunningContext, Queue<(u32, u32)>) {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (pairs, queue) = context.queue_stream::<(u32, u32)>("pairs");
        let _counts = pairs.update_state_by_key("counts", |new, seen: Option<u32>| {
            Some(seen.unwrap_or(0) + new.len() as u32)
        });
        (context.start().unwrap(), queue)
    };
    let mut pushed = 0;
    for round in 0..12u32 {
        let (job, queue) = start();
        for _ in 0..round % 4 {
            queue.push([(pushed, round)]).unwrap();
            pushed += 1;
            if round % 3 == 0 {
                tick(&job, &clock);
            }
        }
        match round % 2 {
            0 => drop(job),
            _ => job.stop(StopMode::Graceful).unwrap(),
        }
        assert_eq!(queue.push([(9_999, 0)]).unwrap_err().kind(), ErrorKind::Stopped);
    }
    let (job, _queue) = start();
    job.stop(StopMode::Graceful).unwrap();
    let mut counts = Vec::new();
    job.state::<u32, u32>("counts").unwrap().for_each(|key, count| counts.push((key, count))).unwrap();
    counts.sort_unstable();
    assert_eq!(counts, (0..pushed).map(|key| (key, 1)).collect::<Vec<_>>());
}

/// StreamingContextSuite: an error in a task surfaces in `await_termination`, with its place, and the store stays
/// good: with the closure mended, the same batch goes through.
#[test]
fn a_panicking_closure_stops_the_job_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |poison: u64| {
        let context = builder(dir.path(), &clock).task_attempts_max(2).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let pairs = numbers.map(move |n| {
            assert!(n != poison, "poison {n}");
            (n % 2, n)
        });
        let _sums = pairs.update_state_by_key("sums", |new, sum: Option<u64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
        });
        (context.start(), queue)
    };
    let sum = |job: &RunningContext, key: u64| job.state::<u64, u64>("sums").unwrap().get(&key).unwrap();
    let (job, queue) = start(7);
    let job = job.unwrap();
    queue.push([1, 2, 3]).unwrap();
    tick(&job, &clock);
    queue.push([5, 7, 8]).unwrap();
    clock.advance(INTERVAL_MS);
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UserCode);
    for part in ["batch 2", "update_state_by_key", "partition 0", "block 2 of `numbers`", "poison 7"] {
        assert!(error.to_string().contains(part), "{error} does not name {part}");
    }
    assert_eq!((sum(&job, 1), sum(&job, 0)), (Some(4), Some(2)));
    drop(job);
    assert_eq!(start(7).0.unwrap_err().kind(), ErrorKind::UserCode);
    let (job, _queue) = start(u64::MAX);
    let job = job.unwrap();
    assert_eq!((sum(&job, 1), sum(&job, 0)), (Some(16), Some(10)));
}

#[test]
fn an_output_that_fails_for_a_while_is_tried_again_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let (tries, keys) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (counter, log) = (tries.clone(), keys.clone());
    numbers.for_each_rdd(move |rdd, info| {
        log.lock().unwrap().push((info.idempotency_key(), rdd.collect()?));
        match counter.fetch_add(1, Ordering::SeqCst) {
            0 => Err("the sink is away".into()),
            1 => panic!("and again"),
            _ => Ok(()),
        }
    });
    let job = context.start().unwrap();
    queue.push([1, 2]).unwrap();
    tick(&job, &clock);
    let keys = keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|entry| *entry == keys[0]), "{keys:?}");
}

/// A cached partition that is lost is computed again from its lineage, through a shuffle.
#[test]
fn a_lost_cached_partition_is_computed_again_from_its_lineage() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let computed = Arc::new(AtomicU32::new(0));
    let counter = computed.clone();
    let kept: Kept<(u64, u64)> = Arc::default();
    let keep = kept.clone();
    let sums = numbers.map(|n| (n % 5, n)).reduce_by_key(|a, b| a + b).map(move |pair| {
        counter.fetch_add(1, Ordering::SeqCst);
        pair
    });
    sums.cache().for_each_rdd(move |rdd, info| {
        if info.batch.0 == 1 {
            keep.lock().unwrap().push(rdd);
        }
        Ok(())
    });
    let job = context.start().unwrap();
    queue.push(0..20).unwrap();
    tick(&job, &clock);
    let rdd = kept.lock().unwrap().pop().unwrap();
    let first = rdd.collect().unwrap();
    assert_eq!(first.len(), 5);
    assert_eq!((rdd.collect().unwrap(), computed.load(Ordering::SeqCst)), (first.clone(), 5));
    let lost = (0..rdd.partitions()).find(|partition| {
        rdd.uncache(*partition);
        rdd.collect().unwrap();
        computed.load(Ordering::SeqCst) > 5
    });
    assert!(lost.is_some() && computed.load(Ordering::SeqCst) < 10, "only what was lost is computed again");
    // Batches later the RDD is the same, whether from the cache or from the blocks in the log.
    tick(&job, &clock);
    (0..rdd.partitions()).for_each(|partition| rdd.uncache(partition));
    assert_eq!(rdd.collect().unwrap(), first);
}

/// An RDD of state that is kept beyond its batch still shows that batch.
#[test]
fn a_kept_rdd_of_state_does_not_change_with_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let kept: Kept<((), u64)> = Arc::default();
    let keep = kept.clone();
    let sums = numbers
        .map(|n| ((), n))
        .update_state_by_key("sum", |new, sum: Option<u64>| Some(sum.unwrap_or(0) + new.iter().sum::<u64>()));
    sums.for_each_rdd(move |rdd, _| {
        keep.lock().unwrap().push(rdd);
        Ok(())
    });
    let job = context.start().unwrap();
    for n in [1, 10, 100] {
        queue.push([n]).unwrap();
        tick(&job, &clock);
    }
    let shown: Vec<u64> = kept.lock().unwrap().iter().map(|rdd| rdd.collect().unwrap()[0].1).collect();
    assert_eq!(shown, [1, 11, 111]);
    // CheckpointSuite: a chain of stateful batches does not grow the lineage.
    let lineages: Vec<usize> =
        kept.lock().unwrap().iter().map(|rdd| rdd.to_debug_string().lines().count()).collect();
    assert_eq!(lineages, [1, 1, 1]);
}

#[test]
fn text_files_are_written_whole_and_again_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let start = |fail: bool| {
        let context = builder(dir.path(), &clock).task_attempts_max(1).build().unwrap();
        let (words, queue) = context.queue_stream::<String>("words");
        words.save_as_text_files(out.join("words"), "txt");
        words
            .for_each_rdd(move |_, info| if fail && info.batch.0 == 2 { Err("down".into()) } else { Ok(()) });
        (context.start().unwrap(), queue)
    };
    let (job, queue) = start(true);
    queue.push(["a".to_owned(), "b".to_owned()]).unwrap();
    tick(&job, &clock);
    queue.push(["c".to_owned()]).unwrap();
    clock.advance(INTERVAL_MS);
    assert_eq!(job.await_termination().unwrap_err().kind(), ErrorKind::UserCode);
    drop(job);
    let second = out.join("words-2000.txt");
    std::fs::write(second.join("part-00000"), "damaged in the meantime").unwrap();
    // The batch was not done: both of its outputs are emitted again.
    let (job, _queue) = start(false);
    assert_eq!(job.recovery().emitted.len(), 1);
    assert_eq!(std::fs::read_to_string(second.join("part-00000")).unwrap(), "c\n");
    assert_eq!(std::fs::read_to_string(out.join("words-1000.txt/part-00000")).unwrap(), "a\nb\n");
    let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn the_stateless_operations_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let evens = numbers.filter(|n| n % 2 == 0).map(|n| n * 10);
    let counts = see(&numbers.count());
    let sums = see(&numbers.reduce(|a, b| a + b));
    let union = see(&evens.union(&numbers.repartition(3)).transform(|rdd, _| Ok(rdd.map(|n| n + 1))));
    let joined = see(&numbers.map(|n| (n % 3, n)).join(&evens.map(|n| (n % 3, ())).map_values(|()| 'x')));
    let grouped = see(&numbers.map(|n| (n % 2, n)).group_by_key().map_values(|values| values.len()));
    let sizes = see(&numbers.map_partitions(|part| [part.len()]));
    let job = context.start().unwrap();
    queue.push([1, 2, 3, 4]).unwrap();
    tick(&job, &clock);
    tick(&job, &clock);
    assert_eq!(*counts.lock().unwrap(), [vec![4], vec![0]]);
    assert_eq!(*sums.lock().unwrap(), [vec![10], vec![]]);
    let mut union = union.lock().unwrap()[0].clone();
    union.sort_unstable();
    assert_eq!(union, [2, 3, 4, 5, 21, 41]);
    let mut joined = joined.lock().unwrap()[0].clone();
    joined.sort_unstable();
    assert_eq!(joined, [(1, (1, 'x')), (1, (4, 'x')), (2, (2, 'x'))]);
    let mut grouped = grouped.lock().unwrap()[0].clone();
    grouped.sort_unstable();
    assert_eq!(grouped, [(0, 2), (1, 2)]);
    assert_eq!(sizes.lock().unwrap()[0], [4]);
}

/// A record that can never fit the buffer is refused; it would wait for ever.
#[test]
fn a_record_larger_than_the_receive_buffer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock)
        .block_bytes_max(1 << 12)
        .receive_buffer_bytes_max(1 << 14)
        .build()
        .unwrap();
    let (texts, queue) = context.queue_stream::<String>("texts");
    let counts = see(&texts.count());
    let job = context.start().unwrap();
    assert_eq!(queue.push(["x".repeat(1 << 15)]).unwrap_err().kind(), ErrorKind::Source);
    queue.push(["x".repeat(1 << 13)]).unwrap();
    tick(&job, &clock);
    assert_eq!(*counts.lock().unwrap(), [[1]]);
}
