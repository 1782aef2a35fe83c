//! Stored keys and values as text: the one place that knows how.

use crate::record::Key;

/// The key that these bytes are, by the name of its encoding; a type of a job's own as hexadecimal digits.
pub(super) fn key_text(key_type: &str, bytes: &[u8]) -> String {
    known_key(key_type, bytes).unwrap_or_else(|| format!("{} ({key_type})", hex(bytes)))
}

/// The value that these bytes are, where its type is a number; others as hexadecimal digits with the type's name.
pub(super) fn value_text(value_type: &str, bytes: &[u8]) -> String {
    known_number(value_type, bytes).unwrap_or_else(|| format!("{} ({value_type})", hex(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn shown<K: Key + std::fmt::Debug>(bytes: &[u8]) -> Option<String> {
    K::decode_key(bytes).map(|key| format!("{key:?}"))
}

fn known_key(key_type: &str, bytes: &[u8]) -> Option<String> {
    match key_type {
        "utf8" => shown::<String>(bytes),
        "bytes" => Some(format!("\"{}\"", bytes.escape_ascii())),
        "u8" => shown::<u8>(bytes),
        "u16" => shown::<u16>(bytes),
        "u32" => shown::<u32>(bytes),
        "u64" => shown::<u64>(bytes),
        "u128" => shown::<u128>(bytes),
        "i8" => shown::<i8>(bytes),
        "i16" => shown::<i16>(bytes),
        "i32" => shown::<i32>(bytes),
        "i64" => shown::<i64>(bytes),
        "i128" => shown::<i128>(bytes),
        "bool" => shown::<bool>(bytes),
        "char" => shown::<char>(bytes),
        "()" => shown::<()>(bytes),
        other => {
            if let Some(inner) = other.strip_prefix("option<").and_then(|rest| rest.strip_suffix('>')) {
                return match bytes.split_first()? {
                    (0, []) => Some("None".to_owned()),
                    (1, key) => known_key(inner, key).map(|key| format!("Some({key})")),
                    _ => None,
                };
            }
            known_tuple(other.strip_prefix('(')?.strip_suffix(')')?, bytes)
        }
    }
}

fn known_tuple(parts: &str, mut bytes: &[u8]) -> Option<String> {
    let mut shown = Vec::new();
    for part in split_outermost(parts) {
        let (length, tail) = bytes.split_first_chunk::<4>()?;
        let (key, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        shown.push(known_key(part, key)?);
        bytes = tail;
    }
    bytes.is_empty().then(|| format!("({})", shown.join(", ")))
}

/// The parts of `a,(b,c),option<d>` between the outermost commas.
fn split_outermost(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'<' => depth += 1,
            b')' | b'>' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
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
        fn keys_are_shown_as_rust_shows_them(key in any::<(String, i64, Option<u16>, bool)>()) {
            let mut bytes = Vec::new();
            key.encode_key(&mut bytes);
            let key_type = <(String, i64, Option<u16>, bool)>::key_type();
            prop_assert_eq!(key_text(&key_type, &bytes), format!("{key:?}"));
        }

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
