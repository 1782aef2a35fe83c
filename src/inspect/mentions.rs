//! Records that mention a key: what a person would find by looking. It is a guess where a key comes from, for jobs
//! whose code is not at hand; a record may make a key without mentioning it, and mention one that it has no part in.

use serde_json::Value;

use crate::format::shown::KeyShape;
use crate::format::shown::schema::Type;
use crate::format::shown::value::archive_json;

/// What is looked for. A record mentions the key when it has all parts.
pub(super) struct Mention {
    parts: Vec<Part>,
}

enum Part {
    /// As a word: what is beside it is neither letter nor digit.
    Text(Vec<u8>),
    /// In decimal digits, or as a number.
    Number(String),
}

impl Mention {
    /// `None` for keys with neither text nor numbers in them, and for those of a job's own types.
    pub(super) fn of(key_type: &str, key: &[u8]) -> Option<Self> {
        let shape = KeyShape::of(key_type)?;
        let mut parts = Vec::new();
        collect(&shape, &shape.decode(key)?, key, &mut parts);
        (!parts.is_empty()).then_some(Mention { parts })
    }

    pub(super) fn is_in_line(&self, line: &[u8]) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(text) => has_word(line, text),
            Part::Number(number) => has_word(line, number.as_bytes()),
        })
    }

    /// A record whose type is not known is searched for text alone; `None` when there is none to look for.
    pub(super) fn is_in_archive(&self, root: Option<&Type>, archive: &[u8]) -> Option<bool> {
        if let Some(record) = root.and_then(|root| archive_json(root, archive)) {
            return Some(self.parts.iter().all(|part| part.is_in(&record)));
        }
        let mut texts = self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            Part::Number(_) => None,
        });
        let first = texts.next()?;
        Some(std::iter::once(first).chain(texts).all(|text| memchr::memmem::find(archive, text).is_some()))
    }
}

impl Part {
    fn is_in(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Array(values)) => values.iter().any(|value| self.is_in(value)),
            (_, Value::Object(fields)) => fields.values().any(|value| self.is_in(value)),
            (Part::Text(text), Value::String(found)) => has_word(found.as_bytes(), text),
            (Part::Number(number), Value::Number(found)) => found.to_string() == *number,
            (Part::Number(number), Value::String(found)) => has_word(found.as_bytes(), number.as_bytes()),
            _ => false,
        }
    }
}

/// The parts of a key that can be looked for: neither flags nor emptiness.
fn collect(shape: &KeyShape, value: &Value, bytes: &[u8], parts: &mut Vec<Part>) {
    match (shape, value) {
        (KeyShape::Bytes, Value::Object(_)) => parts.push(Part::Text(bytes.to_vec())),
        (KeyShape::Utf8 | KeyShape::Bytes | KeyShape::Char, Value::String(text)) if !text.is_empty() => {
            parts.push(Part::Text(text.as_bytes().to_vec()));
        }
        (KeyShape::Unsigned(_) | KeyShape::Signed(_), Value::Number(number)) => {
            parts.push(Part::Number(number.to_string()));
        }
        (KeyShape::Unsigned(_) | KeyShape::Signed(_), Value::String(number)) => {
            parts.push(Part::Number(number.clone()));
        }
        (KeyShape::Option(some), Value::Array(values)) => {
            values.iter().for_each(|value| collect(some, value, &[], parts));
        }
        (KeyShape::Tuple(shapes), Value::Array(values)) => {
            shapes.iter().zip(values).for_each(|(shape, value)| collect(shape, value, &[], parts));
        }
        _ => {}
    }
}

fn has_word(text: &[u8], word: &[u8]) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80);
    let joins = |outer: Option<&u8>, inner: Option<&u8>| is_part(outer) && is_part(inner);
    memchr::memmem::find_iter(text, word).any(|at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        !joins(before, word.first()) && !joins(text.get(at + word.len()), word.last())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Data, DataBuffer, Key};

    fn mention<K: Key>(key: &K) -> Option<Mention> {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        Mention::of(&K::key_type(), &bytes)
    }

    fn archive<T: Data>(value: &T) -> Vec<u8> {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        buffer.as_bytes().to_vec()
    }

    #[test]
    fn lines_mention_whole_words_and_numbers() {
        let ada = mention(&"ada".to_owned()).unwrap();
        assert!(ada.is_in_line(b"ada") && ada.is_in_line(b"by (ada)") && ada.is_in_line(b"adam, ada"));
        assert!(
            !ada.is_in_line(b"adam") && !ada.is_in_line(b"canada") && !ada.is_in_line("\u{fc}ada".as_bytes())
        );
        let seven = mention(&7u32).unwrap();
        assert!(seven.is_in_line(b"x=7;") && !seven.is_in_line(b"77") && !seven.is_in_line(b"x"));
        let both = mention(&("ada".to_owned(), -7i64)).unwrap();
        assert!(both.is_in_line(b"ada -7") && !both.is_in_line(b"ada 8"));
        assert!(
            mention(&true).is_none() && mention(&None::<u8>).is_none() && mention(&String::new()).is_none()
        );
        assert!(Mention::of("OrderId", b"ada").is_none());
    }

    #[test]
    fn archives_mention_what_their_type_shows() {
        let record = archive(&("a longer name than eight".to_owned(), vec![Some(7u64)]));
        let root = Type::parse("(string,list<option<u64>>)");
        let record_type = root.as_ref();
        let name = mention(&"longer name".to_owned()).unwrap();
        assert_eq!(name.is_in_archive(record_type, &record), Some(true));
        assert_eq!(name.is_in_archive(None, &record), Some(true));
        assert_eq!(mention(&7u8).unwrap().is_in_archive(record_type, &record), Some(true));
        assert_eq!(mention(&8u8).unwrap().is_in_archive(record_type, &record), Some(false));
        assert_eq!(mention(&7u8).unwrap().is_in_archive(None, &record), None);
    }
}
