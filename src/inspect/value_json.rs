//! Values whose Rust type says how they are archived, as JSON. The layout is that of `checkpoint-format.md`,
//! section 7; nothing is trusted, and nothing is allocated by what the bytes say.

use serde_json::{Map, Number, Value};

use crate::format::object::name_without_paths;
use crate::inspect::key_text::split_outermost;
use crate::inspect::view::hex;

/// How deep types are followed.
const DEPTH_MAX: usize = 16;

/// A type whose archive is known.
#[derive(Debug, PartialEq)]
enum Shape {
    /// The number of bytes.
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    Bool,
    Char,
    String,
    /// A list of bytes.
    Bytes,
    List(Box<Shape>),
    Option(Box<Shape>),
    /// None of them is `()`.
    Tuple(Vec<Shape>),
}

/// What the values of an operator are.
#[derive(Debug)]
pub(super) struct ValueType {
    layout: Layout,
    width: u32,
}

#[derive(Debug)]
enum Layout {
    Archive(Shape),
    WithTimers(Shape),
    Position,
}

impl ValueType {
    /// `None` for types that are not known.
    pub(super) fn of(value_type: &str, width: u32) -> Option<Self> {
        let layout = if value_type == "position" {
            Layout::Position
        } else if let Some(state) = value_type.strip_suffix(" with timers") {
            Layout::WithTimers(Shape::of(state)?)
        } else {
            Layout::Archive(Shape::of(value_type)?)
        };
        Some(ValueType { layout, width })
    }

    /// `None` when the bytes are no value of this type.
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<Value> {
        match &self.layout {
            Layout::Archive(shape) => archive_json(shape, self.width, bytes),
            Layout::WithTimers(shape) => with_timers_json(shape, self.width, bytes),
            Layout::Position => position_json(bytes),
        }
    }
}

/// A record or an amount of a type, as JSON; `None` when the type is not known or the bytes are none of it.
pub(super) fn record_json(rust_type: &str, bytes: &[u8]) -> Option<Value> {
    let shape = Shape::of(rust_type)?;
    archive_json(&shape, shape.size() as u32, bytes)
}

fn archive_json(shape: &Shape, width: u32, bytes: &[u8]) -> Option<Value> {
    let root = bytes.len().checked_sub(shape.size())?;
    let mut archive = Archive { bytes, left: bytes.len().saturating_mul(4).saturating_add(16) };
    (shape.size() == width as usize).then(|| archive.value(shape, root))?
}

fn position_json(bytes: &[u8]) -> Option<Value> {
    let words =
        (bytes.len() == 24).then(|| bytes.chunks(8).map(|word| unsigned_json(little_endian(word))))?;
    Some(Value::Object(["offset", "size", "stamp"].map(str::to_owned).into_iter().zip(words).collect()))
}

fn with_timers_json(shape: &Shape, width: u32, bytes: &[u8]) -> Option<Value> {
    let (head, mut rest) = bytes.split_first_chunk::<4>()?;
    let head = u32::from_le_bytes(*head);
    let mut timers = Vec::new();
    for _ in 0..head & !(1 << 31) {
        let (timer, tail) = rest.split_first_chunk::<9>()?;
        let kind = *["event time", "processing time", "time to live"].get(usize::from(timer[0]))?;
        let mut shown = Map::new();
        shown.insert("timer".to_owned(), kind.into());
        shown.insert("at_ms".to_owned(), unsigned_json(little_endian(&timer[1..])));
        timers.push(Value::Object(shown));
        rest = tail;
    }
    let state = match head >> 31 {
        0 => rest.is_empty().then_some(Value::Null)?,
        _ => archive_json(shape, width, rest)?,
    };
    Some(Value::Object(
        [("state".to_owned(), state), ("timers".to_owned(), timers.into())].into_iter().collect(),
    ))
}

impl Shape {
    /// The shape of a type by its name, with or without the paths of modules: state types are stored without.
    fn of(name: &str) -> Option<Self> {
        Self::parse(&name_without_paths(name), DEPTH_MAX)
    }

    fn parse(name: &str, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let generic = |path: &str| name.strip_prefix(path)?.strip_prefix('<')?.strip_suffix('>');
        if let Some(element) = generic("Vec") {
            let element = Self::parse(element, depth)?;
            return Some(if element == Shape::Unsigned(1) {
                Shape::Bytes
            } else {
                Shape::List(Box::new(element))
            });
        }
        if let Some(some) = generic("Option") {
            return Some(Shape::Option(Box::new(Self::parse(some, depth)?)));
        }
        Some(match name {
            "u8" => Shape::Unsigned(1),
            "u16" => Shape::Unsigned(2),
            "u32" | "usize" => Shape::Unsigned(4),
            "u64" => Shape::Unsigned(8),
            "u128" => Shape::Unsigned(16),
            "i8" => Shape::Signed(1),
            "i16" => Shape::Signed(2),
            "i32" | "isize" => Shape::Signed(4),
            "i64" => Shape::Signed(8),
            "i128" => Shape::Signed(16),
            "f32" => Shape::Float(4),
            "f64" => Shape::Float(8),
            "bool" => Shape::Bool,
            "char" => Shape::Char,
            "()" => Shape::Tuple(Vec::new()),
            "String" => Shape::String,
            "Text" => Shape::Bytes,
            tuple => {
                let parts = tuple.strip_prefix('(')?.strip_suffix(')')?;
                let parts = parts.strip_suffix(',').unwrap_or(parts);
                let shapes: Option<Vec<_>> =
                    split_outermost(parts).into_iter().map(|part| Self::parse(part, depth)).collect();
                Shape::Tuple(shapes?)
            }
        })
    }

    fn align(&self) -> usize {
        match self {
            Shape::Unsigned(width) | Shape::Signed(width) | Shape::Float(width) => *width,
            Shape::Bool => 1,
            Shape::Char | Shape::String | Shape::Bytes | Shape::List(_) => 4,
            Shape::Option(some) => some.align(),
            Shape::Tuple(parts) => parts.iter().map(Shape::align).max().unwrap_or(1),
        }
    }

    fn size(&self) -> usize {
        match self {
            Shape::Unsigned(width) | Shape::Signed(width) | Shape::Float(width) => *width,
            Shape::Bool => 1,
            Shape::Char => 4,
            Shape::String | Shape::Bytes | Shape::List(_) => 8,
            Shape::Option(some) => (some.align() + some.size()).next_multiple_of(some.align()),
            Shape::Tuple(parts) => {
                let end =
                    parts.iter().fold(0_usize, |at, part| at.next_multiple_of(part.align()) + part.size());
                end.next_multiple_of(self.align())
            }
        }
    }
}

/// An archive that is being read.
struct Archive<'a> {
    bytes: &'a [u8],
    /// How many more values, and bytes of text, are read: what refers to each other's bytes must not multiply.
    left: usize,
}

impl Archive<'_> {
    fn get(&self, at: usize, length: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(length)?)
    }

    fn value(&mut self, shape: &Shape, at: usize) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        if !at.is_multiple_of(shape.align()) {
            return None;
        }
        Some(match shape {
            Shape::Unsigned(width) => unsigned_json(little_endian(self.get(at, *width)?)),
            Shape::Signed(width) => {
                let shift = 128 - 8 * *width as u32;
                signed_json((little_endian(self.get(at, *width)?) << shift) as i128 >> shift)
            }
            Shape::Float(4) => float_json(f32::from_le_bytes(self.get(at, 4)?.try_into().ok()?).into()),
            Shape::Float(_) => float_json(f64::from_le_bytes(self.get(at, 8)?.try_into().ok()?)),
            Shape::Bool => match self.get(at, 1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            Shape::Char => {
                let code = u32::try_from(little_endian(self.get(at, 4)?)).ok()?;
                Value::String(char::from_u32(code)?.to_string())
            }
            Shape::String => {
                let text = self.string(at)?;
                self.left = self.left.checked_sub(text.len())?;
                Value::String(text)
            }
            Shape::Bytes => {
                let (to, count) = self.list(at)?;
                self.left = self.left.checked_sub(count)?;
                bytes_json(self.get(to, count)?)
            }
            Shape::List(element) => self.elements(element, at)?,
            Shape::Option(some) => match self.get(at, 1)? {
                [0] => Value::Null,
                [1] => self.value(some, at + some.align())?,
                _ => return None,
            },
            Shape::Tuple(parts) if parts.is_empty() => Value::Null,
            Shape::Tuple(parts) => {
                let mut next = at;
                let mut values = Vec::new();
                for part in parts {
                    next = next.next_multiple_of(part.align());
                    values.push(self.value(part, next)?);
                    next += part.size();
                }
                Value::Array(values)
            }
        })
    }

    fn elements(&mut self, element: &Shape, at: usize) -> Option<Value> {
        let (to, count) = self.list(at)?;
        self.get(to, count.checked_mul(element.size())?)?;
        let mut values = Vec::new();
        for index in 0..count {
            values.push(self.value(element, to + index * element.size())?);
        }
        Some(Value::Array(values))
    }

    /// Where a list begins, and how many elements it has.
    fn list(&self, at: usize) -> Option<(usize, usize)> {
        let count = little_endian(self.get(at + 4, 4)?);
        Some((self.target(at, at)?, usize::try_from(count).ok()?))
    }

    /// What the relative pointer at `at` points to, counted from `from`.
    fn target(&self, at: usize, from: usize) -> Option<usize> {
        let pointer = i32::from_le_bytes(self.get(at, 4)?.try_into().ok()?);
        from.checked_add_signed(pointer as isize)
    }

    fn string(&self, at: usize) -> Option<String> {
        let inline = self.get(at, 8)?;
        let text = if inline[0] & 0xc0 == 0x80 {
            let word = little_endian(&inline[..4]) as usize;
            let length = word & 0x3f | (word & !0xff) >> 2;
            self.get(self.target(at + 4, at)?, length)?
        } else {
            &inline[..inline.iter().position(|byte| *byte == 0xff).unwrap_or(8)]
        };
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }
}

fn little_endian(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Text where it is, otherwise an object with the hexadecimal digits.
pub(super) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => Value::Object([("hex".to_owned(), Value::String(hex(bytes)))].into_iter().collect()),
    }
}

/// Numbers beyond 64 bits are text: JSON's readers would round them.
pub(super) fn unsigned_json(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::from)
}

pub(super) fn signed_json(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::from)
}

/// What JSON has no number for is text.
fn float_json(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Data, DataBuffer, Text};
    use proptest::prelude::*;

    fn shown<T: Data>(value: &T) -> String {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        let value_type = ValueType::of(std::any::type_name::<T>(), T::archived_width() as u32).unwrap();
        value_type.decode(buffer.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn values_are_shown_as_json() {
        assert_eq!(shown(&7u64), "7");
        assert_eq!(shown(&-2i8), "-2");
        assert_eq!(shown(&u128::MAX), format!("\"{}\"", u128::MAX));
        assert_eq!(shown(&(1.5f64, f32::NAN)), "[1.5,\"NaN\"]");
        assert_eq!(shown(&(Some(3u8), None::<u32>, Some(()))), "[3,null,null]");
        assert_eq!(
            shown(&vec![("a".to_owned(), true), ("longer than eight bytes".to_owned(), false)]),
            "[[\"a\",true],[\"longer than eight bytes\",false]]"
        );
        assert_eq!(shown(&(Text::from("line"), 'x', vec![255u8])), "[\"line\",\"x\",{\"hex\":\"ff\"}]");
        assert_eq!(shown(&Vec::<Vec<u16>>::new()), "[]");
        assert_eq!(shown(&(5u64,)), "[5]");
        assert!(ValueType::of("shop::Order", 8).is_none());
        assert!(ValueType::of("alloc::vec::Vec<shop::Order>", 8).is_none());
        assert!(ValueType::of(&"(".repeat(9_999), 8).is_none());
    }

    proptest! {
        #[test]
        fn strings_numbers_and_options_come_back(
            list in prop::collection::vec(any::<(String, Option<i64>, Vec<u32>, bool)>(), 0..6), last in any::<Option<u128>>(),
        ) {
            let value = (list.clone(), last);
            let expected = serde_json::json!([list, last.map(unsigned_json)]);
            prop_assert_eq!(shown(&value), expected.to_string());
        }

        #[test]
        fn damaged_archives_are_refused_or_bounded(
            list in prop::collection::vec(any::<(String, Option<i64>, Vec<u16>)>(), 0..6), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let value: (Vec<(String, Option<i64>, Vec<u16>)>, Vec<Vec<()>>) = (list, vec![vec![(); 3]]);
            let mut buffer = DataBuffer::default();
            value.encode(&mut buffer).unwrap();
            let mut bytes = buffer.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let name = std::any::type_name_of_val(&value);
            let value_type = ValueType::of(name, bytes.len().min(16) as u32).unwrap();
            drop(value_type.decode(&bytes));
            drop(value_type.decode(&bytes[cut.index(bytes.len())..]));
        }
    }

    #[test]
    fn lists_that_share_their_bytes_do_not_multiply() {
        // A list of 2^20 lists that are all the same: few bytes, much to show.
        let inner = [0u8; 8];
        let mut bytes = inner.to_vec();
        bytes.extend((-8i32).to_le_bytes());
        bytes.extend(u32::MAX.to_le_bytes());
        assert_eq!(record_json("alloc::vec::Vec<()>", &bytes), None);
        // Many texts that are all the same.
        let mut texts = vec![b'x'; 400];
        for n in 0..100_i32 {
            texts.extend((400_u32 >> 6 << 8 | 0x80 | 400 & 0x3f).to_le_bytes());
            texts.extend((-400 - 8 * n).to_le_bytes());
        }
        texts.extend((-800_i32).to_le_bytes());
        texts.extend(100_u32.to_le_bytes());
        assert_eq!(record_json("Vec<String>", &texts), None);
        assert!(record_json("String", &texts[..408]).is_some());
        let deep = "alloc::vec::Vec<alloc::vec::Vec<alloc::vec::Vec<u16>>>";
        assert_eq!(record_json(deep, &bytes), None);
    }
}
