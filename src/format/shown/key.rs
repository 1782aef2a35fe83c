//! Keys by the name of their encoding.

use serde_json::Value;

use crate::format::shown::value::{bytes_json, signed_json, unsigned_json};
use crate::record::{Key, outermost};

/// How deep options and tuples are followed.
const DEPTH_MAX: usize = 16;

/// A known encoding of keys.
#[derive(Debug, PartialEq)]
pub(crate) enum KeyShape {
    Utf8,
    Bytes,
    /// The number of bytes.
    Unsigned(usize),
    Signed(usize),
    Bool,
    Char,
    Unit,
    Option(Box<KeyShape>),
    Tuple(Vec<KeyShape>),
}

impl KeyShape {
    /// `None` for the name of an encoding that is a job's own.
    pub(crate) fn of(key_type: &str) -> Option<Self> {
        Self::parse(key_type, DEPTH_MAX)
    }

    fn parse(name: &str, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        if let Some(inner) = name.strip_prefix("option<").and_then(|rest| rest.strip_suffix('>')) {
            return Some(KeyShape::Option(Box::new(Self::parse(inner, depth)?)));
        }
        Some(match name {
            "utf8" => KeyShape::Utf8,
            "bytes" => KeyShape::Bytes,
            "bool" => KeyShape::Bool,
            "char" => KeyShape::Char,
            "()" => KeyShape::Unit,
            "u8" => KeyShape::Unsigned(1),
            "u16" => KeyShape::Unsigned(2),
            "u32" => KeyShape::Unsigned(4),
            "u64" => KeyShape::Unsigned(8),
            "u128" => KeyShape::Unsigned(16),
            "i8" => KeyShape::Signed(1),
            "i16" => KeyShape::Signed(2),
            "i32" => KeyShape::Signed(4),
            "i64" => KeyShape::Signed(8),
            "i128" => KeyShape::Signed(16),
            tuple => {
                let parts = tuple.strip_prefix('(')?.strip_suffix(')')?;
                let shapes: Option<Vec<_>> =
                    outermost(parts).into_iter().map(|part| Self::parse(part, depth)).collect();
                KeyShape::Tuple(shapes?)
            }
        })
    }

    /// The key as JSON; `None` when the bytes are no key of this encoding.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            KeyShape::Utf8 => Value::String(std::str::from_utf8(bytes).ok()?.to_owned()),
            KeyShape::Bytes => bytes_json(bytes),
            KeyShape::Bool => Value::Bool(bool::decode_key(bytes)?),
            KeyShape::Char => Value::String(char::decode_key(bytes)?.to_string()),
            KeyShape::Unit => <()>::decode_key(bytes).map(|()| Value::Null)?,
            KeyShape::Unsigned(width) => unsigned_json(big_endian(bytes, *width)?),
            KeyShape::Signed(width) => signed_json(unflipped(big_endian(bytes, *width)?, *width)),
            KeyShape::Option(inner) => match bytes.split_first()? {
                (0, []) => Value::Null,
                (1, key) => Value::Array(vec![inner.decode(key)?]),
                _ => return None,
            },
            KeyShape::Tuple(parts) => {
                let mut rest = bytes;
                let values: Option<Vec<Value>> = parts
                    .iter()
                    .map(|part| {
                        let (length, tail) = rest.split_first_chunk::<4>()?;
                        let (key, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
                        rest = tail;
                        part.decode(key)
                    })
                    .collect();
                let values = values.filter(|_| rest.is_empty())?;
                Value::Array(values)
            }
        })
    }
}

fn big_endian(bytes: &[u8], width: usize) -> Option<u128> {
    (bytes.len() == width).then(|| bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// The signed number of this many bytes whose sign bit was flipped.
fn unflipped(number: u128, width: usize) -> i128 {
    let shift = 128 - 8 * width as u32;
    ((number ^ (1 << (8 * width - 1))) << shift) as i128 >> shift
}
