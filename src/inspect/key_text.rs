//! Keys as people type them: what a key is shown as leads back to its bytes.

use serde_json::Value;

use crate::error::Result;
use crate::format::shown::KeyShape;
use crate::inspect::view::{no_such, unhex};
use crate::record::Key;

impl KeyShape {
    /// The bytes of the key that [`decode`](Self::decode) shows as `value`.
    pub(crate) fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        match (self, value) {
            (KeyShape::Utf8 | KeyShape::Bytes, Value::String(text)) => out.extend_from_slice(text.as_bytes()),
            (KeyShape::Bytes, Value::Object(object)) => out.extend(unhex(object.get("hex")?.as_str()?)?),
            (KeyShape::Bool, Value::Bool(key)) => key.encode_key(out),
            (KeyShape::Char, Value::String(text)) => {
                let mut all = text.chars();
                all.next().filter(|_| all.next().is_none())?.encode_key(out);
            }
            (KeyShape::Unit, Value::Null) => {}
            (KeyShape::Unsigned(width), _) => {
                let key: u128 = number_text(value)?.parse().ok()?;
                let bytes = key.to_be_bytes();
                let (above, bytes) = bytes.split_at(16 - width);
                out.extend(above.iter().all(|byte| *byte == 0).then_some(bytes)?);
            }
            (KeyShape::Signed(width), _) => {
                let key: i128 = number_text(value)?.parse().ok()?;
                let shift = 128 - 8 * *width as u32;
                let fits = key << shift >> shift == key;
                let flipped = (key ^ (1 << (8 * width - 1))).to_be_bytes();
                out.extend(fits.then_some(&flipped[16 - width..])?);
            }
            (KeyShape::Option(_), Value::Null) => out.push(0),
            (KeyShape::Option(inner), Value::Array(some)) if some.len() == 1 => {
                out.push(1);
                inner.encode(&some[0], out)?;
            }
            (KeyShape::Tuple(parts), Value::Array(values)) if parts.len() == values.len() => {
                for (part, value) in parts.iter().zip(values) {
                    let mut key = Vec::new();
                    part.encode(value, &mut key)?;
                    out.extend(u32::try_from(key.len()).ok()?.to_le_bytes());
                    out.extend(key);
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// The bytes of a key as a person names it: `0x` and hexadecimal digits for any type, text as it is for text
/// and bytes, and otherwise the JSON that the key is shown as.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when it is no key of `key_type`.
pub(crate) fn parse_key(key_type: &str, text: &str) -> Result<Vec<u8>> {
    if let Some(bytes) = text.strip_prefix("0x").and_then(unhex) {
        return Ok(bytes);
    }
    let Some(shape) = KeyShape::of(key_type) else {
        let message =
            format!("keys of type `{key_type}` are the job's own: give the bytes as 0x and hex digits");
        return Err(no_such(message));
    };
    let typed = match &shape {
        KeyShape::Bytes => in_digits(text).unwrap_or_else(|| Value::String(text.to_owned())),
        KeyShape::Utf8 | KeyShape::Char => Value::String(text.to_owned()),
        KeyShape::Unsigned(16) | KeyShape::Signed(16) => Value::String(text.to_owned()),
        KeyShape::Unit if text == "()" => Value::Null,
        _ => serde_json::from_str(text).unwrap_or(Value::String(text.to_owned())),
    };
    let mut bytes = Vec::new();
    let encoded = shape.encode(&typed, &mut bytes);
    let example = "numbers as digits, tuples as [\"a\",7], options as null or [7], any as 0x and hex digits";
    encoded
        .map(|()| bytes)
        .ok_or_else(|| no_such(format!("`{text}` is no key of type {key_type}: {example}")))
}

/// What bytes are shown as that are no text. A text that looks like this names those bytes, not itself.
fn in_digits(text: &str) -> Option<Value> {
    let shown: Value = serde_json::from_str(text).ok()?;
    let digits = shown.as_object().filter(|fields| fields.len() == 1)?.get("hex")?.as_str()?;
    let is_text = std::str::from_utf8(&unhex(digits)?).is_ok();
    (!is_text).then_some(shown)
}

/// The first bytes of keys as a person names them.
///
/// # Errors
/// As [`parse_key`].
pub(super) fn parse_prefix(key_type: &str, text: &str) -> Result<Vec<u8>> {
    match (text.strip_prefix("0x").and_then(unhex), key_type) {
        (Some(bytes), _) => Ok(bytes),
        (None, "utf8" | "bytes") => Ok(text.as_bytes().to_vec()),
        (None, other) => {
            let message =
                format!("keys of type {other} have no prefix in text: give it as 0x and hex digits");
            Err(no_such(message))
        }
    }
}

fn number_text(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip<K: Key>(key: &K) {
        let (mut bytes, mut again) = (Vec::new(), Vec::new());
        key.encode_key(&mut bytes);
        let shape = KeyShape::of(&K::key_type()).unwrap();
        let shown = shape.decode(&bytes).unwrap();
        shape.encode(&shown, &mut again).unwrap();
        assert_eq!(again, bytes, "{shown}");
        let typed = shown.as_str().map_or(shown.to_string(), str::to_owned);
        // Digits are read as such, whatever they stand for.
        if !(shown.is_string() && (typed.starts_with("0x") || typed.contains("\"hex\""))) {
            assert_eq!(parse_key(&K::key_type(), &typed).unwrap(), bytes, "{typed}");
        }
    }

    proptest! {
        #[test]
        fn keys_are_shown_and_typed_the_same(
            key in any::<(String, i64, Option<u16>, bool)>(), big in any::<(i128, u128)>(), small in any::<(i8, char)>(),
            bytes in any::<Vec<u8>>(),
        ) {
            round_trip(&bytes);
            round_trip(&Some(bytes));
            round_trip(&key);
            round_trip(&key.0);
            round_trip(&key.1);
            round_trip(&key.2);
            round_trip(&big);
            round_trip(&big.0);
            round_trip(&big.1);
            round_trip(&Some(small));
            round_trip(&small.1);
            round_trip(&small.0);
        }

        #[test]
        fn bytes_and_names_of_any_kind_never_panic(name in "[a-z0-9(),<>]{0,40}", bytes in any::<Vec<u8>>()) {
            for name in [&*name, "(utf8,option<i16>)", "char", "i128"] {
                let shown = KeyShape::of(name).and_then(|shape| shape.decode(&bytes));
                drop((shown, parse_key(name, &String::from_utf8_lossy(&bytes))));
            }
        }
    }

    #[test]
    fn keys_are_shown_as_people_write_them() {
        let shown =
            |key_type: &str, bytes: &[u8]| KeyShape::of(key_type)?.decode(bytes).map(|key| key.to_string());
        assert_eq!(shown("i64", &[0x7f, 255, 255, 255, 255, 255, 255, 254]).as_deref(), Some("-2"));
        assert_eq!(shown("bytes", &[255, 0]).as_deref(), Some("{\"hex\":\"ff00\"}"));
        assert_eq!(shown("(utf8,u8)", &[1, 0, 0, 0, b'a', 1, 0, 0, 0, 7]).as_deref(), Some("[\"a\",7]"));
        assert_eq!(shown("u16", &[1]), None);
        assert_eq!(shown("shop::OrderId", &[1]), None);
        assert_eq!(parse_key("u16", "258").unwrap(), [1, 2]);
        assert_eq!(parse_key("bytes", "{\"hex\":\"ff00\"}").unwrap(), [255, 0]);
        assert_eq!(
            parse_key("bytes", "{\"hex\":\"61\"}").unwrap(),
            b"{\"hex\":\"61\"}",
            "bytes that are text"
        );
        assert!(parse_key("u8", "258").is_err());
        assert_eq!(KeyShape::of(&("option<".repeat(5_000) + "u8" + &">".repeat(5_000))), None);
    }
}
