//! Records that can leave the process: archived with rkyv, validated when they come back.

use std::fmt;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::api::serialize_using;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Error as RkyvError, Fallible};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::sharing::Share;
use rkyv::ser::{Allocator, Positional, Serializer, Writer};
use rkyv::util::AlignedVec;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Deserialize, Place, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::record::described::Described;
use crate::record::text::Text;

/// A reusable buffer for [`Data::encode`] and [`Data::decode`].
#[derive(Default)]
pub struct DataBuffer {
    encoded: Vec<u8>,
    /// An archive is read from an aligned copy: stored bytes rest at any offset.
    aligned: AlignedVec,
    /// What archiving needs on its way, from the first record on.
    scratch: Option<Arena>,
}

/// Writes an archive behind what is there already. Within it places count from its begin, so that its bytes are the
/// same wherever it is.
#[derive(Debug)]
pub struct ArchiveWriter {
    bytes: Vec<u8>,
    begin: usize,
}

impl Positional for ArchiveWriter {
    #[inline]
    fn pos(&self) -> usize {
        self.bytes.len() - self.begin
    }
}

impl<E> Writer<E> for ArchiveWriter {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl DataBuffer {
    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }
}

impl fmt::Debug for DataBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataBuffer({} bytes)", self.encoded.len())
    }
}

/// What may be stored or cross a shuffle.
///
/// It is implemented for every `Clone + Send + Sync` type that is [`Described`] and that rkyv can archive, validate and
/// deserialize: numbers, strings, tuples, options, vectors, ordered maps, and your own types:
///
/// ```
/// #[millpond::data]
/// #[derive(Clone)]
/// struct Reading {
///     sensor: String,
///     celsius: f64,
/// }
///
/// fn takes_data<T: millpond::Data>() {}
/// takes_data::<Reading>();
/// ```
///
/// The bytes are rkyv 0.8's, little-endian, aligned, with 32-bit relative pointers.
pub trait Data: Described + Clone + Send + Sync + 'static {
    /// Replaces the buffer's content by this record's archive.
    ///
    /// # Errors
    /// [`ErrorKind::UserCode`] when the type's own serialisation fails.
    fn encode(&self, buffer: &mut DataBuffer) -> Result<()>;

    /// Appends this record's archive to `out`; on an error `out` is as it was.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_to(&self, out: &mut Vec<u8>, buffer: &mut DataBuffer) -> Result<()>;

    /// Validates `bytes` and reads the record back.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the bytes are no valid archive of this type.
    fn decode(bytes: &[u8], buffer: &mut DataBuffer) -> Result<Self>;

    /// The width of the archived root, which a checkpoint records to notice a changed type.
    fn archived_width() -> usize;
}

impl<T> Data for T
where
    T: Clone + Send + Sync + 'static + Described + Archive,
    T: for<'a> Serialize<HighSerializer<ArchiveWriter, ArenaHandle<'a>, RkyvError>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>,
    T::Archived: Deserialize<T, HighDeserializer<RkyvError>>,
{
    #[inline]
    fn encode(&self, buffer: &mut DataBuffer) -> Result<()> {
        let mut encoded = std::mem::take(&mut buffer.encoded);
        encoded.clear();
        let outcome = self.encode_to(&mut encoded, buffer);
        buffer.encoded = encoded;
        outcome
    }

    #[inline]
    fn encode_to(&self, out: &mut Vec<u8>, buffer: &mut DataBuffer) -> Result<()> {
        if self.with_plain_archive(|archive| out.extend_from_slice(archive)) {
            return Ok(());
        }
        let begin = out.len();
        let scratch = buffer.scratch.get_or_insert_default().acquire();
        let writer = ArchiveWriter { bytes: std::mem::take(out), begin };
        let mut serializer = Serializer::new(writer, scratch, Share::new());
        let archived = serialize_using::<_, RkyvError>(self, &mut serializer);
        *out = serializer.into_writer().bytes;
        if let Err(cause) = archived {
            out.truncate(begin);
            return Err(Error::new(ErrorKind::UserCode, "a record could not be archived").caused_by(cause));
        }
        Ok(())
    }

    #[inline]
    fn decode(bytes: &[u8], buffer: &mut DataBuffer) -> Result<Self> {
        if let Some(plain) = Self::from_plain_archive(bytes) {
            return Ok(plain);
        }
        buffer.aligned.clear();
        buffer.aligned.extend_from_slice(bytes);
        rkyv::from_bytes(&buffer.aligned).map_err(|cause: RkyvError| {
            let name = std::any::type_name::<T>();
            Error::corrupt(format!("{} bytes are no valid archive of {name}", bytes.len())).caused_by(cause)
        })
    }

    fn archived_width() -> usize {
        size_of::<T::Archived>()
    }
}

impl Archive for Text {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(self.as_bytes(), resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for Text {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::<u8>::serialize_from_slice(self.as_bytes(), serializer)
    }
}

impl<D: Fallible + ?Sized> Deserialize<Text, D> for ArchivedVec<u8> {
    fn deserialize(&self, _: &mut D) -> Result<Text, D::Error> {
        Ok(Text::from(self.as_slice()))
    }
}

/// Appends a record as blocks and files have it: its length in four bytes, and its archive.
///
/// # Errors
/// [`ErrorKind::UserCode`] when it cannot be archived, or takes more than 4 GiB; then `out` is as it was.
pub(crate) fn append_record<T: Data>(record: &T, out: &mut Vec<u8>, buffer: &mut DataBuffer) -> Result<()> {
    append_encoded(out, |out| record.encode_to(out, buffer))
}

/// As [`append_record`], of bytes that `encode` appends.
pub(crate) fn append_encoded(
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    let encoded = encode(out).and_then(|()| {
        let bytes = out.len() - begin - 4;
        u32::try_from(bytes).map_err(|_| {
            let message = format!("a record of {bytes} bytes is over the limit of 4 GiB");
            Error::new(ErrorKind::UserCode, message)
        })
    });
    match encoded {
        Ok(length) => {
            out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(begin);
            Err(error)
        }
    }
}

// The format promises these widths; a build whose features changed rkyv's layout must not compile.
const _: () = assert!(size_of::<rkyv::Archived<u64>>() == 8 && align_of::<rkyv::Archived<u64>>() == 8);
const _: () = assert!(size_of::<rkyv::Archived<usize>>() == 4);
const _: () = assert!(size_of::<rkyv::Archived<String>>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn round_trip<T: Data + PartialEq + std::fmt::Debug>(value: T) {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        let bytes = buffer.as_bytes().to_vec();
        assert_eq!(T::decode(&bytes, &mut buffer).unwrap(), value);
        for cut in 0..bytes.len() {
            // Any prefix is refused or (for types that happen to fit) decodes without a panic.
            drop(T::decode(&bytes[..cut], &mut buffer));
        }
    }

    #[test]
    fn data_survives_the_round_trip() {
        round_trip(17u64);
        round_trip((Text::from("short"), 3u32));
        round_trip(Text::from("a text that is too long to be kept inline"));
        round_trip(vec![Some("x".to_owned()), None]);
        round_trip(BTreeMap::from([(1u8, vec![1.5f64]), (2, vec![])]));
    }

    fn archives_alike<T>(value: T)
    where
        T: Data + PartialEq + std::fmt::Debug,
        T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
    {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        assert_eq!(rkyv::to_bytes::<RkyvError>(&value).unwrap().as_slice(), buffer.as_bytes());
        assert!(value.with_plain_archive(|_| ()));
        round_trip(value);
    }

    #[test]
    fn numbers_are_archived_as_by_the_archiver() {
        archives_alike(0x81u8);
        archives_alike(0x8182u16);
        archives_alike(u32::MAX - 7);
        archives_alike(u64::MAX / 5);
        archives_alike(u128::MAX / 3);
        archives_alike(-2i8);
        archives_alike(-3i16);
        archives_alike(i32::MIN + 1);
        archives_alike(-5i64);
        archives_alike(i128::MIN / 3);
        archives_alike(1.5f32);
        archives_alike(-0.1f64);
    }

    #[test]
    fn archives_are_little_endian() {
        let mut buffer = DataBuffer::default();
        0x0102u64.encode(&mut buffer).unwrap();
        assert_eq!(buffer.as_bytes(), [2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
