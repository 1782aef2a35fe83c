//! Keys as text for people, from their bytes and the name of their encoding.

use crate::record::Key;

/// How deep options and tuples are followed.
const DEPTH_MAX: usize = 16;

/// The key as text: numbers and texts as in JSON, tuples in brackets, and what is no key of a known encoding as `0x`
/// and hexadecimal digits.
pub(crate) fn key_text(key_type: &str, key: &[u8]) -> String {
    known_key_text(key_type, key)
        .unwrap_or_else(|| key.iter().fold(String::from("0x"), |text, byte| format!("{text}{byte:02x}")))
}

/// The same; `None` for what is no key of a known encoding.
pub(crate) fn known_key_text(key_type: &str, key: &[u8]) -> Option<String> {
    readable(key_type, key, DEPTH_MAX)
}

fn shown<K: Key + ToString>(key: &[u8]) -> Option<String> {
    K::decode_key(key).map(|key| key.to_string())
}

fn readable(key_type: &str, key: &[u8], depth: usize) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    match key_type {
        "utf8" | "bytes" => std::str::from_utf8(key).ok().map(|text| format!("{text:?}")),
        "bool" => shown::<bool>(key),
        "char" => char::decode_key(key).map(|key| format!("{:?}", key.to_string())),
        "()" => <()>::decode_key(key).map(|()| "()".to_owned()),
        "u8" => shown::<u8>(key),
        "u16" => shown::<u16>(key),
        "u32" => shown::<u32>(key),
        "u64" => shown::<u64>(key),
        "u128" => shown::<u128>(key),
        "i8" => shown::<i8>(key),
        "i16" => shown::<i16>(key),
        "i32" => shown::<i32>(key),
        "i64" => shown::<i64>(key),
        "i128" => shown::<i128>(key),
        composed => match composed.strip_prefix("option<").and_then(|rest| rest.strip_suffix('>')) {
            Some(inner) => match key.split_first()? {
                (0, []) => Some("null".to_owned()),
                (1, key) => readable(inner, key, depth),
                _ => None,
            },
            None => tuple(composed.strip_prefix('(')?.strip_suffix(')')?, key, depth),
        },
    }
}

fn tuple(parts: &str, mut key: &[u8], depth: usize) -> Option<String> {
    let mut texts = Vec::new();
    for part in outermost(parts) {
        let (length, rest) = key.split_first_chunk::<4>()?;
        let (part_key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        texts.push(readable(part, part_key, depth)?);
        key = rest;
    }
    key.is_empty().then(|| format!("[{}]", texts.join(", ")))
}

/// The parts of a list at its commas, but for those within brackets.
pub(crate) fn outermost(list: &str) -> Vec<&str> {
    let mut depth = 0_i64;
    let parts = list.split(|c| {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<K: Key>(key: &K) -> String {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        key_text(&K::key_type(), &bytes)
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(text(&"north \"a\"".to_owned()), r#""north \"a\"""#);
        assert_eq!((text(&-7i16), text(&u128::MAX)), ("-7".into(), u128::MAX.to_string()));
        assert_eq!((text(&()), text(&true), text(&'x')), ("()".into(), "true".into(), "\"x\"".into()));
        assert_eq!((text(&None::<u8>), text(&Some(3u8))), ("null".into(), "3".into()));
        let nested = ("a".to_owned(), (1u64, Some(-1i8)), ());
        assert_eq!(text(&nested), "[\"a\", [1, -1], ()]");
    }

    #[test]
    fn what_is_no_key_of_a_known_encoding_is_shown_in_digits() {
        for (key_type, key) in
            [("u64", &[1u8, 0xab][..]), ("utf8", &[0xff]), ("mine", b"k"), ("(u8, u8)", &[1, 0, 0])]
        {
            let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(key_text(key_type, key), format!("0x{digits}"));
        }
        assert_eq!(
            key_text(&format!("{}u8{}", "option<".repeat(99), ">".repeat(99)), &[1; 100]),
            format!("0x{}", "01".repeat(100))
        );
    }
}
