//! Session windows: they begin with a record, and end when none came for the gap.

use crate::dstream::event_time::event_timer;
use crate::dstream::event_time::folds::Fold;
use crate::dstream::event_time::window::WindowOutput;
use crate::dstream::keyed::{KeyVisit, KeyedOperator, TimerDomain};
use crate::record::{Data, Key, Nested, WindowResult};

/// The time of the first and the last record, the revision of the next result, whether the session was emitted as
/// it is, and what its values came to.
type SessionRow<P> = (u64, u64, u32, bool, Nested<P>);

pub(super) struct SessionOperator<F> {
    pub(super) gap_ms: u64,
    pub(super) lateness_ms: u64,
    pub(super) fold: F,
}

struct Session<P> {
    first_ms: u64,
    last_ms: u64,
    next_revision: u32,
    is_emitted: bool,
    part: P,
}

impl<P> Session<P> {
    fn of((first_ms, last_ms, next_revision, is_emitted, part): SessionRow<P>) -> Self {
        Session { first_ms, last_ms, next_revision, is_emitted, part: part.0 }
    }

    fn into_row(self) -> SessionRow<P> {
        (self.first_ms, self.last_ms, self.next_revision, self.is_emitted, Nested(self.part))
    }
}

/// Sessions and records that are less than the gap apart.
struct Cluster<P> {
    first_ms: u64,
    last_ms: u64,
    sessions: Vec<Session<P>>,
    /// By their place among the values.
    records: Vec<usize>,
}

impl<F> SessionOperator<F> {
    fn is_over(&self, last_ms: u64, watermark: u64) -> bool {
        last_ms.saturating_add(self.gap_ms).saturating_add(self.lateness_ms) <= watermark
    }

    /// Puts together what is less than the gap apart, whatever order the records came in. Returns the records that
    /// are late as well.
    ///
    /// A session that only such a record would be a part of may have been there and be forgotten. So a record that
    /// is over by itself joins what others make, but does not make it longer: what was emitted and forgotten never
    /// lies within a session that comes later.
    fn clusters<P, V>(
        &self,
        sessions: Vec<Session<P>>,
        values: &[(u64, Nested<V>)],
        watermark_before: u64,
    ) -> (Vec<Cluster<P>>, Vec<usize>) {
        let (over, mut on_time): (Vec<usize>, Vec<usize>) =
            (0..values.len()).partition(|at| self.is_over(values[*at].0, watermark_before));
        on_time.sort_by_key(|at| values[*at].0);
        let sessions = sessions.into_iter().map(|session| Cluster {
            first_ms: session.first_ms,
            last_ms: session.last_ms,
            sessions: vec![session],
            records: Vec::new(),
        });
        let records = on_time.into_iter().map(|at| {
            let time_ms = values[at].0;
            Cluster { first_ms: time_ms, last_ms: time_ms, sessions: Vec::new(), records: vec![at] }
        });
        let mut parts: Vec<Cluster<P>> = sessions.chain(records).collect();
        parts.sort_by_key(|part| part.first_ms);
        let mut clusters: Vec<Cluster<P>> = Vec::new();
        for mut part in parts {
            match clusters.last_mut() {
                Some(cluster) if part.first_ms.saturating_sub(cluster.last_ms) < self.gap_ms => {
                    cluster.last_ms = cluster.last_ms.max(part.last_ms);
                    cluster.sessions.append(&mut part.sessions);
                    cluster.records.append(&mut part.records);
                }
                _ => clusters.push(part),
            }
        }
        let mut late = Vec::new();
        for at in over {
            let time_ms = values[at].0;
            let place = clusters.partition_point(|cluster| cluster.last_ms < time_ms);
            match clusters.get_mut(place) {
                Some(cluster) if cluster.first_ms <= time_ms => cluster.records.push(at),
                _ => late.push(at),
            }
        }
        (clusters, late)
    }

    /// One session of all that is in the cluster.
    fn merge<P, V: Data>(&self, cluster: Cluster<P>, values: &[(u64, Nested<V>)]) -> Option<Session<P>>
    where
        F: Fold<V, Part = P>,
    {
        let Cluster { first_ms, last_ms, sessions, mut records } = cluster;
        let next_revision = sessions.iter().map(|session| session.next_revision).max().unwrap_or(0);
        let parts = sessions.into_iter().map(|session| session.part);
        let mut part = parts.reduce(|earlier, later| self.fold.merge(earlier, later));
        records.sort_by_key(|at| (values[*at].0, *at));
        for at in records {
            let (time_ms, value) = &values[at];
            part = Some(self.fold.extend(part, *time_ms, value.0.clone()));
        }
        Some(Session { first_ms, last_ms, next_revision, is_emitted: false, part: part? })
    }
}

impl<K: Key, V: Data, F: Fold<V>>
    KeyedOperator<K, (u64, Nested<V>), Vec<SessionRow<F::Part>>, WindowOutput<K, V, F::Value>>
    for SessionOperator<F>
{
    fn visit(
        &self,
        visit: &mut KeyVisit<'_, K, Vec<SessionRow<F::Part>>>,
        values: &[(u64, Nested<V>)],
        out: &mut Vec<WindowOutput<K, V, F::Value>>,
    ) {
        let (before, now) = (visit.clock.watermark_before, visit.clock.watermark);
        let sessions = visit.state.take().unwrap_or_default().into_iter().map(Session::of).collect();
        let (clusters, late) = self.clusters(sessions, values, before);
        let mut kept: Vec<Session<F::Part>> = Vec::new();
        for mut cluster in clusters {
            if cluster.records.is_empty() {
                kept.append(&mut cluster.sessions);
            } else {
                kept.extend(self.merge(cluster, values));
            }
        }
        for at in late {
            let (time_ms, value) = &values[at];
            out.push(WindowOutput::Late(*time_ms, visit.key.clone(), value.0.clone()));
        }
        for session in &mut kept {
            let end_ms = session.last_ms.saturating_add(self.gap_ms);
            if end_ms > now || session.is_emitted {
                continue;
            }
            let (start_ms, revision) = (session.first_ms, session.next_revision);
            let value = self.fold.finish(session.part.clone());
            let result = WindowResult { key: visit.key.clone(), start_ms, end_ms, value, revision };
            out.push(WindowOutput::Result(result));
            session.next_revision = revision.saturating_add(1);
            session.is_emitted = true;
        }
        kept.retain(|session| !self.is_over(session.last_ms, now));
        visit.clear_timers(TimerDomain::Event);
        let next_time = |session: &Session<F::Part>| {
            let end_ms = session.last_ms.saturating_add(self.gap_ms);
            if session.is_emitted { end_ms.saturating_add(self.lateness_ms) } else { end_ms }
        };
        if let Some(time_ms) = kept.iter().map(next_time).min() {
            visit.set_timer(event_timer(time_ms));
        }
        visit.state = (!kept.is_empty()).then(|| kept.into_iter().map(Session::into_row).collect());
    }

    fn has_timers(&self) -> bool {
        true
    }

    fn kept(&self) -> Option<String> {
        Some(format!("{} in sessions with gaps of {} ms", self.fold.part_type(), self.gap_ms))
    }
}
