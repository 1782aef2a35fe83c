//! Buffers of blocks, used again once their batch is over: fresh memory costs about as much as the copy into it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::extents::{BLOCK_DATA_AT, block_buffer};

/// So many are kept for later, some 32 MiB: the blocks of a batch of a tenth of a second at the speed of a disk.
const KEPT_MAX: usize = 32;

/// A larger one is not kept.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// Buffers for blocks, shared by who fills them and who is done with them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockBuffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl BlockBuffers {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty block buffer with room for its headers and this much.
    pub(crate) fn take(&self, capacity: usize) -> Vec<u8> {
        match self.lock().pop() {
            Some(mut buffer) => {
                buffer.clear();
                buffer.resize(BLOCK_DATA_AT, 0);
                buffer.reserve(capacity);
                buffer
            }
            None => block_buffer(capacity),
        }
    }

    /// Takes a block back, unless somebody still has records in it.
    pub(crate) fn give_back(&self, frame: Arc<Vec<u8>>) {
        let Ok(buffer) = Arc::try_unwrap(frame) else { return };
        let mut kept = self.lock();
        if kept.len() < KEPT_MAX && buffer.capacity() <= KEPT_BYTES_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_only_when_nobody_reads_it() {
        let buffers = BlockBuffers::default();
        let mut buffer = buffers.take(100);
        buffer.extend_from_slice(b"records");
        let (memory, frame) = (buffer.as_ptr(), Arc::new(buffer));
        let reads = frame.clone();
        buffers.give_back(frame);
        assert!(buffers.lock().is_empty());
        buffers.give_back(reads);
        let again = buffers.take(100);
        assert_eq!((again.as_ptr(), &again[..]), (memory, &[0; BLOCK_DATA_AT][..]));
    }

    #[test]
    fn few_and_small_ones_are_kept() {
        let buffers = BlockBuffers::default();
        buffers.give_back(Arc::new(block_buffer(KEPT_BYTES_MAX)));
        assert!(buffers.lock().is_empty());
        (0..2 * KEPT_MAX).for_each(|_| buffers.give_back(Arc::new(block_buffer(9))));
        assert_eq!(buffers.lock().len(), KEPT_MAX);
    }
}
