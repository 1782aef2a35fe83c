//! Keys as bytes: one canonical encoding, one fixed hash, and the key group that follows from it.

use xxhash_rust::xxh3::xxh3_64;

use crate::config::KEY_GROUPS;
use crate::record::text::Text;

/// The XXH3-64 hash (seed 0) of a key's bytes: computed once and carried with the record.
pub(crate) type KeyHash = u64;

/// The hash of a key's bytes. Part of the stored format.
#[inline]
pub(crate) fn hash_of(key: &[u8]) -> KeyHash {
    xxh3_64(key)
}

/// The key group of a hash: bits 48 to 55. Part of the stored format. Tables of a batch index by the low
/// bits and tag by the top seven, so that the bits of the group stay out of both.
#[inline]
pub(crate) fn group_of(hash: KeyHash) -> usize {
    (hash >> 48) as usize % KEY_GROUPS
}

/// The bits of a hash that tell the keys of one key group apart, in the same order and at the top.
#[inline]
pub(crate) fn without_group(hash: KeyHash) -> u64 {
    hash & 0xff << 56 | (hash & ((1 << 48) - 1)) << 8
}

/// A type that records can be grouped, joined and kept as state by.
///
/// # Contract
/// Two keys are the same key exactly when their bytes are equal, `decode_key` undoes `encode_key`, and
/// neither changes between versions of the job: the bytes are what checkpoints hold.
///
/// ```
/// use millpond::Key;
///
/// let mut bytes = Vec::new();
/// ("north".to_string(), 7u32).encode_key(&mut bytes);
/// assert_eq!(<(String, u32)>::decode_key(&bytes), Some(("north".to_string(), 7)));
/// ```
pub trait Key: Clone + Send + Sync + 'static {
    /// The name of the encoding, recorded in checkpoints: a start refuses state kept under another.
    fn key_type() -> String;

    /// Appends the key's bytes.
    fn encode_key(&self, out: &mut Vec<u8>);

    /// Reads a key back; `None` when the bytes are no key of this type.
    fn decode_key(bytes: &[u8]) -> Option<Self>;

    /// Calls `with` on the key's bytes; types that are their own bytes do it without a copy.
    #[inline]
    fn with_key_bytes<R>(&self, scratch: &mut Vec<u8>, with: impl FnOnce(&[u8]) -> R) -> R {
        scratch.clear();
        self.encode_key(scratch);
        with(scratch)
    }

    /// A key of at most 16 bytes as two little-endian integers, filled up with zeros, and its length, where that is known
    /// without a look at its length first. `None` says nothing about a key.
    #[doc(hidden)]
    #[inline(always)]
    fn head(&self) -> Option<([u64; 2], usize)> {
        None
    }
}

macro_rules! byte_keys {
    ($($type:ty, $name:literal, |$bytes:ident| $decode:expr, $head:expr;)*) => { $(
        /// The bytes themselves.
        impl Key for $type {
            fn key_type() -> String {
                $name.to_owned()
            }

            fn encode_key(&self, out: &mut Vec<u8>) {
                let bytes: &[u8] = self.as_ref();
                out.extend_from_slice(bytes);
            }

            fn decode_key($bytes: &[u8]) -> Option<Self> {
                $decode
            }

            #[inline]
            fn with_key_bytes<R>(&self, _: &mut Vec<u8>, with: impl FnOnce(&[u8]) -> R) -> R {
                with(self.as_ref())
            }

            #[inline(always)]
            fn head(&self) -> Option<([u64; 2], usize)> {
                $head(self)
            }
        }
    )* };
}

byte_keys! {
    Text, "bytes", |bytes| Some(Text::from(bytes)), Text::head;
    Vec<u8>, "bytes", |bytes| Some(bytes.to_vec()), |_| None;
    String, "utf8", |bytes| String::from_utf8(bytes.to_vec()).ok(), |_| None;
}

impl AsRef<[u8]> for Text {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

macro_rules! number_keys {
    ($($type:ty as $unsigned:ty, $name:literal, flip $flip:expr;)*) => { $(
        /// Big-endian, with the sign bit flipped for signed types, so that bytes order as numbers do.
        impl Key for $type {
            fn key_type() -> String {
                $name.to_owned()
            }

            #[inline]
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&((*self as $unsigned) ^ $flip).to_be_bytes());
            }

            #[inline(always)]
            fn head(&self) -> Option<([u64; 2], usize)> {
                let bytes = ((*self as $unsigned) ^ $flip).to_be_bytes();
                let mut head = [0; 16];
                head[..bytes.len()].copy_from_slice(&bytes);
                let head = u128::from_le_bytes(head);
                Some(([head as u64, (head >> 64) as u64], bytes.len()))
            }

            fn decode_key(bytes: &[u8]) -> Option<Self> {
                Some((<$unsigned>::from_be_bytes(bytes.try_into().ok()?) ^ $flip) as $type)
            }
        }
    )* };
}

number_keys! {
    u8 as u8, "u8", flip 0;
    u16 as u16, "u16", flip 0;
    u32 as u32, "u32", flip 0;
    u64 as u64, "u64", flip 0;
    u128 as u128, "u128", flip 0;
    i8 as u8, "i8", flip 1 << 7;
    i16 as u16, "i16", flip 1 << 15;
    i32 as u32, "i32", flip 1 << 31;
    i64 as u64, "i64", flip 1 << 63;
    i128 as u128, "i128", flip 1 << 127;
}

impl Key for bool {
    fn key_type() -> String {
        "bool".to_owned()
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_key(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl Key for char {
    fn key_type() -> String {
        "char".to_owned()
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode_key(out);
    }

    fn decode_key(bytes: &[u8]) -> Option<Self> {
        char::from_u32(u32::decode_key(bytes)?)
    }
}

/// The one key of everything: no bytes.
impl Key for () {
    fn key_type() -> String {
        "()".to_owned()
    }

    fn encode_key(&self, _: &mut Vec<u8>) {}

    fn decode_key(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// One byte, 0 or 1, then the key if there is one.
impl<K: Key> Key for Option<K> {
    fn key_type() -> String {
        format!("option<{}>", K::key_type())
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(key) = self {
            key.encode_key(out);
        }
    }

    fn decode_key(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, []) => Some(None),
            (1, key) => Some(Some(K::decode_key(key)?)),
            _ => None,
        }
    }
}

macro_rules! tuple_keys {
    ($($($part:ident . $index:tt),+;)*) => { $(
        /// Each part as a little-endian u32 length and its bytes.
        impl<$($part: Key),+> Key for ($($part,)+) {
            fn key_type() -> String {
                let parts = [$($part::key_type()),+];
                format!("({})", parts.join(","))
            }

            fn encode_key(&self, out: &mut Vec<u8>) {
                $(
                    let at = out.len();
                    out.extend_from_slice(&[0; 4]);
                    self.$index.encode_key(out);
                    let length = (out.len() - at - 4) as u32;
                    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
                )+
            }

            fn decode_key(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                let key = ($($part::decode_key(take_part(&mut rest)?)?,)+);
                rest.is_empty().then_some(key)
            }
        }
    )* };
}

tuple_keys! {
    A.0, B.1;
    A.0, B.1, C.2;
    A.0, B.1, C.2, D.3;
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = tail;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key's bytes from its head, behind which are zeros.
    fn head_bytes<K: Key>(key: &K) -> Option<Vec<u8>> {
        let ([low, high], length) = key.head()?;
        let bytes = (u128::from(low) | u128::from(high) << 64).to_le_bytes();
        assert_eq!(bytes[length..], [0; 16][length..]);
        Some(bytes[..length].to_vec())
    }

    fn bytes_of<K: Key>(key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn keys_survive_the_round_trip_and_never_collide(
            a in any::<(String, i64, Option<u16>, bool)>(),
            b in any::<(String, i64, Option<u16>, bool)>(),
        ) {
            prop_assert_eq!(<(String, i64, Option<u16>, bool)>::decode_key(&bytes_of(&a)), Some(a.clone()));
            prop_assert_eq!(a == b, bytes_of(&a) == bytes_of(&b));
            prop_assert_eq!(a.1.cmp(&b.1), bytes_of(&a.1).cmp(&bytes_of(&b.1)));
        }

        /// Texts of all lengths around the longest head, cut from a block, so that bytes of others follow.
        #[test]
        fn a_head_is_the_key_and_zeros(text in "[a-z]{40}", length in 0..30usize, a in any::<u32>(), b in any::<i128>()) {
            let text = Text::slice_of(&std::sync::Arc::new(text.into_bytes()), 0, length);
            prop_assert_eq!(head_bytes(&text), (length <= 16).then(|| bytes_of(&text)));
            prop_assert_eq!(head_bytes(&a), Some(bytes_of(&a)));
            prop_assert_eq!(head_bytes(&b), Some(bytes_of(&b)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = <(String, i64)>::decode_key(&bytes);
            let _ = Option::<char>::decode_key(&bytes);
        }
    }

    /// Hash and group are part of the format: these values may never change.
    #[test]
    fn the_hash_and_the_group_are_fixed() {
        assert_eq!(hash_of(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(group_of(0x0012_3456_789a_bcde), 0x12);
        assert_eq!(group_of(hash_of(b"the")), (hash_of(b"the") >> 48) as usize & 0xff);
    }
}
