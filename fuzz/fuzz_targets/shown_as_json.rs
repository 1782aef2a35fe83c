//! Arbitrary bytes as keys and values of arbitrary types, as the tool shows them.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

/// A type, spelled as checkpoints spell it.
#[derive(Arbitrary, Debug)]
enum Type {
    Plain(u8),
    Vec(Box<Type>),
    Option(Box<Type>),
    Tuple(Vec<Type>),
    Other(String),
}

const PLAIN: [&str; 20] = [
    "u8", "u16", "u32", "u64", "u128", "i8", "i16", "i32", "i64", "i128", "f32", "f64", "bool", "char", "()",
    "String", "Text", "usize", "utf8", "bytes",
];

impl Type {
    fn name(&self, is_key: bool) -> String {
        let all = |parts: &[Type]| parts.iter().map(|part| part.name(is_key)).collect::<Vec<_>>();
        match self {
            Type::Plain(plain) => PLAIN[usize::from(*plain) % PLAIN.len()].to_owned(),
            Type::Vec(element) => format!("Vec<{}>", element.name(is_key)),
            Type::Option(some) if is_key => format!("option<{}>", some.name(is_key)),
            Type::Option(some) => format!("Option<{}>", some.name(is_key)),
            Type::Tuple(parts) => format!("({})", all(parts).join(if is_key { "," } else { ", " })),
            Type::Other(name) => name.clone(),
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    key: Type,
    value: Type,
    with_timers: bool,
    width: u8,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let timers = if input.with_timers { " with timers" } else { "" };
    let value = format!("{}{timers}", input.value.name(false));
    millpond::fuzzing::show(&input.key.name(true), &value, u32::from(input.width), &input.bytes);
});
