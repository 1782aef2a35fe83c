//! What an operator with timers keeps of a key: its timers, then its state.
//!
//! ```text
//!  | timers u32, top bit: there is a state | timer domain u8, time u64 | next timer ... | archive of the state |
//! ```

use crate::dstream::keyed::{Timer, TimerDomain};
use crate::error::{Error, Result};
use crate::record::{Data, DataBuffer};

const HAS_STATE: u32 = 1 << 31;
const TIMER_BYTES: usize = 9;

/// The parts of a stored row.
pub(crate) struct RowParts<'a> {
    timers: &'a [u8],
    state: Option<&'a [u8]>,
}

impl<'a> RowParts<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Result<Self> {
        Self::split(bytes)
            .ok_or_else(|| Error::corrupt(format!("{} bytes are no state of a key with timers", bytes.len())))
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let head = u32::from_le_bytes(*head);
        let length = ((head & !HAS_STATE) as usize).checked_mul(TIMER_BYTES)?;
        let (timers, state) = rest.split_at_checked(length)?;
        let known = timers.chunks_exact(TIMER_BYTES).all(|timer| TimerDomain::of(timer[0]).is_some());
        let has_state = head & HAS_STATE != 0;
        (known && (has_state || state.is_empty()))
            .then_some(RowParts { timers, state: has_state.then_some(state) })
    }

    /// The timers in order.
    pub(crate) fn timers(&self) -> impl Iterator<Item = Timer> {
        self.timers.chunks_exact(TIMER_BYTES).filter_map(|timer| {
            let (domain, time) = timer.split_first()?;
            let time_ms = u64::from_le_bytes(time.try_into().ok()?);
            Some(Timer { domain: TimerDomain::of(*domain)?, time_ms })
        })
    }

    /// The archive of the state.
    pub(crate) fn archive(&self) -> Option<&'a [u8]> {
        self.state
    }

    pub(crate) fn state<S: Data>(&self, buffer: &mut DataBuffer) -> Result<Option<S>> {
        self.state.map(|bytes| S::decode(bytes, buffer)).transpose()
    }
}

/// Writes a row; `None` when there is nothing to keep.
pub(crate) fn encode<'r, S: Data>(
    timers: &[Timer],
    state: Option<&S>,
    buffer: &mut DataBuffer,
    row: &'r mut Vec<u8>,
) -> Result<Option<&'r [u8]>> {
    if let Some(state) = state {
        state.encode(buffer)?;
    }
    Ok(assemble(timers, state.map(|_| buffer.as_bytes()), row))
}

/// Writes a row of an archived state; `None` when there is nothing to keep.
pub(crate) fn assemble<'r>(
    timers: &[Timer],
    archive: Option<&[u8]>,
    row: &'r mut Vec<u8>,
) -> Option<&'r [u8]> {
    row.clear();
    if timers.is_empty() && archive.is_none() {
        return None;
    }
    let head = timers.len() as u32 | if archive.is_some() { HAS_STATE } else { 0 };
    row.extend_from_slice(&head.to_le_bytes());
    for timer in timers {
        row.push(timer.domain as u8);
        row.extend_from_slice(&timer.time_ms.to_le_bytes());
    }
    row.extend_from_slice(archive.unwrap_or_default());
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_survive_the_round_trip(times in prop::collection::vec((0u8..3, any::<u64>()), 0..5), state in any::<Option<String>>()) {
            let timers: Vec<_> = times.iter().map(|(domain, time_ms)| Timer { domain: TimerDomain::of(*domain).unwrap(), time_ms: *time_ms }).collect();
            let (mut buffer, mut row) = (DataBuffer::default(), Vec::new());
            match encode(&timers, state.as_ref(), &mut buffer, &mut row).unwrap() {
                None => prop_assert!(timers.is_empty() && state.is_none()),
                Some(row) => {
                    let parts = RowParts::of(row).unwrap();
                    prop_assert_eq!(parts.timers().collect::<Vec<_>>(), timers);
                    prop_assert_eq!(parts.state::<String>(&mut DataBuffer::default()).unwrap(), state);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            if let Ok(parts) = RowParts::of(&bytes) {
                let _ = parts.timers().count();
                let _ = parts.state::<String>(&mut DataBuffer::default());
            }
        }
    }
}
