//! Types that say how they are archived, so that a store can be read without the job's code.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{Display, Write};
use std::time::Duration;

use crate::record::nested::Nested;
use crate::record::text::Text;

/// A longer description is left out: the type then counts as one that only its own program can read.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// A type whose archive has a schema: its fields, their widths and places.
///
/// Checkpoints hold the schema of everything that a job keeps, so that `millpond state` and any reader in another
/// language show keys and values without the job's code, and its hash guards every read: bytes of another schema
/// are refused, whatever their type is called.
///
/// It is there for numbers, `bool`, `char`, `String`, [`Text`], [`Duration`], tuples, options, results, boxes, arrays, vectors,
/// deques, ordered maps and sets. Types of your own get it with everything else that [`Data`](crate::Data) needs from
/// [`#[millpond::data]`](macro@crate::data), or by `#[derive(millpond::Described)]` beside rkyv's derives.
///
/// Maps and sets that are ordered by a random hash seed have none: what a job keeps must not depend on it.
///
/// ```
/// #[millpond::data]
/// #[derive(Clone)]
/// struct Reading {
///     sensor: String,
///     celsius: f64,
/// }
///
/// assert_eq!(
///     millpond::Schema::of::<Vec<Reading>>().text(),
///     "list<struct Reading<16,8>{sensor:string,celsius:f64}>"
/// );
/// ```
#[diagnostic::on_unimplemented(
    message = "millpond cannot describe how `{Self}` is archived",
    label = "put `#[millpond::data]` on this type, or derive `millpond::Described` beside rkyv's derives",
    note = "hash maps and hash sets cannot be kept, because their order is random: use `BTreeMap` and `BTreeSet`"
)]
pub trait Described {
    /// Appends the type's description.
    fn describe(schema: &mut Schema);

    /// Calls `with` on the value's archive where that is nothing but the value's bytes, which spares the archiver.
    /// Returns whether it is.
    #[doc(hidden)]
    #[inline(always)]
    fn with_plain_archive(&self, _with: impl FnOnce(&[u8])) -> bool {
        false
    }

    /// Reads such an archive back; `None` for anything else.
    #[doc(hidden)]
    #[inline(always)]
    fn from_plain_archive(_bytes: &[u8]) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// The description of a type: one line of text, in the notation of `checkpoint-format.md`, section 7.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    text: String,
    /// The structures and enums that are being described, outermost first.
    open: Vec<TypeId>,
}

impl Schema {
    /// The schema of a type. One that is too long to be kept describes the type as opaque.
    pub fn of<T: Described + ?Sized>() -> Schema {
        let mut schema = Schema::default();
        T::describe(&mut schema);
        if schema.text.len() > TEXT_BYTES_MAX {
            let hash = schema.hash();
            schema.text = format!("unknown {hash:016x}");
        }
        schema
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The hash of the text, which stands for it: XXH3-64 with seed 0.
    pub fn hash(&self) -> u64 {
        schema_hash(&self.text)
    }

    /// Appends text as it is.
    fn push(&mut self, text: impl Display) {
        // Writing to a string does not fail.
        let _ = write!(self.text, "{text}");
    }

    /// Appends a part of a type.
    pub fn part<T: Described + ?Sized>(&mut self) {
        // What follows is cut off anyway, and types may nest exponentially.
        if self.text.len() <= TEXT_BYTES_MAX {
            T::describe(self);
        }
    }

    /// Appends a type that only its own program can read, by the size and alignment of its archive in bytes.
    pub fn opaque<Archived>(&mut self) {
        self.push(format_args!("opaque<{},{}>", size_of::<Archived>(), align_of::<Archived>()));
    }

    fn generic(&mut self, name: &str, parts: &[fn(&mut Schema)]) {
        self.push(name);
        self.push('<');
        self.list(parts);
        self.push('>');
    }

    fn list(&mut self, parts: &[fn(&mut Schema)]) {
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                self.push(',');
            }
            part(self);
        }
    }

    /// Appends a structure: `Archived` is the type that it is archived as, `fields` appends each field in the order of
    /// declaration with [`field`](Fields::field). A structure inside of itself is referred to.
    pub fn structure<T: 'static, Archived>(&mut self, name: &str, fields: impl FnOnce(&mut Fields<'_>)) {
        self.enclosed::<T, Archived>("struct", name, |schema| fields(&mut Fields { schema, any: false }));
    }

    /// Appends an enum, likewise: `variants` appends each variant with [`variant`](Variants::variant).
    pub fn enumeration<T: 'static, Archived>(
        &mut self,
        name: &str,
        variants: impl FnOnce(&mut Variants<'_>),
    ) {
        self.enclosed::<T, Archived>("enum", name, |schema| variants(&mut Variants { schema, any: false }));
    }

    fn enclosed<T: 'static, Archived>(&mut self, kind: &str, name: &str, inner: impl FnOnce(&mut Schema)) {
        let this = TypeId::of::<T>();
        if let Some(outwards) = self.open.iter().rev().position(|open| *open == this) {
            return self.push(format_args!("#{outwards}"));
        }
        let (size, align) = (size_of::<Archived>(), align_of::<Archived>());
        self.push(format_args!("{kind} {name}<{size},{align}>{{"));
        self.open.push(this);
        inner(self);
        self.open.pop();
        self.push('}');
    }
}

/// The hash that stands for a schema. Part of the stored format.
pub(crate) fn schema_hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// The fields of a structure or of a variant.
#[derive(Debug)]
pub struct Fields<'a> {
    schema: &'a mut Schema,
    any: bool,
}

impl Fields<'_> {
    fn name(&mut self, name: &str) -> &mut Schema {
        if std::mem::replace(&mut self.any, true) {
            self.schema.push(',');
        }
        self.schema.push(name);
        self.schema.push(':');
        self.schema
    }

    /// Appends a field.
    pub fn field<T: Described>(&mut self, name: &str) {
        self.name(name).part::<T>();
    }

    /// Appends a field that only its own program can read, by the type it is archived as.
    pub fn opaque<Archived>(&mut self, name: &str) {
        self.name(name).opaque::<Archived>();
    }
}

/// The variants of an enum.
#[derive(Debug)]
pub struct Variants<'a> {
    schema: &'a mut Schema,
    any: bool,
}

impl Variants<'_> {
    /// Appends a variant, with its fields. Its tag is 0 for the first one, else one more than that of the one before.
    pub fn variant(&mut self, name: &str, fields: impl FnOnce(&mut Fields<'_>)) {
        self.append(name, None, fields);
    }

    /// Appends a variant with the tag (the discriminant) that it is given in the enum's declaration.
    pub fn tagged(&mut self, name: &str, tag: u8, fields: impl FnOnce(&mut Fields<'_>)) {
        self.append(name, Some(tag), fields);
    }

    fn append(&mut self, name: &str, tag: Option<u8>, fields: impl FnOnce(&mut Fields<'_>)) {
        if std::mem::replace(&mut self.any, true) {
            self.schema.push(',');
        }
        self.schema.push(name);
        if let Some(tag) = tag {
            self.schema.push(format_args!("={tag}"));
        }
        self.schema.push('{');
        fields(&mut Fields { schema: self.schema, any: false });
        self.schema.push('}');
    }
}

macro_rules! named {
    ($($type:ty => $name:literal,)*) => { $(
        impl Described for $type {
            fn describe(schema: &mut Schema) {
                schema.push($name);
            }
        }
    )* };
}

macro_rules! numbers {
    ($($type:ty => $name:literal,)*) => { $(
        impl Described for $type {
            fn describe(schema: &mut Schema) {
                schema.push($name);
            }

            #[inline(always)]
            fn with_plain_archive(&self, with: impl FnOnce(&[u8])) -> bool {
                with(&self.to_le_bytes());
                true
            }

            #[inline(always)]
            fn from_plain_archive(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_le_bytes(bytes.try_into().ok()?))
            }
        }
    )* };
}

numbers! {
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128",
    f32 => "f32", f64 => "f64",
}

named! {
    usize => "u32", isize => "i32", bool => "bool", char => "char", () => "()",
    String => "string", Text => "bytes",
    Duration => "struct Duration<16,8>{secs:u64,nanos:u32}",
}

/// A list; one of `u8` is `bytes`.
impl<T: Described> Described for Vec<T> {
    fn describe(schema: &mut Schema) {
        let start = schema.text.len();
        schema.generic("list", &[Schema::part::<T>]);
        if &schema.text[start..] == "list<u8>" {
            schema.text.truncate(start);
            schema.push("bytes");
        }
    }
}

impl<T: Described> Described for VecDeque<T> {
    fn describe(schema: &mut Schema) {
        Vec::<T>::describe(schema);
    }
}

impl<T: Described, const N: usize> Described for [T; N] {
    fn describe(schema: &mut Schema) {
        schema.generic("array", &[Schema::part::<T>, |schema| schema.push(N)]);
    }
}

macro_rules! generic {
    ($($type:ident<$($part:ident),+> => $name:literal,)*) => { $(
        impl<$($part: Described),+> Described for $type<$($part),+> {
            fn describe(schema: &mut Schema) {
                schema.generic($name, &[$(Schema::part::<$part>),+]);
            }
        }
    )* };
}

generic! {
    Option<T> => "option",
    Box<T> => "box",
    BTreeMap<K, V> => "map",
    BTreeSet<T> => "set",
    Result<T, E> => "result",
    Nested<T> => "nested",
}

macro_rules! tuples {
    ($($($part:ident)+;)*) => { $(
        impl<$($part: Described),+> Described for ($($part,)+) {
            fn describe(schema: &mut Schema) {
                schema.push('(');
                schema.list(&[$(Schema::part::<$part>),+]);
                schema.push(')');
            }
        }
    )* };
}

tuples! {
    A; A B; A B C; A B C D; A B C D E; A B C D E F; A B C D E F G; A B C D E F G H;
    A B C D E F G H I; A B C D E F G H I J; A B C D E F G H I J K; A B C D E F G H I J K L;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_described() {
        assert_eq!(Schema::of::<Vec<(u8, Option<Vec<u8>>)>>().text(), "list<(u8,option<bytes>)>");
        assert_eq!(Schema::of::<BTreeMap<String, [f32; 3]>>().text(), "map<string,array<f32,3>>");
        assert_eq!(Schema::of::<Nested<(Text,)>>().text(), "nested<(bytes)>");
    }

    #[crate::data]
    #[derive(Clone)]
    struct Leaf {
        value: u16,
        _rest: (),
    }

    #[crate::data]
    #[derive(Clone)]
    enum Shape {
        Empty,
        Pair(u8, Leaf),
        Named { first: Option<Leaf> },
    }

    #[test]
    fn own_types_are_described() {
        assert_eq!(
            Schema::of::<(Shape, Leaf)>().text(),
            "(enum Shape<6,2>{Empty{},Pair{0:u8,1:struct Leaf<2,2>{value:u16,_rest:()}},\
             Named{first:option<struct Leaf<2,2>{value:u16,_rest:()}>}},struct Leaf<2,2>{value:u16,_rest:()})"
        );
    }

    struct Twice<T>(T);

    impl<T: Described + 'static> Described for Twice<T> {
        fn describe(schema: &mut Schema) {
            schema.structure::<Self, ()>("Twice", |fields| {
                fields.field::<T>("0");
                fields.field::<T>("1");
            });
        }
    }

    struct Tree;

    impl Described for Tree {
        fn describe(schema: &mut Schema) {
            schema.structure::<Self, u32>("Tree", |fields| fields.field::<Vec<Tree>>("children"));
        }
    }

    type Sixteen<T> = Twice<Twice<Twice<Twice<T>>>>;

    #[test]
    fn descriptions_end() {
        assert_eq!(Schema::of::<Tree>().text(), "struct Tree<4,4>{children:list<#0>}");
        let long = Schema::of::<Sixteen<Sixteen<Sixteen<Sixteen<Sixteen<u8>>>>>>();
        assert!(long.text().starts_with("unknown "), "{}", long.text().len());
    }
}
