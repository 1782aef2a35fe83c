//! A store that a job may not read or write, in whole or in a part, from the start or from some time on. It is refused or
//! ends with an error that says so, nothing is taken for damage, and once it may again the totals are exact.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/child.rs"]
mod child;
#[path = "support/driven.rs"]
mod driven;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use child::{child_dir, run_child_through};
use driven::{builder, tick_or_end};
use millpond::{Error, ErrorKind, ManualClock, Queue, RunningContext, StopMode};

/// Root may do everything, unless it gives that up.
const WITHOUT_PRIVILEGES: &str = "if [ \"$(id -u)\" = 0 ]; then \
     exec setpriv --bounding-set=-dac_override,-dac_read_search \"$0\" \"$@\"; fi";

type Pair = (u64, u64);

fn start(dir: &Path, clock: &Arc<ManualClock>) -> millpond::Result<(RunningContext, Queue<Pair>)> {
    let context = builder(dir, clock).checkpoint_every_batches(2).build()?;
    let (pairs, queue) = context.queue_stream::<Pair>("pairs");
    let _sums = pairs.update_state_by_key("sums", |new: &[u64], sum: Option<u64>| {
        Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
    });
    Ok((context.start()?, queue))
}

fn totals(job: &RunningContext) -> BTreeMap<u64, u64> {
    let mut totals = BTreeMap::new();
    job.state::<u64, u64>("sums").unwrap().for_each(|key, sum| totals.extend([(key, sum)])).unwrap();
    totals
}

/// What was pushed, under a key for each push: those that were acknowledged, and those that were not.
#[derive(Debug, Default)]
struct Pushed {
    taken: Vec<u64>,
    refused: Vec<u64>,
}

impl Pushed {
    fn push(&mut self, queue: &Queue<Pair>) {
        let key = (self.taken.len() + self.refused.len()) as u64;
        match queue.push([(key, key + 1)]) {
            Ok(()) => self.taken.push(key),
            Err(_) => self.refused.push(key),
        }
    }

    /// Runs a batch; `false` when the job ended instead.
    fn push_and_tick(&mut self, job: &RunningContext, queue: &Queue<Pair>, clock: &ManualClock) -> bool {
        self.push(queue);
        tick_or_end(job, clock)
    }

    /// Whoever was refused does not know whether it is there all the same.
    fn are_in(&self, totals: &BTreeMap<u64, u64>) -> bool {
        let may_be = |(key, sum): (&u64, &u64)| {
            *sum == key + 1 && (self.taken.contains(key) || self.refused.contains(key))
        };
        self.taken.iter().all(|key| totals.contains_key(key)) && totals.iter().all(may_be)
    }
}

/// Everything in a store, and the store.
fn all_paths(dir: &Path) -> Vec<PathBuf> {
    let mut paths = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { paths.extend(all_paths(&path)) } else { paths.push(path) }
    }
    paths
}

fn says_so(error: &Error) -> bool {
    error.kind() == ErrorKind::Io && error.chain().contains("Permission denied")
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    BeforeTheStart,
    WhileItRuns,
}

/// Returns whether the job was refused or ended.
fn forbid(dir: &Path, at: usize, mode: u32, when: When) -> Option<bool> {
    let (clock, mut pushed) = (ManualClock::at(0), Pushed::default());
    let (job, queue) = start(dir, &clock).unwrap();
    (0..5).for_each(|_| assert!(pushed.push_and_tick(&job, &queue, &clock)));
    pushed.push(&queue);
    if when == When::BeforeTheStart {
        job.stop(StopMode::Now).unwrap();
    }
    let paths = all_paths(&dir.join("store"));
    let path = paths.get(at)?;
    // What a job that runs has written aside may be in its place by now.
    let Ok(before) = path.metadata() else { return Some(false) };
    if mode != 0 && before.is_file() || fs::set_permissions(path, Permissions::from_mode(mode)).is_err() {
        return Some(false);
    }
    let what = format!("{} of mode {mode:03o} {when:?}", path.display());
    let started = match when {
        When::BeforeTheStart => {
            drop((job, queue));
            start(dir, &clock)
        }
        When::WhileItRuns => Ok((job, queue)),
    };
    let failed = match started {
        Err(error) => Some(error),
        Ok((job, queue)) => {
            assert!(job.recovery().walked_back.is_empty() && job.recovery().damage.is_empty(), "{what}");
            let _ = (0..5).all(|_| pushed.push_and_tick(&job, &queue, &clock));
            job.stop(StopMode::Graceful).err()
        }
    };
    assert!(failed.as_ref().is_none_or(says_so), "{what}: {failed:?}");
    if let Err(error) = fs::set_permissions(path, before.permissions()) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{what}");
    }
    let (job, queue) = start(dir, &clock).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let report = job.recovery();
    assert!(report.walked_back.is_empty() && report.quarantined.is_empty(), "{what}: {report:?}");
    assert!(report.lost_plans.is_empty() && report.damage.is_empty(), "{what}: {report:?}");
    pushed.push(&queue);
    // The first may be one that was missed, and begun before the push.
    (0..2).for_each(|_| assert!(tick_or_end(&job, &clock), "{what}"));
    assert!(pushed.are_in(&totals(&job)), "{what}: {pushed:?} {:?}", totals(&job));
    job.stop(StopMode::Graceful).unwrap();
    Some(failed.is_some())
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_job_that_may_not() {
    let Some(dir) = child_dir() else { return };
    for when in [When::BeforeTheStart, When::WhileItRuns] {
        let (mut failed, mut tried) = (0, 0);
        for mode in [0o000, 0o500] {
            for at in 0.. {
                let dir = dir.join(format!("{when:?} {mode} {at}"));
                fs::create_dir(&dir).unwrap();
                let Some(has_failed) = forbid(&dir, at, mode, when) else { break };
                tried += 1;
                failed += u64::from(has_failed);
            }
        }
        println!("{when:?}: {failed} of {tried} ended the job");
        assert!(failed > 2, "{when:?}: {failed} of {tried} ended the job");
    }
}

#[test]
fn what_a_job_may_not_is_no_damage_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    println!("{}", run_child_through("a_job_that_may_not", WITHOUT_PRIVILEGES, dir.path()));
}
