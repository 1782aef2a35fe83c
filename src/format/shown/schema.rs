//! The schema of archives, read from the text that a store has of it. The notation and the layout are those of
//! `checkpoint-format.md`, section 7.

/// How deep types may nest.
const DEPTH_MAX: usize = 64;

/// A type, and the layout of its archived root.
#[derive(Debug, PartialEq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) size: usize,
    pub(crate) align: usize,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    Float,
    Bool,
    Char,
    Unit,
    String,
    /// A list of bytes.
    Bytes,
    List(Box<Type>),
    Array(Box<Type>, usize),
    Option(Box<Type>),
    Boxed(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Set(Box<Type>),
    /// A list of bytes that are an archive.
    Nested(Box<Type>),
    Tuple(Vec<Field>),
    Struct(Vec<Field>),
    Enum(Vec<Variant>),
    /// As an enum, and not counted among those that enclose a place.
    Result(Vec<Variant>),
    /// Only its own program can read it.
    Opaque,
    /// The structure or enum that encloses this place, counted outwards from 0.
    Enclosing(usize),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) r#type: Type,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) tag: u128,
    pub(crate) fields: Vec<Field>,
}

impl Type {
    /// `None` when the text is no schema that is known here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text, depth: 0, enclosing: Vec::new(), behind_pointer: 0 };
        let parsed = parser.parse_type()?;
        parser.rest.is_empty().then_some(parsed)
    }

    fn new(kind: Kind, size: usize, align: usize) -> Self {
        Type { kind, size, align }
    }

    /// The bytes of the tag of an enum with so many variants.
    pub(crate) fn tag_bytes(variants: usize) -> usize {
        match variants {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
    /// The sizes and alignments of the structures and enums around this place, outermost first.
    enclosing: Vec<(usize, usize)>,
    /// So many of them have a pointer between them and this place, so that it can be one of them again.
    behind_pointer: usize,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn word(&mut self) -> &str {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn number(&mut self) -> Option<usize> {
        let word = self.word();
        word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?
    }

    fn parse_type(&mut self) -> Option<Type> {
        self.depth = Some(self.depth + 1).filter(|depth| *depth <= DEPTH_MAX)?;
        let parsed = self.parse_here();
        self.depth -= 1;
        parsed
    }

    fn parse_here(&mut self) -> Option<Type> {
        if self.rest.starts_with('(') {
            return self.tuple();
        }
        if self.take("#").is_some() {
            let outwards = self.number()?;
            let place = self.enclosing.len().checked_sub(outwards.checked_add(1)?)?;
            let (size, align) = *self.enclosing.get(place).filter(|_| place < self.behind_pointer)?;
            return Some(Type::new(Kind::Enclosing(outwards), size, align));
        }
        let word = self.word().to_owned();
        if let Some(plain) = plain(&word) {
            return Some(plain);
        }
        match &*word {
            "struct" | "enum" => self.named(word == "enum"),
            "opaque" => {
                let (size, align) = self.size_and_align()?;
                Some(Type::new(Kind::Opaque, size, align))
            }
            generic => self.generic(generic),
        }
    }

    fn generic(&mut self, name: &str) -> Option<Type> {
        self.take("<")?;
        let parsed = match name {
            "list" => Type::new(Kind::List(self.pointed_to()?), 8, 4),
            "nested" => Type::new(Kind::Nested(self.apart()?), 8, 4),
            "set" => Type::new(Kind::Set(self.pointed_to()?), 8, 4),
            "box" => Type::new(Kind::Boxed(self.pointed_to()?), 4, 4),
            "map" => {
                let key = self.pointed_to()?;
                self.take(",")?;
                Type::new(Kind::Map(key, self.pointed_to()?), 8, 4)
            }
            "array" => {
                let element = Box::new(self.parse_type()?);
                self.take(",")?;
                let count = self.number()?;
                let (size, align) = (element.size.checked_mul(count)?, element.align);
                Type::new(Kind::Array(element, count), size, align)
            }
            "option" => {
                let inner = Box::new(self.parse_type()?);
                let align = inner.align;
                let size = align.checked_add(inner.size)?.checked_next_multiple_of(align)?;
                Type::new(Kind::Option(inner), size, align)
            }
            "result" => self.result()?,
            _ => return None,
        };
        self.take(">")?;
        Some(parsed)
    }

    fn result(&mut self) -> Option<Type> {
        let ok = self.parse_type()?;
        self.take(",")?;
        let error = self.parse_type()?;
        let variant = |name: &str, tag, r#type| {
            let field = Field { name: "0".to_owned(), offset: 0, r#type };
            Variant { name: name.to_owned(), tag, fields: vec![field] }
        };
        let mut variants = vec![variant("Ok", 0, ok), variant("Err", 1, error)];
        let (size, align) = lay_out_variants(&mut variants)?;
        Some(Type::new(Kind::Result(variants), size, align))
    }

    /// A type that a pointer leads to: it may be one of those around it.
    fn pointed_to(&mut self) -> Option<Box<Type>> {
        let before = std::mem::replace(&mut self.behind_pointer, self.enclosing.len());
        let parsed = self.parse_type()?;
        self.behind_pointer = before;
        Some(Box::new(parsed))
    }

    /// The type of an archive in another one, in which nothing of that can be referred to.
    fn apart(&mut self) -> Option<Box<Type>> {
        let around = (std::mem::take(&mut self.enclosing), std::mem::take(&mut self.behind_pointer));
        let parsed = self.parse_type()?;
        (self.enclosing, self.behind_pointer) = around;
        Some(Box::new(parsed))
    }

    fn tuple(&mut self) -> Option<Type> {
        self.take("(")?;
        if self.take(")").is_some() {
            return Some(Type::new(Kind::Unit, 0, 1));
        }
        let mut fields = Vec::new();
        loop {
            fields.push(Field { name: fields.len().to_string(), offset: 0, r#type: self.parse_type()? });
            if self.take(",").is_none() {
                break;
            }
        }
        self.take(")")?;
        let (size, align) = lay_out(&mut fields, 0)?;
        Some(Type::new(Kind::Tuple(fields), size, align))
    }

    fn size_and_align(&mut self) -> Option<(usize, usize)> {
        self.take("<")?;
        let size = self.number()?;
        self.take(",")?;
        let align = self.number().filter(|align| align.is_power_of_two())?;
        self.take(">")?;
        Some((size, align))
    }

    /// A structure or an enum, whose size must be what its fields come to.
    fn named(&mut self, is_enum: bool) -> Option<Type> {
        self.take(" ")?;
        self.word();
        let stated = self.size_and_align()?;
        self.take("{")?;
        self.enclosing.push(stated);
        let (kind, laid_out) = if is_enum {
            let mut variants = self.variants()?;
            let laid_out = lay_out_variants(&mut variants)?;
            (Kind::Enum(variants), laid_out)
        } else {
            let mut fields = self.fields()?;
            let laid_out = lay_out(&mut fields, 0)?;
            (Kind::Struct(fields), laid_out)
        };
        self.enclosing.pop();
        (laid_out == stated).then(|| Type::new(kind, stated.0, stated.1))
    }

    /// Up to the brace that ends them.
    fn fields(&mut self) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while self.take("}").is_none() {
            if !fields.is_empty() {
                self.take(",")?;
            }
            let name = self.word().to_owned();
            self.take(":")?;
            fields.push(Field { name, offset: 0, r#type: self.parse_type()? });
        }
        Some(fields)
    }

    fn variants(&mut self) -> Option<Vec<Variant>> {
        let mut variants: Vec<Variant> = Vec::new();
        while self.take("}").is_none() {
            if !variants.is_empty() {
                self.take(",")?;
            }
            let name = self.word().to_owned();
            let tag = match self.take("=") {
                Some(()) => self.number()? as u128,
                None => variants.last().map_or(0, |before| before.tag + 1),
            };
            self.take("{")?;
            variants.push(Variant { name, tag, fields: self.fields()? });
        }
        Some(variants)
    }
}

fn plain(word: &str) -> Option<Type> {
    let (kind, size) = match word {
        "bool" => (Kind::Bool, 1),
        "char" => (Kind::Char, 4),
        "string" => return Some(Type::new(Kind::String, 8, 4)),
        "bytes" => return Some(Type::new(Kind::Bytes, 8, 4)),
        number => {
            let kind = match number.get(..1)? {
                "u" => Kind::Unsigned,
                "i" => Kind::Signed,
                "f" => Kind::Float,
                _ => return None,
            };
            let size = match &number[1..] {
                "8" if kind != Kind::Float => 1,
                "16" if kind != Kind::Float => 2,
                "32" => 4,
                "64" => 8,
                "128" if kind != Kind::Float => 16,
                _ => return None,
            };
            (kind, size)
        }
    };
    Some(Type::new(kind, size, size))
}

/// Places fields one after the other, as Rust's `repr(C)` does; returns size and alignment.
fn lay_out(fields: &mut [Field], from: usize) -> Option<(usize, usize)> {
    let (mut end, mut align) = (from, 1);
    for field in fields {
        let inner = &field.r#type;
        field.offset = end.checked_next_multiple_of(inner.align)?;
        end = field.offset.checked_add(inner.size)?;
        align = align.max(inner.align);
    }
    Some((end.checked_next_multiple_of(align)?, align))
}

/// Each variant is a structure that begins with the tag.
fn lay_out_variants(variants: &mut [Variant]) -> Option<(usize, usize)> {
    let tag = Type::tag_bytes(variants.len());
    let (mut size, mut align) = (tag, tag);
    for variant in variants {
        let (end, inner) = lay_out(&mut variant.fields, tag)?;
        (size, align) = (size.max(end), align.max(inner));
    }
    Some((size.checked_next_multiple_of(align)?, align))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Data, Schema};

    #[crate::data]
    #[derive(Clone)]
    enum Event {
        Nothing,
        Sale(u64, String),
        Note { text: Option<String>, by: Box<u16>, wide: u128 },
        Outcome(Result<u8, Vec<u32>>, [i64; 3]),
    }

    #[crate::data]
    #[derive(Clone)]
    struct Empty;

    fn layout_agrees<T: Data>(align: usize) {
        let parsed = Type::parse(Schema::of::<T>().text());
        let found = parsed.map(|parsed| (parsed.size, parsed.align));
        assert_eq!(found, Some((T::archived_width(), align)), "{}", Schema::of::<T>().text());
    }

    #[test]
    fn layouts_are_those_of_the_archives() {
        layout_agrees::<Event>(16);
        layout_agrees::<Empty>(1);
        layout_agrees::<(u8, Event, u8, Empty)>(16);
        layout_agrees::<Option<(char, bool, f32, Vec<Event>)>>(4);
        layout_agrees::<Result<(), u64>>(8);
        layout_agrees::<std::collections::BTreeMap<String, std::time::Duration>>(4);
        layout_agrees::<std::time::Duration>(8);
        layout_agrees::<(std::collections::BTreeSet<u8>,)>(4);
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for text in [
            "",
            "u7",
            "list<u8",
            "list<>",
            "(u8",
            "struct A<4,4>{a:u8}",
            "option<#0>",
            "struct A<8,4>{a:#0}",
            "struct A<8,4>{a:nested<#0>}",
            "struct A<8,4>{a:list<enum B<8,8>{C{0:#0}}>}",
            "u8 ",
            "unknown 12",
            "opaque<4,3>",
            "array<u64,18446744073709551615>",
            "f16",
        ] {
            assert_eq!(Type::parse(text), None, "{text}");
        }
        assert_eq!(Type::parse(&"list<".repeat(100_000)), None);
    }
}
