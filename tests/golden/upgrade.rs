//! Upgrades of jobs that begin with the stores of released versions.

use std::collections::BTreeMap;

use millpond::{ErrorKind, Key};

use crate::jobs::{Job, KILLED_AFTER, clock_at, context, upgraded};
use crate::{Golden, tool};

/// How often each number came up to a batch: zero twice in each, the others once in six.
fn counts(last: u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for batch in 1..=last {
        *counts.entry(0).or_insert(0) += 2;
        *counts.entry(batch % 6 + 1).or_insert(0) += 1;
    }
    counts
}

fn rows<S: millpond::Data>(job: &Job, operator: &str) -> BTreeMap<u64, S> {
    let mut rows = BTreeMap::new();
    let state = job.running.state::<u64, S>(operator).unwrap();
    state.for_each(|key, value| drop(rows.insert(key, value))).unwrap();
    rows
}

#[test]
fn state_of_released_versions_is_renamed_migrated_and_dropped() {
    assert_eq!(u64::key_type(), "u64");
    for golden in Golden::named("upgrade") {
        let before = tool::snapshot(golden.root());
        let (clock, files) = (clock_at(KILLED_AFTER), golden.root());
        let asked = context(golden.root(), &clock, false);
        drop(upgraded(&asked, files));
        let plan = asked.plan().unwrap().to_string();
        drop(asked);
        for line in [
            "- `dropped`",
            "> `renamed`: goes on with 7 keys of `renamed before`",
            "> `migrated`",
            "> `timed`",
        ] {
            assert!(plan.contains(line), "{line}: {plan}");
        }
        assert!(before == tool::snapshot(golden.root()), "a plan changes nothing");

        let refused = Job::start(golden.root(), upgraded, KILLED_AFTER, false).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Incompatible, "{refused}");
        assert!(refused.to_string().contains("dropped"), "{refused}");

        let job = Job::start(golden.root(), upgraded, KILLED_AFTER, true).unwrap();
        job.run(KILLED_AFTER + 1);
        let after = counts(KILLED_AFTER + 1);
        assert_eq!(rows::<u64>(&job, "renamed"), after);
        let migrated = rows::<(u64, String)>(&job, "migrated");
        let totals: BTreeMap<u64, u64> = migrated.iter().map(|(key, state)| (*key, state.0)).collect();
        assert_eq!(totals, after);
        // Batch 11 and what it counted came after the newest checkpoint.
        let checkpointed = counts(KILLED_AFTER - 1);
        for (key, (_, text)) in &migrated {
            assert_eq!(*text, format!("{} before", checkpointed[key]));
        }
        let timed = rows::<Vec<u32>>(&job, "timed");
        assert_eq!(timed[&0], [20, 1, 1, 1, 1]);
        job.stop();
    }
}
