//! What is stored, as JSON for people: keys by the name of their encoding, values by the schema that the store has of
//! them.

mod key;
pub(crate) mod schema;
pub(crate) mod value;

pub(crate) use key::KeyShape;
pub(crate) use value::ValueType;

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
