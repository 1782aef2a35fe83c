//! Stored keys and values as text: the one place that knows how.

use crate::record::known_key_text;

/// The key that these bytes are, by the name of its encoding; a type of a job's own as hexadecimal digits.
pub(super) fn key_text(key_type: &str, bytes: &[u8]) -> String {
    known_key_text(key_type, bytes).unwrap_or_else(|| format!("{} ({key_type})", hex(bytes)))
}

/// The value that these bytes are, where its type is a number; others as hexadecimal digits with the type's name.
pub(super) fn value_text(value_type: &str, bytes: &[u8]) -> String {
    known_number(value_type, bytes).unwrap_or_else(|| format!("{} ({value_type})", hex(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Archived numbers are little-endian.
fn known_number(value_type: &str, bytes: &[u8]) -> Option<String> {
    Some(match value_type {
        "u8" | "u16" | "u32" | "u64" | "u128" => {
            let mut wide = [0; 16];
            wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
            u128::from_le_bytes(wide).to_string()
        }
        "i8" | "i16" | "i32" | "i64" | "i128" => {
            let sign = if bytes.last()? & 0x80 == 0 { 0 } else { 0xff };
            let mut wide = [sign; 16];
            wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
            i128::from_le_bytes(wide).to_string()
        }
        "f32" => f32::from_le_bytes(bytes.try_into().ok()?).to_string(),
        "f64" => f64::from_le_bytes(bytes.try_into().ok()?).to_string(),
        "bool" => (*bytes.first()? != 0).to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_shown_and_no_bytes_panic(number in any::<i32>(), bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(value_text("i32", &number.to_le_bytes()), number.to_string());
            for name in ["u64", "i8", "f32", "bool", "shop::Order", "(utf8,option<(u8,char)>)"] {
                drop((value_text(name, &bytes), key_text(name, &bytes)));
            }
        }
    }

    #[test]
    fn what_is_not_known_is_shown_with_its_type() {
        assert_eq!(key_text("shop::OrderId", &[1, 255]), "0x01ff (shop::OrderId)");
        assert_eq!(value_text("Vec<u8>", &[7]), "0x07 (Vec<u8>)");
    }
}
