//! Arbitrary bytes as keys and values of arbitrary types, as the tool shows them.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// A type, spelled as checkpoints spell it.
#[derive(Arbitrary, Debug)]
enum Type {
    Plain(u8),
    /// A type of one other.
    Of(u8, Box<Type>),
    Option(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Struct(u8, u8, Vec<Type>),
    Enum(u8, u8, Vec<Type>),
    Enclosing(u8),
    Tuple(Vec<Type>),
    Other(String),
}

const OF: [&str; 7] = ["list", "box", "set", "nested", "chunk", "pairs", "opaque"];

const PLAIN: [&str; 20] = [
    "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128", "f32", "f64", "bool", "char", "()",
    "String", "Text", "usize", "utf8", "bytes",
];

impl Type {
    fn name(&self, is_key: bool) -> String {
        let all = |parts: &[Type]| parts.iter().map(|part| part.name(is_key)).collect::<Vec<_>>();
        match self {
            Type::Plain(plain) => PLAIN[usize::from(*plain) % PLAIN.len()].to_owned(),
            Type::Of(of, inner) => format!("{}<{}>", OF[usize::from(*of) % OF.len()], inner.name(is_key)),
            Type::Option(some) => format!("option<{}>", some.name(is_key)),
            Type::Map(key, value) => format!("map<{},{}>", key.name(is_key), value.name(is_key)),
            Type::Struct(size, align, fields) => {
                let fields = all(fields).into_iter().enumerate().map(|(at, field)| format!("{at}:{field}"));
                format!("struct S<{size},{align}>{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
            Type::Enum(size, align, variants) => {
                let variants =
                    all(variants).into_iter().enumerate().map(|(at, field)| format!("V{at}{{0:{field}}}"));
                format!("enum E<{size},{align}>{{{}}}", variants.collect::<Vec<_>>().join(","))
            }
            Type::Enclosing(outwards) => format!("#{outwards}"),
            Type::Tuple(parts) => format!("({})", all(parts).join(",")),
            Type::Other(name) => name.clone(),
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    key: Type,
    value: Type,
    with_timers: bool,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let value_type = if input.with_timers { "T with timers" } else { "T" };
    millpond::fuzzing::show(&input.key.name(true), value_type, &input.value.name(false), &input.bytes);
});
