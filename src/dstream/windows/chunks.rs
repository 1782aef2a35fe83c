//! Records laid out as bytes, in chunks: what windows and remembered batches hold.

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::for_each_record;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{Rdd, Record};
use crate::record::{Data, DataBuffer, Key, Schema};
use crate::state::{KnownSchema, StateType};

/// A chunk is closed once it has this many bytes; only a record that is longer makes it much longer.
const CHUNK_BYTES: usize = 64 << 10;

/// The key of a chunk in the state: the time of its batch, the partition it came from, and its place in it.
pub(super) type ChunkKey = (u64, u32, u32);

/// How records are turned into bytes and back.
pub(super) struct Codec<T> {
    encode: fn(&T, &mut DataBuffer, &mut Vec<u8>) -> Result<()>,
    decode: fn(&[u8], &mut DataBuffer) -> Result<T>,
    /// What a checkpoint says about the chunks.
    pub(super) state_type: StateType,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        Codec { encode: self.encode, decode: self.decode, state_type: self.state_type.clone() }
    }
}

/// Chunks of records whose archives are those of `V`.
fn chunks_of<V: Data>(record: &str, schema: &str) -> StateType {
    StateType {
        key: ChunkKey::key_type(),
        value: format!("chunk of {record}"),
        value_width: V::archived_width() as u32,
        schema: KnownSchema::of_text(schema),
    }
}

impl<T: Data> Codec<T> {
    /// Each record as its archive.
    pub(super) fn of_data() -> Self {
        Codec {
            encode: |record, buffer, out| record.encode_to(out, buffer),
            decode: T::decode,
            state_type: chunks_of::<T>(
                std::any::type_name::<T>(),
                &format!("chunk<{}>", Schema::of::<T>().text()),
            ),
        }
    }
}

impl<K: Key, V: Data> Codec<(K, V)> {
    /// Each pair as the length of its key, the key's bytes and the value's archive.
    pub(super) fn of_pairs() -> Self {
        Codec {
            encode: |(key, value), buffer, out| {
                let at = out.len();
                out.extend_from_slice(&[0; 4]);
                key.encode_key(out);
                write_length(out, at)?;
                value.encode_to(out, buffer)
            },
            decode: |bytes, buffer| {
                let (key, value) = pair_of(bytes)?;
                Ok((decode_key(key)?, V::decode(value, buffer)?))
            },
            state_type: chunks_of::<V>(
                &format!("({}, {})", K::key_type(), std::any::type_name::<V>()),
                &format!("pairs<{:?},{}>", K::key_type(), Schema::of::<V>().text()),
            ),
        }
    }
}

/// The key's bytes and the value's archive of a pair.
pub(super) fn pair_of(record: &[u8]) -> Result<(&[u8], &[u8])> {
    let split = record.split_first_chunk::<4>();
    let parts = split.and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
    parts.ok_or_else(|| Error::corrupt("the key of a pair runs over the end of its record"))
}

/// Writes the length of what follows the four bytes at `at` into them.
fn write_length(out: &mut [u8], at: usize) -> Result<()> {
    let length = u32::try_from(out.len() - at - 4)
        .map_err(|_| Error::new(ErrorKind::UserCode, "a record takes more than 4 GiB"))?;
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

impl<T: Record> Codec<T> {
    /// Computes an RDD and returns its records as chunks, by partition.
    pub(super) fn chunks(&self, rdd: &Rdd<T>, action: &str) -> Result<Vec<Vec<Vec<u8>>>> {
        rdd.run(action, |_, compute| {
            let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
            let mut buffer = DataBuffer::default();
            compute(&mut |records| {
                for record in records.drain(..) {
                    let at = chunk.len();
                    chunk.extend_from_slice(&[0; 4]);
                    (self.encode)(&record, &mut buffer, &mut chunk)?;
                    write_length(&mut chunk, at)?;
                    if chunk.len() >= CHUNK_BYTES {
                        chunks.push(std::mem::take(&mut chunk));
                    }
                }
                Ok(())
            })?;
            if !chunk.is_empty() {
                chunks.push(chunk);
            }
            Ok(chunks)
        })
    }

    /// Reads the records of a chunk.
    pub(super) fn read(&self, chunk: &[u8], out: &mut Vec<T>) -> Result<()> {
        let mut buffer = DataBuffer::default();
        for_each_record(chunk, |record| {
            out.push((self.decode)(record, &mut buffer)?);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Executor;
    use proptest::prelude::*;
    use std::sync::Arc;

    type Pair = (String, Vec<u64>);

    fn chunks_of_pairs(codec: &Codec<Pair>, pairs: Vec<Pair>) -> Vec<Vec<u8>> {
        let executor = Arc::new(Executor::new(1, 1).unwrap());
        let rdd = Rdd::of_collection(&executor, vec![Arc::new(pairs)]);
        codec.chunks(&rdd, "test").unwrap().remove(0)
    }

    proptest! {
        #[test]
        fn pairs_survive_and_damage_is_an_error(
            pairs in prop::collection::vec(any::<Pair>(), 0..20),
            flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            for codec in [Codec::of_pairs(), Codec::<Pair>::of_data()] {
                let chunks = chunks_of_pairs(&codec, pairs.clone());
                let mut read = Vec::new();
                for chunk in &chunks {
                    codec.read(chunk, &mut read).unwrap();
                }
                prop_assert_eq!(&read, &pairs);
                if let Some(chunk) = chunks.first() {
                    let mut damaged = chunk[..cut.index(chunk.len())].to_vec();
                    for (at, byte) in flips.iter().filter(|_| !chunk.is_empty()) {
                        if !damaged.is_empty() {
                            let at = at.index(damaged.len());
                            damaged[at] ^= byte;
                        }
                    }
                    drop(codec.read(&damaged, &mut Vec::new()));
                }
            }
        }
    }

    #[test]
    fn chunks_are_bounded() {
        let pairs: Vec<Pair> = (0..20_000).map(|n| (n.to_string(), vec![n; 3])).collect();
        let chunks = chunks_of_pairs(&Codec::of_pairs(), pairs);
        assert!(chunks.len() > 5);
        assert!(chunks.iter().all(|chunk| chunk.len() < CHUNK_BYTES + 200));
    }
}
