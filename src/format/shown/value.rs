//! Values as JSON, by the schema that the store has of them. Nothing is trusted, and nothing is allocated by what the
//! bytes say.

use serde_json::{Map, Number, Value};

use crate::error::Error;
use crate::format::block::for_each_record;
use crate::format::shown::KeyShape;
use crate::format::shown::hex;
use crate::format::shown::schema::{Field, Kind, Type, Variant};

/// How deep values are followed: types may contain themselves.
const DEPTH_MAX: usize = 128;

/// Entries of a node of an archived map.
pub(crate) const MAP_NODE_ENTRIES: usize = 5;

/// What the values of an operator are.
#[derive(Debug)]
pub(crate) struct ValueType {
    pub(crate) layout: Layout,
}

#[derive(Debug)]
pub(crate) enum Layout {
    Archive(Type),
    WithTimers(Type),
    /// Records one after the other.
    Chunk(Type),
    /// Pairs one after the other: a key and an archive.
    Pairs(KeyShape, Type),
    Position,
}

impl ValueType {
    /// `None` for types that cannot be shown.
    pub(crate) fn of(value_type: &str, schema: &str) -> Option<Self> {
        let generic = |name: &str| schema.strip_prefix(name)?.strip_prefix('<')?.strip_suffix('>');
        let layout = if schema == "position" {
            Layout::Position
        } else if let Some(record) = generic("chunk") {
            Layout::Chunk(Type::parse(record)?)
        } else if let Some(pair) = generic("pairs") {
            let (key, value) = pair.strip_prefix('"')?.split_once("\",")?;
            Layout::Pairs(KeyShape::of(key)?, Type::parse(value)?)
        } else if value_type.ends_with(" with timers") {
            Layout::WithTimers(Type::parse(schema)?)
        } else {
            Layout::Archive(Type::parse(schema)?)
        };
        Some(ValueType { layout })
    }

    /// `None` when the bytes are no value of this type.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Option<Value> {
        match &self.layout {
            Layout::Archive(root) => archive_json(root, bytes),
            Layout::WithTimers(root) => with_timers_json(root, bytes),
            Layout::Chunk(record) => chunk_json(bytes, |bytes| archive_json(record, bytes)),
            Layout::Pairs(key, value) => chunk_json(bytes, |bytes| pair_json(key, value, bytes)),
            Layout::Position => position_json(bytes),
        }
    }
}

fn chunk_json(bytes: &[u8], record: impl Fn(&[u8]) -> Option<Value>) -> Option<Value> {
    let mut records = Vec::new();
    let read = for_each_record(bytes, |bytes| {
        records.push(record(bytes).ok_or_else(|| Error::corrupt("no record of this type"))?);
        Ok(())
    });
    read.is_ok().then(|| records.into())
}

fn pair_json(key: &KeyShape, value: &Type, bytes: &[u8]) -> Option<Value> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (key_bytes, archive) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some(Value::Array(vec![key.decode(key_bytes)?, archive_json(value, archive)?]))
}

/// An archive as JSON; `None` when the bytes are none of this type.
pub(crate) fn archive_json(root: &Type, bytes: &[u8]) -> Option<Value> {
    let at = bytes.len().checked_sub(root.size)?;
    let left = bytes.len().saturating_mul(4).saturating_add(16);
    Archive { bytes, left, depth: 0, enclosing: Vec::new() }.value(root, at)
}

fn position_json(bytes: &[u8]) -> Option<Value> {
    let words =
        (bytes.len() == 24).then(|| bytes.chunks(8).map(|word| unsigned_json(little_endian(word))))?;
    Some(Value::Object(["offset", "size", "stamp"].map(str::to_owned).into_iter().zip(words).collect()))
}

fn with_timers_json(root: &Type, bytes: &[u8]) -> Option<Value> {
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
        _ => archive_json(root, rest)?,
    };
    Some(Value::Object(
        [("state".to_owned(), state), ("timers".to_owned(), timers.into())].into_iter().collect(),
    ))
}

/// An archive that is being read.
struct Archive<'a, 't> {
    bytes: &'a [u8],
    /// How many more values, and bytes of text, are read: what refers to each other's bytes must not multiply.
    left: usize,
    depth: usize,
    /// The structures and enums around this place, outermost first.
    enclosing: Vec<&'t Type>,
}

impl<'t> Archive<'_, 't> {
    fn get(&self, at: usize, length: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(length)?)
    }

    fn value(&mut self, r#type: &'t Type, at: usize) -> Option<Value> {
        self.left = self.left.checked_sub(1)?;
        self.depth = Some(self.depth + 1).filter(|depth| *depth <= DEPTH_MAX)?;
        let value = match &r#type.kind {
            Kind::Enclosing(outwards) => self.enclosing_value(*outwards, at),
            _ if !at.is_multiple_of(r#type.align) => None,
            Kind::Struct(_) | Kind::Enum(_) => {
                self.enclosing.push(r#type);
                let value = match &r#type.kind {
                    Kind::Enum(variants) => self.variant(variants, at),
                    Kind::Struct(fields) => self.fields(fields, at),
                    _ => None,
                };
                self.enclosing.pop();
                value
            }
            _ => self.plain(r#type, at),
        };
        self.depth -= 1;
        value
    }

    /// A value of a type that contains the place it is referred to from.
    fn enclosing_value(&mut self, outwards: usize, at: usize) -> Option<Value> {
        let place = self.enclosing.len().checked_sub(outwards + 1)?;
        let inner = self.enclosing.split_off(place);
        let value = inner.first().and_then(|enclosing| self.value(enclosing, at));
        self.enclosing.truncate(place);
        self.enclosing.extend(inner);
        value
    }

    fn plain(&mut self, r#type: &'t Type, at: usize) -> Option<Value> {
        let size = r#type.size;
        Some(match &r#type.kind {
            Kind::Unsigned => unsigned_json(little_endian(self.get(at, size)?)),
            Kind::Signed => {
                let shift = 128 - 8 * size as u32;
                signed_json((little_endian(self.get(at, size)?) << shift) as i128 >> shift)
            }
            Kind::Float if size == 4 => {
                float_json(f32::from_le_bytes(self.get(at, 4)?.try_into().ok()?).into())
            }
            Kind::Float => float_json(f64::from_le_bytes(self.get(at, 8)?.try_into().ok()?)),
            Kind::Bool => match self.get(at, 1)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            Kind::Char => {
                let code = u32::try_from(little_endian(self.get(at, 4)?)).ok()?;
                Value::String(char::from_u32(code)?.to_string())
            }
            Kind::Unit => Value::Null,
            Kind::String => {
                let text = self.string(at)?;
                self.left = self.left.checked_sub(text.len())?;
                Value::String(text)
            }
            Kind::Bytes => {
                let (to, count) = self.list(at)?;
                self.left = self.left.checked_sub(count)?;
                bytes_json(self.get(to, count)?)
            }
            Kind::Opaque => hex_json(self.get(at, size)?),
            Kind::List(element) => {
                let (to, count) = self.list(at)?;
                self.elements(element, to, count)?
            }
            Kind::Array(element, count) => self.elements(element, at, *count)?,
            Kind::Nested(inner) => {
                let (to, count) = self.list(at)?;
                // What is nested is read anew each time that it is referred to.
                self.left = self.left.checked_sub(count)?;
                archive_json(inner, self.get(to, count)?)?
            }
            Kind::Option(some) => match self.get(at, 1)? {
                [0] => Value::Null,
                [1] => self.value(some, at + some.align)?,
                _ => return None,
            },
            Kind::Boxed(inner) => {
                let to = self.target(at, at)?;
                self.value(inner, to)?
            }
            Kind::Map(key, value) => map_json(self.entries(key, Some(value), at)?, key.kind == Kind::String),
            Kind::Set(key) => {
                self.entries(key, None, at)?.into_iter().map(|(key, _)| key).collect::<Vec<_>>().into()
            }
            Kind::Tuple(fields) => self.in_order(fields, at)?.into(),
            Kind::Result(variants) => self.variant(variants, at)?,
            Kind::Struct(_) | Kind::Enum(_) | Kind::Enclosing(_) => return None,
        })
    }

    fn elements(&mut self, element: &'t Type, to: usize, count: usize) -> Option<Value> {
        let size = element.size;
        self.get(to, count.checked_mul(size)?)?;
        let mut values = Vec::new();
        for index in 0..count {
            values.push(self.value(element, to + index * size)?);
        }
        Some(Value::Array(values))
    }

    fn in_order(&mut self, fields: &'t [Field], at: usize) -> Option<Vec<Value>> {
        fields.iter().map(|field| self.value(&field.r#type, at.checked_add(field.offset)?)).collect()
    }

    /// By name, or in order where fields have numbers; a single one without a name stands for itself.
    fn fields(&mut self, fields: &'t [Field], at: usize) -> Option<Value> {
        let mut values = self.in_order(fields, at)?;
        let is_numbered = fields.first().is_some_and(|field| field.name == "0");
        Some(match values.len() {
            1 if is_numbered => values.remove(0),
            _ if is_numbered => Value::Array(values),
            _ => Value::Object(fields.iter().map(|field| field.name.clone()).zip(values).collect()),
        })
    }

    /// The name of the variant, or an object of its name and its fields.
    fn variant(&mut self, variants: &'t [Variant], at: usize) -> Option<Value> {
        let tag = little_endian(self.get(at, Type::tag_bytes(variants.len()))?);
        let variant = variants.iter().find(|variant| variant.tag == tag)?;
        if variant.fields.is_empty() {
            return Some(Value::String(variant.name.clone()));
        }
        let fields = self.fields(&variant.fields, at)?;
        Some(Value::Object([(variant.name.clone(), fields)].into_iter().collect()))
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

    /// The entries of a map or, without values, of a set, in their order.
    fn entries(&mut self, key: &'t Type, value: Option<&'t Type>, at: usize) -> Option<Vec<(Value, Value)>> {
        let (root, count) = self.list(at)?;
        let mut entries = Vec::new();
        if count > 0 {
            let node = MapNode::of(key, value.unwrap_or(&UNIT));
            self.node(&node, (key, value), root, &mut entries)?;
        }
        (entries.len() == count).then_some(entries)
    }

    fn node(
        &mut self,
        node: &MapNode,
        types: (&'t Type, Option<&'t Type>),
        at: usize,
        entries: &mut Vec<(Value, Value)>,
    ) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        self.depth = Some(self.depth + 1).filter(|depth| *depth <= DEPTH_MAX)?;
        let is_inner = match self.get(at, 1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let count = match is_inner {
            true => MAP_NODE_ENTRIES,
            false => little_endian(self.get(at.checked_add(node.rest)?, 4)?) as usize,
        };
        if count > MAP_NODE_ENTRIES {
            return None;
        }
        for entry in 0..count {
            if is_inner {
                self.child(node, types, at + node.rest + 4 * entry, entries)?;
            }
            let key = self.value(types.0, at + node.keys + entry * node.key_size)?;
            let value = match types.1 {
                Some(value) => self.value(value, at + node.values + entry * node.value_size)?,
                None => Value::Null,
            };
            entries.push((key, value));
        }
        if is_inner {
            self.child(node, types, at + node.rest + 4 * MAP_NODE_ENTRIES, entries)?;
        }
        self.depth -= 1;
        Some(())
    }

    /// The node that the pointer at `at` leads to; a pointer of 1 leads nowhere.
    fn child(
        &mut self,
        node: &MapNode,
        types: (&'t Type, Option<&'t Type>),
        at: usize,
        entries: &mut Vec<(Value, Value)>,
    ) -> Option<()> {
        if self.get(at, 4)? == [1, 0, 0, 0] {
            return Some(());
        }
        let to = self.target(at, at)?;
        self.node(node, types, to, entries)
    }
}

pub(crate) const UNIT: Type = Type { kind: Kind::Unit, size: 0, align: 1 };

/// Where a node of an archived map has what.
pub(crate) struct MapNode {
    pub(crate) key_size: usize,
    pub(crate) value_size: usize,
    pub(crate) keys: usize,
    pub(crate) values: usize,
    /// The number of entries of a leaf, the pointers of an inner node.
    pub(crate) rest: usize,
}

impl MapNode {
    pub(crate) fn of(key: &Type, value: &Type) -> Self {
        let keys = 1_usize.next_multiple_of(key.align);
        let values = (keys + MAP_NODE_ENTRIES * key.size).next_multiple_of(value.align);
        let align = key.align.max(value.align);
        // The node without its rest is a structure of its own.
        let head = (values + MAP_NODE_ENTRIES * value.size).next_multiple_of(align);
        MapNode { key_size: key.size, value_size: value.size, keys, values, rest: head.next_multiple_of(4) }
    }
}

/// An object where keys are texts, otherwise a list of pairs.
fn map_json(entries: Vec<(Value, Value)>, is_named: bool) -> Value {
    if is_named {
        let named = entries.into_iter().filter_map(|(key, value)| match key {
            Value::String(name) => Some((name, value)),
            _ => None,
        });
        return Value::Object(named.collect());
    }
    entries.into_iter().map(|(key, value)| Value::Array(vec![key, value])).collect::<Vec<_>>().into()
}

fn little_endian(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// Text where it is, otherwise an object with the hexadecimal digits.
pub(crate) fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(text.to_owned()),
        Err(_) => hex_json(bytes),
    }
}

fn hex_json(bytes: &[u8]) -> Value {
    Value::Object([("hex".to_owned(), Value::String(hex(bytes)))].into_iter().collect())
}

/// Numbers beyond 64 bits are text: JSON's readers would round them.
pub(crate) fn unsigned_json(number: u128) -> Value {
    u64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::from)
}

pub(crate) fn signed_json(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::String(number.to_string()), Value::from)
}

/// What JSON has no number for is text.
fn float_json(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Data, DataBuffer, Nested, Schema, Text};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn value_type<T: Data>() -> ValueType {
        ValueType::of("T", Schema::of::<T>().text()).unwrap()
    }

    fn shown<T: Data>(value: &T) -> String {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer).unwrap();
        value_type::<T>().decode(buffer.as_bytes()).unwrap().to_string()
    }

    #[crate::data]
    #[derive(Clone)]
    struct Order {
        customer: String,
        items: BTreeMap<String, u32>,
        kind: Kind,
        at: std::time::Duration,
    }

    #[crate::data]
    #[derive(Clone)]
    enum Kind {
        Plain,
        Gift(Name),
        Split { parts: [u8; 2], rest: Option<Box<Name>> },
        Two(u8, i8),
    }

    #[crate::data]
    #[derive(Clone)]
    struct Name(String);

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
        assert_eq!(
            shown(&(Nested("in".to_owned()), Err::<u8, _>("no".to_owned()))),
            r#"["in",{"Err":"no"}]"#
        );
        assert!(ValueType::of("Order", "").is_none());
        assert!(ValueType::of("Order", &"(".repeat(9_999)).is_none());
    }

    #[test]
    fn own_types_are_shown_as_json() {
        let kinds = [
            (Kind::Plain, r#""Plain""#),
            (Kind::Gift(Name("Ann".to_owned())), r#"{"Gift":"Ann"}"#),
            (
                Kind::Split { parts: [1, 2], rest: Some(Box::new(Name("the rest".to_owned()))) },
                r#"{"Split":{"parts":[1,2],"rest":"the rest"}}"#,
            ),
            (Kind::Two(1, -1), r#"{"Two":[1,-1]}"#),
        ];
        for (kind, json) in kinds {
            let items = BTreeMap::from([("pen".to_owned(), 2), ("a long name of an item".to_owned(), 1)]);
            let at = std::time::Duration::from_millis(1_500);
            let order = Order { customer: "customer 7".to_owned(), items, kind, at };
            let expected = format!(
                r#"{{"customer":"customer 7","items":{{"a long name of an item":1,"pen":2}},"kind":{json},"at":{{"secs":1,"nanos":500000000}}}}"#
            );
            let expected: Value = serde_json::from_str(&expected).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&shown(&order)).unwrap(), expected);
        }
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
        fn maps_of_any_size_come_back(
            map in prop::collection::btree_map(any::<u16>(), any::<Option<u64>>(), 0..400),
            set in prop::collection::btree_set(any::<(u8, String)>(), 0..40),
        ) {
            let expected = serde_json::json!([map.iter().collect::<Vec<_>>(), set]);
            prop_assert_eq!(shown(&(map, set)), expected.to_string());
        }

        #[test]
        fn damaged_archives_are_refused_or_bounded(
            list in prop::collection::vec(any::<(String, Option<i64>, Vec<u16>)>(), 0..6),
            map in prop::collection::btree_map(any::<u8>(), any::<u32>(), 0..60),
            at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            type Value = (Vec<(String, Option<i64>, Vec<u16>)>, Vec<Vec<()>>, BTreeMap<u8, u32>, BTreeSet<u8>);
            let value: Value = (list, vec![vec![(); 3]], map, BTreeSet::from([1, 2]));
            let mut buffer = DataBuffer::default();
            value.encode(&mut buffer).unwrap();
            let mut bytes = buffer.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let value_type = value_type::<Value>();
            drop(value_type.decode(&bytes));
            drop(value_type.decode(&bytes[cut.index(bytes.len())..]));
        }
    }

    #[test]
    fn lists_that_share_their_bytes_do_not_multiply() {
        // A list of 2^32 lists that are all the same: few bytes, much to show.
        let inner = [0u8; 8];
        let mut bytes = inner.to_vec();
        bytes.extend((-8i32).to_le_bytes());
        bytes.extend(u32::MAX.to_le_bytes());
        for schema in ["list<()>", "list<list<list<u16>>>"] {
            assert_eq!(archive_json(&Type::parse(schema).unwrap(), &bytes), None);
        }
    }
}
