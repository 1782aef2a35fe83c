//! Records of any kind from a TCP server, cut out of its bytes by a function.

use tokio::io::AsyncReadExt;

use crate::error::Result;
use crate::format::block::for_each_record;
use crate::record::{Data, DataBuffer, append_encoded, append_record};
use crate::source::socket::connect;
use crate::source::{BlockStore, Receiver, ReceiverError};

/// What a read makes room for at first.
const READ_BYTES: usize = 64 << 10;

/// Cuts records off the front of bytes: pushes them and returns how many bytes they took, 0 for "not yet".
pub(crate) trait Decode<T>:
    Fn(&[u8], &mut Vec<T>) -> Result<usize, ReceiverError> + Send + Sync + 'static
{
}

impl<T, F: Fn(&[u8], &mut Vec<T>) -> Result<usize, ReceiverError> + Send + Sync + 'static> Decode<T> for F {}

/// Connects to `address` and stores what `decode` makes of what it sends.
pub(crate) struct DecodedSocketReceiver<F> {
    pub(crate) address: String,
    /// A record that is not complete within so many bytes is none.
    pub(crate) record_bytes_max: usize,
    pub(crate) decode: F,
}

impl<F> DecodedSocketReceiver<F> {
    /// Takes what is complete off `bytes`. What was decoded before an error counts.
    fn take<T>(&self, bytes: &mut Vec<u8>, records: &mut Vec<T>) -> Result<(), ReceiverError>
    where
        F: Decode<T>,
    {
        let mut at = 0;
        let outcome = loop {
            match (self.decode)(&bytes[at..], records) {
                Ok(0) => break Ok(()),
                Ok(taken) if taken <= bytes.len() - at => at += taken,
                Ok(taken) => break Err(format!("{taken} of {} bytes were decoded", bytes.len() - at).into()),
                Err(error) => break Err(error),
            }
        };
        bytes.drain(..at);
        if outcome.is_ok() && bytes.len() > self.record_bytes_max {
            return Err(format!("there is no record in {} bytes", bytes.len()).into());
        }
        outcome
    }
}

/// Binds the record type, which a receiver names once.
pub(crate) struct Decoded<T, F> {
    pub(crate) receiver: DecodedSocketReceiver<F>,
    pub(crate) records: std::marker::PhantomData<fn() -> T>,
}

impl<T: Data, F: Decode<T>> Receiver for Decoded<T, F> {
    type Item = T;

    /// One connection. Its end is an error: the supervisor connects again.
    async fn receive(&mut self, blocks: BlockStore<T>) -> Result<(), ReceiverError> {
        let receiver = &self.receiver;
        let mut socket = connect(&receiver.address).await?;
        let mut bytes = Vec::with_capacity(READ_BYTES);
        loop {
            let ended = socket.read_buf(&mut bytes).await? == 0;
            // What has come meanwhile is part of the same block.
            while !ended && bytes.len() < receiver.record_bytes_max {
                if !matches!(socket.try_read_buf(&mut bytes), Ok(more) if more > 0) {
                    break;
                }
            }
            let mut records = Vec::new();
            let outcome = receiver.take(&mut bytes, &mut records);
            blocks.store(records).await?;
            outcome?;
            if ended && !bytes.is_empty() {
                let bytes = bytes.len();
                tracing::warn!(
                    address = receiver.address,
                    bytes,
                    "the connection ended within a record, which is dropped"
                );
            }
            if ended {
                return Err("the server closed the connection".into());
            }
        }
    }
}

/// Lays records out as a frame for [`raw_socket_stream`](crate::StreamingContext::raw_socket_stream): a `u32`
/// length, little-endian, then each record as such a length and its archive.
///
/// ```
/// let frame = millpond::encode_raw_frame(&[1u64, 2])?;
/// assert_eq!(frame.len(), 4 + 2 * (4 + 8));
/// # Ok::<(), millpond::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::UserCode`](crate::ErrorKind::UserCode) when a record cannot be archived, or the frame would be over 4 GiB.
pub fn encode_raw_frame<T: Data>(records: &[T]) -> Result<Vec<u8>> {
    let (mut frame, mut buffer) = (Vec::new(), DataBuffer::default());
    let mut append = |records: &mut Vec<u8>, record| append_record(record, records, &mut buffer);
    append_encoded(&mut frame, |frame| records.iter().try_for_each(|record| append(frame, record)))?;
    Ok(frame)
}

/// Decodes the frame that begins `bytes`, if it is complete.
pub(crate) fn decode_raw_frame<T: Data>(
    bytes: &[u8],
    bytes_max: usize,
    records: &mut Vec<T>,
) -> Result<usize, ReceiverError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(0) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > bytes_max {
        return Err(format!("a frame of {length} bytes is over the limit of {bytes_max}").into());
    }
    let Some(frame) = rest.get(..length) else { return Ok(0) };
    let (before, mut buffer) = (records.len(), DataBuffer::default());
    let decoded = for_each_record(frame, |bytes| {
        records.push(T::decode(bytes, &mut buffer)?);
        Ok(())
    });
    if let Err(error) = decoded {
        // A frame counts as a whole or not at all.
        records.truncate(before);
        return Err(error.into());
    }
    Ok(4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_being_cut_anywhere(
            frames in prop::collection::vec(prop::collection::vec(".{0,9}", 0..4), 0..6),
            cuts in prop::collection::vec(1usize..40, 0..30),
        ) {
            let sent: Vec<u8> = frames.iter().flat_map(|frame| encode_raw_frame(frame).unwrap()).collect();
            let decode = |bytes: &[u8], records: &mut Vec<String>| decode_raw_frame(bytes, 1_000, records);
            let receiver = DecodedSocketReceiver { address: String::new(), record_bytes_max: 10_000, decode };
            let (mut bytes, mut records, mut rest) = (Vec::new(), Vec::new(), &sent[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (some, more) = rest.split_at(cut.min(rest.len()));
                bytes.extend_from_slice(some);
                rest = more;
                receiver.take(&mut bytes, &mut records).unwrap();
            }
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(records, frames.concat());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            drop(decode_raw_frame::<(String, u8)>(&bytes, 100, &mut Vec::new()));
        }
    }

    #[test]
    fn a_record_that_never_ends_is_refused_and_what_came_before_an_error_counts() {
        let decode = |bytes: &[u8], records: &mut Vec<u8>| match bytes.first() {
            Some(b'!') => Err("no".into()),
            Some(digit) if digit.is_ascii_digit() => {
                records.push(*digit);
                Ok(1)
            }
            _ => Ok(0),
        };
        let receiver = DecodedSocketReceiver { address: String::new(), record_bytes_max: 3, decode };
        let take = |bytes: &[u8]| {
            let (mut bytes, mut records) = (bytes.to_vec(), Vec::new());
            let error = receiver.take(&mut bytes, &mut records).err().map(|error| error.to_string());
            (records, error)
        };
        assert_eq!(take(b"12a"), (b"12".to_vec(), None));
        assert_eq!(take(b"12!"), (b"12".to_vec(), Some("no".to_owned())));
        assert_eq!(take(b"1abcd"), (b"1".to_vec(), Some("there is no record in 4 bytes".to_owned())));
    }
}
