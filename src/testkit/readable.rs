//! Stored keys and values as text, as the inspector shows them.

use crate::format::shown::{ValueType, hex};
use crate::record::known_key_text;

/// The key that these bytes are, by the name of its encoding; a type of a job's own as hexadecimal digits.
pub(super) fn key_text(key_type: &str, bytes: &[u8]) -> String {
    known_key_text(key_type, bytes).unwrap_or_else(|| unknown(key_type, bytes))
}

/// The value that these bytes are, as JSON by its schema; what has no schema that can be read as hexadecimal digits
/// with the type's name.
pub(super) fn value_text(value_type: &str, schema: &str, bytes: &[u8]) -> String {
    let shown = ValueType::of(value_type, schema).and_then(|known| known.decode(bytes));
    shown.map_or_else(|| unknown(value_type, bytes), |value| value.to_string())
}

fn unknown(name: &str, bytes: &[u8]) -> String {
    format!("0x{} ({name})", hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Data, DataBuffer, Schema};
    use proptest::prelude::*;

    fn shown<T: Data>(value: &T) -> String {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        value_text("T", Schema::of::<T>().text(), buffer.as_bytes())
    }

    proptest! {
        #[test]
        fn values_are_shown_and_no_bytes_panic(value in any::<(i32, String)>(), bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(shown(&value), serde_json::json!([value.0, value.1]).to_string());
            for name in ["u64", "i8", "f32", "bool", "shop::Order", "(utf8,option<(u8,char)>)"] {
                drop((value_text(name, name, &bytes), key_text(name, &bytes)));
            }
        }
    }

    #[test]
    fn what_is_not_known_is_shown_with_its_type() {
        assert_eq!(key_text("shop::OrderId", &[1, 255]), "0x01ff (shop::OrderId)");
        assert_eq!(value_text("Vec<u8>", "", &[7]), "0x07 (Vec<u8>)");
        assert_eq!(value_text("bool", "bool", &[7]), "0x07 (bool)");
    }
}
