//! Where event time has its edges: the last time there is, a job that was down, a panic, a stream that slides.

use std::sync::Arc;

use millpond::{EventWindows, ManualClock, StopMode, StreamingContext, Timer, Watermarks};

use crate::model::{Shape, time_of};
use crate::support::lives::Scripted;
use crate::support::{INTERVAL_MS, Run, ScriptedSource, Sink, wait_for_batch};
use crate::{Inputs, describe, emit, fixed_inputs, ms, sorted};

/// A stream that nobody has looked at is not idle: what it has after an hour without the job is not late.
#[test]
fn an_hour_without_the_job_makes_no_stream_idle() {
    let at = |time: i64| vec![(1u16, time * 1_000)];
    let left = Arc::new(vec![at(500), at(510), vec![], vec![], vec![], vec![]]);
    let inputs = Inputs { left, right: Arc::new(vec![at(100), vec![], at(120), vec![], vec![], vec![]]) };
    let shape = Shape { idle_after: 2, ..fixed_inputs().1 };
    let (dir, clock, sink) = (tempfile::tempdir().unwrap(), ManualClock::at(0), Sink::default());
    let start = || {
        let context = StreamingContext::builder("down")
            .store(dir.path().join("store"))
            .clock(clock.clone())
            .stop_on_signals(false)
            .build()
            .unwrap();
        describe(&context, &inputs, &Run::default(), &shape, &sink);
        context.start().unwrap()
    };
    let job = start();
    clock.advance(INTERVAL_MS);
    assert!(wait_for_batch(&job, 1));
    job.stop(StopMode::Graceful).unwrap();
    clock.advance(3_600_000);
    let job = start();
    for batch in 2..=6 {
        assert!(wait_for_batch(&job, batch));
        clock.advance(INTERVAL_MS);
    }
    let rows = sink.rows();
    let watermarks = (1..=6).map(|batch| rows[&format!("watermark-both {batch:04}")].as_str());
    // Left is idle in its second batch without records, from when on right, which is not, is what counts; then
    // both are.
    assert_eq!(watermarks.collect::<Vec<_>>(), ["94", "94", "114", "114", "504", "504"]);
    assert_eq!(rows["join-late-right 0003"], "");
}

/// A job may send the last time there is to say that nothing comes any more.
#[test]
fn at_the_end_of_time_every_record_is_in_a_window_or_late_and_every_timer_comes() {
    const END: u64 = u64::MAX;
    let (dir, clock, sink) = (tempfile::tempdir().unwrap(), ManualClock::at(0), Sink::default());
    let context = StreamingContext::builder("end")
        .store(dir.path().join("store"))
        .clock(clock.clone())
        .stop_on_signals(false)
        .build()
        .unwrap();
    let chunks = vec![vec![(1u16, END - 20), (1, END - 3), (2, END - 1)], vec![(3, END)], vec![]];
    let source = Scripted { chunks: Arc::new(chunks), ranges: 1, flaky: false };
    let events = context
        .replayable_stream("end", source)
        .with_event_time(Watermarks::bounded("end", ms(0)), |(_, time_ms)| *time_ms);
    let tumbling = events.window("tumbling", EventWindows::tumbling(ms(10))).count();
    emit(
        &tumbling.results().map(|window| (window.key, END - window.end_ms, window.value)),
        "tumbling",
        &sink,
    );
    emit(&tumbling.late().map(|(time_ms, (key, _))| (key, END - time_ms)), "late", &sink);
    let session = events.window("session", EventWindows::session(ms(10))).count();
    emit(&session.results().map(|window| (window.key, END - window.end_ms, window.value)), "session", &sink);
    let ended = events.transform_with_state::<u64, u16>("timers", |key, _| match key.due().is_empty() {
        true => key.set_timer(Timer::EventTime(END)),
        false => key.emit(*key.key()),
    });
    emit(&ended, "ended", &sink);
    let job = context.start().unwrap();
    for batch in 1..=3 {
        clock.advance(INTERVAL_MS);
        assert!(wait_for_batch(&job, batch));
    }
    let rows = sorted(&sink.rows());
    let of =
        |label: &str| (1..=3).map(|batch| rows[&format!("{label} {batch:04}")].replace('\n', " ")).collect();
    let of: &dyn Fn(&str) -> Vec<String> = &of;
    // No window of 10 ms that holds the last 6 ends before time does: the last time is ...615.
    assert_eq!(of("tumbling"), ["(1, 15, 1)", "", ""]);
    assert_eq!(of("late"), ["(1, 3) (2, 1)", "(3, 0)", ""]);
    assert_eq!(of("session"), ["(1, 10, 1)", "(1, 0, 1) (2, 0, 1) (3, 0, 1)", ""]);
    assert_eq!(of("ended"), ["", "1 2", "3"]);
    for name in ["tumbling", "session", "timers"] {
        assert_eq!(job.keys_in_state(name).unwrap(), 0, "`{name}` left something behind");
    }
}

/// The batch is as if it had not begun: no watermark, no window has seen any of it.
#[test]
fn a_panic_of_time_of_stops_the_job_and_harms_nothing() {
    let (dir, clock, sink) = (tempfile::tempdir().unwrap(), ManualClock::at(0), Sink::default());
    let at = |times: [i64; 2]| times.map(|time| (1u16, time * 1_000)).to_vec();
    let chunks = Arc::new(vec![at([10, 15]), at([90, 91]), at([16, 120])]);
    let start = |panics: bool| {
        let context = StreamingContext::builder("panics")
            .store(dir.path().join("store"))
            .clock(clock.clone())
            .stop_on_signals(false)
            .build()
            .unwrap();
        let source = ScriptedSource { chunks: chunks.clone(), ranges: 2, flaky: false };
        let events = context.replayable_stream("left", source).with_event_time(
            Watermarks::bounded("left", ms(5)),
            move |(_, value)| {
                assert!(!(panics && time_of(*value) == 91), "no time");
                time_of(*value)
            },
        );
        emit(&events.watermarks(), "watermark", &sink);
        let windows = events.window("w", EventWindows::tumbling(ms(20))).count();
        emit(&windows.results().map(|window| (window.end_ms, window.value)), "windows", &sink);
        emit(&windows.late().map(|(time_ms, _)| time_ms), "late", &sink);
        context.start().unwrap()
    };
    let job = start(true);
    clock.advance(INTERVAL_MS);
    assert!(wait_for_batch(&job, 1));
    clock.advance(INTERVAL_MS);
    let error = job.await_termination().expect_err("the job stops").chain();
    for part in ["batch 2", "watermark of", "partition 1", "no time"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    let job = start(false);
    clock.advance(INTERVAL_MS);
    assert!(wait_for_batch(&job, 3));
    let rows = sink.rows();
    let of = |label: &str| -> Vec<String> {
        (1..=3).map(|batch| rows[&format!("{label} {batch:04}")].clone()).collect()
    };
    assert_eq!(of("watermark"), ["10", "86", "115"]);
    assert_eq!(of("windows"), ["", "(20, 2)", "(100, 2)"]);
    assert_eq!(of("late"), ["", "", "16"]);
}

/// Only every second batch has event times, with the records of three.
#[test]
fn event_time_of_windows_of_batches_moves_when_they_slide() {
    let (dir, clock, sink) = (tempfile::tempdir().unwrap(), ManualClock::at(0), Sink::default());
    let at = |time: i64| vec![(1u16, time * 1_000)];
    let chunks = Arc::new(vec![at(10), at(30), at(31), at(50), at(90), vec![], vec![], vec![]]);
    let start = || {
        let context = StreamingContext::builder("slides")
            .store(dir.path().join("store"))
            .clock(clock.clone())
            .stop_on_signals(false)
            .build()
            .unwrap();
        let source = ScriptedSource { chunks: chunks.clone(), ranges: 1, flaky: false };
        let batches = context.replayable_stream("left", source).window("batches", ms(3_000), ms(2_000));
        let watermarks = |name: &str| Watermarks::bounded(name, ms(0)).idle_after(ms(2_000));
        let events = batches.with_event_time(watermarks("all"), |(_, value)| time_of(*value));
        let early = batches.filter(|(_, value)| time_of(*value) < 40);
        let early = early.with_event_time(watermarks("early"), |(_, value)| time_of(*value));
        let windows = early.union("both", &events).window("w", EventWindows::tumbling(ms(20))).count();
        emit(&windows.results().map(|window| (window.end_ms, window.value)), "windows", &sink);
        emit(&windows.late().map(|(time_ms, _)| time_ms), "late", &sink);
        emit(&early.union("met", &events).watermarks(), "met", &sink);
        context.start().unwrap()
    };
    for batch in 1..=8 {
        let job = start();
        clock.advance(INTERVAL_MS);
        assert!(wait_for_batch(&job, batch));
    }
    let rows = sink.rows();
    let of = |label: &str| -> Vec<String> {
        let of = |batch| {
            rows.get(&format!("{label} {batch:04}")).map_or("none".to_owned(), |rows| rows.replace('\n', " "))
        };
        (1..=8).map(of).collect()
    };
    // The records of batches 1 and 2, of 2 to 4, of 4 to 6, of 6 to 8; in the third the early ones are idle.
    assert_eq!(of("met"), ["none", "30", "none", "31", "none", "90", "none", "90"]);
    assert_eq!(of("windows"), ["none", "(20, 2)", "none", "", "none", "(40, 6) (60, 2)", "none", ""]);
    assert_eq!(of("late"), ["none", "", "none", "", "none", "", "none", ""]);
}
