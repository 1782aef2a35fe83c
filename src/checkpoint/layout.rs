//! Laying out key groups one after the other, or several at a time where the cores have nothing else to do.

use std::sync::mpsc::sync_channel;
use std::thread::Builder;

use crate::checkpoint::writer::writer_is_gone;
use crate::config::KEY_GROUPS;
use crate::error::{Error, Result};
use crate::store::segments::EncodedGroup;

/// Calls `write` with what `lay_out` makes of each key group, in order. With more threads than one these lay out while the
/// caller's writes: each every so manieth group, and no more than one ahead, so that memory stays small.
///
/// # Errors
/// The first of either. Nothing is written after it.
pub(super) fn for_each_group(
    threads: usize,
    lay_out: impl Fn(usize) -> Result<Option<EncodedGroup>> + Sync,
    mut write: impl FnMut(usize, &EncodedGroup) -> Result<()>,
) -> Result<()> {
    let mut write = |(group, laid): (usize, Result<Option<EncodedGroup>>)| match laid? {
        Some(encoded) => write(group, &encoded),
        None => Ok(()),
    };
    if threads <= 1 {
        return (0..KEY_GROUPS).map(|group| (group, lay_out(group))).try_for_each(write);
    }
    std::thread::scope(|scope| {
        let mut queues = Vec::with_capacity(threads);
        for first in 0..threads {
            let (ahead, queue) = sync_channel(1);
            let lay_out = &lay_out;
            let work = move || {
                let mut groups = (first..KEY_GROUPS).step_by(threads);
                // Who does not take a group has failed, and wants no more.
                let _ = groups.try_for_each(|group| ahead.send(lay_out(group)));
            };
            let thread = Builder::new().name("millpond-layout".to_owned()).spawn_scoped(scope, work);
            thread.map_err(|cause| Error::io("start a thread", cause))?;
            queues.push(queue);
        }
        let in_turn = (0..KEY_GROUPS).zip(queues.iter().cycle());
        let laid = |(group, queue): (usize, &std::sync::mpsc::Receiver<_>)| {
            (group, queue.recv().unwrap_or_else(|_| Err(writer_is_gone())))
        };
        in_turn.map(laid).try_for_each(&mut write)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::segments::{GroupEncoder, LiveSize};

    fn laid_out(group: usize) -> Result<Option<EncodedGroup>> {
        let encoder = GroupEncoder::new(group, true, LiveSize::default());
        if group % 3 == 1 { Ok(None) } else { encoder.finish().map(Some) }
    }

    #[test]
    fn groups_come_in_order_whoever_lays_them_out() {
        for threads in [1, 2, 3, 7] {
            let mut seen = Vec::new();
            let note = |group, encoded: &EncodedGroup| {
                assert_eq!(encoded.group(), group);
                seen.push(group);
                Ok(())
            };
            for_each_group(threads, laid_out, note).unwrap();
            assert_eq!(seen, (0..KEY_GROUPS).filter(|group| group % 3 != 1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn after_an_error_of_either_nothing_is_written() {
        let failure = || Error::new(ErrorKind::Io, "as it should");
        for threads in [1, 2, 5] {
            let mut last = 0;
            let note = |group, _: &EncodedGroup| {
                last = group;
                Ok(())
            };
            let fails = |group| if group == 100 { Err(failure()) } else { laid_out(group) };
            assert_eq!(for_each_group(threads, fails, note).unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(last, 99);
            let fails = |group, _: &EncodedGroup| if group == 50 { Err(failure()) } else { Ok(()) };
            assert_eq!(for_each_group(threads, laid_out, fails).unwrap_err().kind(), ErrorKind::Io);
        }
    }
}
