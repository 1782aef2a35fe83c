use crate::error::Result;
use crate::exec::TaskContext;
use crate::format::block::for_each_record;
use crate::rdd::ops::gather::emit_into;
use crate::rdd::{Chunks, RddNode, Record};
use crate::record::{Data, DataBuffer, append_record};

/// Turns a partition into bytes and back, for nodes that serve records of any type: each record as a
/// little-endian u32 length and its archive, as in a block.
pub(super) struct Codec<T> {
    append: fn(&T, &mut Vec<u8>, &mut DataBuffer) -> Result<()>,
    decode: fn(&[u8], &mut DataBuffer) -> Result<T>,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<T> {}

impl<T: Data> Codec<T> {
    pub(super) fn new() -> Self {
        Codec { append: append_record, decode: T::decode }
    }
}

impl<T: Record> Codec<T> {
    /// Computes a partition as bytes, a chunk of records at a time.
    pub(super) fn archive(
        self,
        input: &dyn RddNode<T>,
        task: &TaskContext,
        partition: usize,
    ) -> Result<Vec<u8>> {
        let (mut bytes, mut buffer) = (Vec::new(), DataBuffer::default());
        input.compute(task, partition, &mut |chunk| {
            for record in chunk.drain(..) {
                (self.append)(&record, &mut bytes, &mut buffer)?;
            }
            Ok(())
        })?;
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    /// Hands the records of an archived partition on.
    pub(super) fn emit(self, bytes: &[u8], out: &mut Chunks<'_, T>) -> Result<()> {
        let mut buffer = DataBuffer::default();
        emit_into(out, |out| {
            for_each_record(bytes, |record| {
                out.emit((self.decode)(record, &mut buffer)?);
                out.check()
            })
        })
    }
}
