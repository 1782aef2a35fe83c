//! The way for records of the job itself into the receive log.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::BlockEncoding;
use crate::record::{Data, DataBuffer, append_record};
use crate::source::receiver::{Inlet, split_block};
use crate::store::extents::block_buffer;

/// So many blocks are handed to the log before it is waited for.
const BLOCKS_IN_FLIGHT: usize = 16;

/// A stream that the job fills itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Feed {
    /// Set once the job is started.
    inlet: Arc<Mutex<Option<Inlet>>>,
}

impl Feed {
    pub(crate) fn connect(&self, inlet: Inlet) {
        *self.inlet.lock().unwrap_or_else(PoisonError::into_inner) = Some(inlet);
    }

    /// Whether something of it is durable that no batch has yet.
    pub(crate) fn is_waiting(&self) -> bool {
        let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner).clone();
        inlet.is_some_and(|inlet| inlet.log.has_pending(inlet.stream))
    }

    /// Stores records and returns when all are durable. Not to be called from asynchronous code.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] before the job was started and after it stopped, or what the log failed with.
    pub(crate) fn store<T: Data>(&self, records: impl IntoIterator<Item = T>) -> Result<()> {
        let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inlet = inlet.ok_or_else(|| Error::new(ErrorKind::Stopped, "the job is not started"))?;
        let mut buffer = DataBuffer::default();
        let (mut frame, mut count, mut blocks) = (block_buffer(0), 0, 0);
        let header = |count| inlet.header(BlockEncoding::Records, count);
        for record in records {
            let end = frame.len();
            append_record(&record, &mut frame, &mut buffer)?;
            if count > 0 && frame.len() > inlet.block_bytes {
                blocks += 1;
                let next = split_block(&mut frame, end, block_buffer(0));
                let full = std::mem::replace(&mut frame, next);
                inlet.log.append_unbuffered(header(count), full, blocks % BLOCKS_IN_FLIGHT == 0)?;
                count = 0;
            }
            count += 1;
        }
        if count == 0 { Ok(()) } else { inlet.log.append_unbuffered(header(count), frame, true) }
    }
}
