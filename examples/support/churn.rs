//! A job whose keys all die: visitors come, look at a few pages and are never seen again. Whatever it keeps must follow
//! those who are there, not those who ever were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond::{
    Accumulator, Emitter, EventWindows, Offer, Positions, RangeReader, ReplayableSource, RunningContext,
    SourceRange, StateSpec, StreamingContext, Watermarks,
};

/// Records of one visitor.
pub const HITS: u64 = 4;

/// Of these, so many come in a later batch.
const LATER: u64 = 2;

/// A look at a page.
#[derive(Clone, Debug)]
pub struct Hit {
    time_ms: u64,
    visitor: u64,
    is_last: bool,
}

/// So many new visitors in each batch until `stop` says from which number on there are none.
#[derive(Clone)]
pub struct Visitors {
    pub per_batch: u64,
    pub interval_ms: u64,
    /// Counted from 0.
    pub stop: Arc<AtomicU64>,
}

impl Visitors {
    /// The hits of a group of visitors that came at the same time: number `group`, and of the group before.
    fn hits(&self, group: u64, out: &mut dyn FnMut(Hit)) {
        let time_ms = group * self.interval_ms;
        let of = |group: u64| group * self.per_batch..(group + 1) * self.per_batch;
        for hit in 0..HITS - LATER {
            of(group).for_each(|visitor| out(Hit { time_ms: time_ms + hit, visitor, is_last: false }));
        }
        let Some(before) = group.checked_sub(1) else { return };
        for hit in 1..=LATER {
            of(before)
                .for_each(|visitor| out(Hit { time_ms: time_ms + hit, visitor, is_last: hit == LATER }));
        }
    }
}

impl ReplayableSource for Visitors {
    type Item = Hit;

    fn poll(&mut self, positions: &Positions, _: u64, _: u64) -> millpond::Result<Offer> {
        let start = positions.get("groups")?.map_or(0, |position| position.offset);
        let mut offer = Offer::default();
        if start < self.stop.load(Ordering::SeqCst) {
            let partition = "groups".into();
            offer.ranges.push(SourceRange { partition, start, end: start + 1, size: 0, stamp: 0 });
        }
        Ok(offer)
    }

    fn reader(&self) -> Arc<dyn RangeReader<Hit>> {
        Arc::new(self.clone())
    }
}

impl RangeReader<Hit> for Visitors {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, Hit>) -> millpond::Result<u64> {
        let mut read = 0;
        for group in range.start..range.end {
            self.hits(group, &mut |hit| {
                out.emit(hit);
                read += 1;
            });
        }
        Ok(read)
    }
}

/// What the job has counted, by accumulators: each is part of its checkpoints.
pub struct Counted {
    pub hits: Accumulator<u64>,
    pub left: Accumulator<u64>,
    pub in_sessions: Accumulator<u64>,
    pub sessions: Accumulator<u64>,
    pub late: Accumulator<u64>,
}

/// Every kind of state that keys can leave: by removal, by time to live, out of a window, with the end of a session.
pub fn describe(context: &StreamingContext, visitors: Visitors) -> Counted {
    let interval = Duration::from_millis(visitors.interval_ms);
    let counter = |name: &str| context.accumulator(name, 0u64, |a, b| a + b);
    let counted = Counted {
        hits: counter("hits"),
        left: counter("left"),
        in_sessions: counter("in sessions"),
        sessions: counter("sessions"),
        late: counter("late"),
    };
    let hits = context.replayable_stream("visitors", visitors);
    let by_visitor = hits.map(|hit| (hit.visitor, hit.is_last)).cache();
    let _here = by_visitor.update_state_by_key("here", |new: &[bool], count: Option<u64>| {
        (!new.contains(&true)).then(|| count.unwrap_or(0) + new.len() as u64)
    });
    let recent = StateSpec::named("recent").time_to_live(interval * 3);
    let _recent = by_visitor.update_state_by_key(recent, |new: &[bool], count: Option<u64>| {
        Some(count.unwrap_or(0) + new.len() as u64)
    });
    let in_window = by_visitor.map(|(visitor, _)| (visitor, 1u64)).reduce_by_key_and_window_with_inverse(
        "in window",
        interval * 4,
        interval,
        |a, b| a + b,
        |all, gone| all - gone,
    );
    // Without an output nothing would be computed.
    in_window.for_each_rdd(|rdd, _| Ok(rdd.count().map(drop)?));
    let sessions = hits
        .with_event_time(Watermarks::bounded("visits", interval), |hit| hit.time_ms)
        .map(|hit| (hit.visitor, ()))
        .window("sessions", EventWindows::session(interval * 2))
        .count();
    let (all, left) = (counted.hits.clone(), counted.left.clone());
    by_visitor.for_each_rdd(move |rdd, _| {
        let rows = rdd.collect()?;
        all.add(rows.len() as u64);
        left.add(rows.iter().filter(|(_, is_last)| *is_last).count() as u64);
        Ok(())
    });
    let (told, hits_told) = (counted.sessions.clone(), counted.in_sessions.clone());
    sessions.results().for_each_rdd(move |rdd, _| {
        let rows = rdd.collect()?;
        told.add(rows.len() as u64);
        hits_told.add(rows.iter().map(|session| session.value).sum());
        Ok(())
    });
    let late = counted.late.clone();
    sessions.late().for_each_rdd(move |rdd, _| {
        late.add(rdd.count()?);
        Ok(())
    });
    counted
}

impl Counted {
    /// Whether every hit was counted once, by what the job has in state: `Err` says what is wrong. Without a batch in
    /// progress.
    pub fn check(&self, job: &RunningContext, per_batch: u64) -> Result<(), String> {
        let (hits, left) = (self.hits.value(), self.left.value());
        let here = job.keys_in_state("here").map_err(|error| error.chain())?;
        // Each group but the newest has left.
        let groups = left / per_batch + u64::from(hits > 0);
        let expected = groups * per_batch * (HITS - LATER) + groups.saturating_sub(1) * per_batch * LATER;
        if hits != expected || here != per_batch.min(hits) {
            return Err(format!("{groups} groups of visitors: {hits} hits, not {expected}; {here} are here"));
        }
        let view = job.state::<u64, u64>("here").map_err(|error| error.chain())?;
        let mut wrong = 0;
        let count = |_, hits: u64| wrong += u64::from(hits != HITS - LATER);
        view.for_each(count).map_err(|error| error.chain())?;
        let (sessions, in_sessions, late) =
            (self.sessions.value(), self.in_sessions.value(), self.late.value());
        if wrong > 0 || late > 0 || in_sessions != sessions * HITS || sessions > left {
            return Err(format!(
                "{wrong} visitors have other hits, {late} were late, {sessions} sessions had {in_sessions} hits"
            ));
        }
        // The watermark is a gap and a delay behind.
        if sessions + 8 * per_batch < left {
            return Err(format!("{left} visitors left, and only {sessions} sessions are over"));
        }
        Ok(())
    }
}
