//! Records that can leave the process: archived with rkyv, validated when they come back.

use std::fmt;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Error as RkyvError, Fallible};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Allocator, Writer};
use rkyv::util::AlignedVec;
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Deserialize, Place, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::record::described::Described;
use crate::record::text::Text;

/// A reusable, aligned buffer for [`Data::encode`] and [`Data::decode`].
#[derive(Default)]
pub struct DataBuffer {
    bytes: AlignedVec,
    /// What archiving needs on its way, from the first record on.
    scratch: Option<Arena>,
}

impl DataBuffer {
    /// The encoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for DataBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataBuffer({} bytes)", self.bytes.len())
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
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>,
    T::Archived: Deserialize<T, HighDeserializer<RkyvError>>,
{
    #[inline]
    fn encode(&self, buffer: &mut DataBuffer) -> Result<()> {
        let plain = |archive: &[u8]| {
            buffer.bytes.clear();
            buffer.bytes.extend_from_slice(archive);
        };
        if self.with_plain_archive(plain) {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut buffer.bytes);
        bytes.clear();
        let scratch = buffer.scratch.get_or_insert_default().acquire();
        buffer.bytes = to_bytes_in_with_alloc(self, bytes, scratch).map_err(|cause: RkyvError| {
            Error::new(ErrorKind::UserCode, "a record could not be archived").caused_by(cause)
        })?;
        Ok(())
    }

    #[inline]
    fn decode(bytes: &[u8], buffer: &mut DataBuffer) -> Result<Self> {
        if let Some(plain) = Self::from_plain_archive(bytes) {
            return Ok(plain);
        }
        // Stored bytes rest at any offset; an archive is read from an aligned copy.
        buffer.bytes.clear();
        buffer.bytes.extend_from_slice(bytes);
        rkyv::from_bytes(&buffer.bytes).map_err(|cause: RkyvError| {
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
