//! Values from the JSON that they are shown as: archives by the schema that the store has. What does not fit is refused
//! with the way to it and what was expected there.

mod map;

use serde_json::{Map, Value};

use self::map::MapLayout;
use crate::error::Result;
use crate::format::shown::schema::{Field, Kind, Type, Variant};
use crate::format::shown::value::{Layout, ValueType};
use crate::inspect::view::{no_such, unhex};

/// How deep values are followed: less than what a reader does.
const DEPTH_MAX: usize = 100;

impl Type {
    /// Whether a value of it may be shown as null.
    fn is_nullable(&self) -> bool {
        match &self.kind {
            Kind::Unit | Kind::Option(_) => true,
            Kind::Boxed(inner) | Kind::Nested(inner) => inner.is_nullable(),
            // A single field without a name stands for itself.
            Kind::Struct(fields) => {
                matches!(&fields[..], [only] if only.name == "0" && only.r#type.is_nullable())
            }
            _ => false,
        }
    }

    /// Whether any part of it can be read by its own program only.
    fn has_opaque(&self) -> bool {
        let any = |fields: &[Field]| fields.iter().any(|field| field.r#type.has_opaque());
        match &self.kind {
            Kind::Opaque => true,
            Kind::List(inner) | Kind::Array(inner, _) | Kind::Option(inner) | Kind::Boxed(inner) => {
                inner.has_opaque()
            }
            Kind::Set(inner) | Kind::Nested(inner) => inner.has_opaque(),
            Kind::Map(key, value) => key.has_opaque() || value.has_opaque(),
            Kind::Tuple(fields) | Kind::Struct(fields) => any(fields),
            Kind::Enum(variants) | Kind::Result(variants) => {
                variants.iter().any(|variant| any(&variant.fields))
            }
            _ => false,
        }
    }
}

impl ValueType {
    /// The bytes of the value that [`decode`](Self::decode) shows as `value`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when it is no value of this type, or of a type that
    /// only the job can write.
    pub(crate) fn encode(&self, value: &Value) -> Result<Vec<u8>> {
        match &self.layout {
            Layout::Archive(root) => archive(root, value, ""),
            Layout::WithTimers(root) => with_timers(root, value),
            Layout::Position => position(value),
            Layout::Chunk(_) | Layout::Pairs(..) => {
                let message = "chunks of a window are not written: what the window has aggregated of them would not follow";
                Err(no_such(message.to_owned()))
            }
        }
    }

    /// Why values of this type are never written; `None` where they can be.
    pub(crate) fn refusal(&self) -> Option<String> {
        match &self.layout {
            Layout::Chunk(_) | Layout::Pairs(..) => Some(
                "it holds the records of a window, and what the window has aggregated of them would not follow".to_owned(),
            ),
            Layout::Archive(root) | Layout::WithTimers(root) if root.has_opaque() => {
                Some("its values have parts that only the job itself can write (opaque in its schema)".to_owned())
            }
            _ => None,
        }
    }
}

/// The root last, what it refers to before it.
fn archive(root: &Type, value: &Value, path: &str) -> Result<Vec<u8>> {
    let mut writer = Writer { out: Vec::new(), enclosing: Vec::new(), path: vec![path.to_owned()] };
    let image = writer.value(root, value)?;
    writer.place(&image, root.align)?;
    Ok(writer.out)
}

fn position(value: &Value) -> Result<Vec<u8>> {
    let fields = value.as_object().filter(|fields| fields.len() == 3);
    let word = |name: &str| fields?.get(name)?.as_u64();
    let words = [word("offset"), word("size"), word("stamp")].into_iter().collect::<Option<Vec<u64>>>();
    let words = words.ok_or_else(|| {
        no_such(format!(
            "expected a position such as {{\"offset\":0,\"size\":0,\"stamp\":0}}, found {}",
            shortened(value)
        ))
    })?;
    Ok(words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

fn with_timers(root: &Type, value: &Value) -> Result<Vec<u8>> {
    let expected = || {
        let example = r#"{"state":..,"timers":[{"timer":"event time","at_ms":0}]}"#;
        no_such(format!("expected a state with timers such as {example}, found {}", shortened(value)))
    };
    let fields = value.as_object().filter(|fields| fields.len() == 2).ok_or_else(expected)?;
    let state = fields.get("state").ok_or_else(expected)?;
    let timers = fields.get("timers").and_then(Value::as_array).ok_or_else(expected)?;
    let mut body = Vec::new();
    for timer in timers {
        let kind = timer.get("timer").and_then(Value::as_str);
        let kind = match kind {
            Some("event time") => 0u8,
            Some("processing time") => 1,
            Some("time to live") => 2,
            _ => return Err(expected()),
        };
        let at = timer.get("at_ms").and_then(Value::as_u64).ok_or_else(expected)?;
        body.push(kind);
        body.extend(at.to_le_bytes());
    }
    let has_state = !state.is_null() || matches!(root.kind, Kind::Unit);
    if !has_state && timers.is_empty() {
        return Err(no_such("a key without state and timers is deleted, and not set".to_owned()));
    }
    if !has_state && root.is_nullable() {
        return Err(no_such(format!("at `state`: {AMBIGUOUS}")));
    }
    let count = u32::try_from(timers.len()).ok().filter(|count| *count < 1 << 31).ok_or_else(expected)?;
    let head = count | u32::from(has_state) << 31;
    let mut bytes = head.to_le_bytes().to_vec();
    bytes.extend(body);
    if has_state {
        bytes.extend(archive(root, state, "state")?);
    }
    Ok(bytes)
}

const AMBIGUOUS: &str = "null stands for two different values of this type, and is not written";

/// A piece that is not yet at its place: its bytes, and the pointers in it.
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    pub(super) pointers: Vec<Pointer>,
}

/// A relative pointer: where it is in its piece, the place that it counts from, and the place that it leads to.
pub(super) struct Pointer {
    pub(super) at: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Image {
    pub(super) fn zeroed(size: usize) -> Self {
        Image { bytes: vec![0; size], pointers: Vec::new() }
    }

    pub(super) fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn point(&mut self, at: usize, to: usize) {
        self.pointers.push(Pointer { at, from: at, to });
    }

    pub(super) fn insert(&mut self, at: usize, part: &Image) {
        self.set(at, &part.bytes);
        let moved =
            |pointer: &Pointer| Pointer { at: at + pointer.at, from: at + pointer.from, to: pointer.to };
        self.pointers.extend(part.pointers.iter().map(moved));
    }
}

/// An archive that is being written.
pub(super) struct Writer<'t> {
    out: Vec<u8>,
    /// The structures and enums around this place, outermost first.
    enclosing: Vec<&'t Type>,
    /// The way to this place.
    path: Vec<String>,
}

impl<'t> Writer<'t> {
    /// Appends a piece; returns its place.
    pub(super) fn place(&mut self, image: &Image, align: usize) -> Result<usize> {
        let at = self.out.len().next_multiple_of(align.max(1));
        self.out.resize(at, 0);
        self.out.extend(&image.bytes);
        for pointer in &image.pointers {
            let too_long = || no_such("the value is longer than 2 GiB".to_owned());
            let distance = pointer.to as i64 - (at + pointer.from) as i64;
            let distance = i32::try_from(distance).map_err(|_| too_long())?;
            self.out[at + pointer.at..at + pointer.at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        Ok(at)
    }

    /// Writes what a value refers to, and returns the value itself.
    pub(super) fn value(&mut self, r#type: &'t Type, value: &Value) -> Result<Image> {
        if self.path.len() > DEPTH_MAX {
            return Err(self.wrong("a value that is less deep", value));
        }
        match &r#type.kind {
            Kind::Enclosing(outwards) => {
                let Some(place) = self.enclosing.len().checked_sub(outwards + 1) else {
                    return Err(self.wrong("a known type", value));
                };
                let inner = self.enclosing.split_off(place);
                let image = self.value(inner[0], value);
                self.enclosing.truncate(place);
                self.enclosing.extend(inner);
                image
            }
            Kind::Struct(fields) => {
                self.enclosing.push(r#type);
                let mut image = Image::zeroed(r#type.size);
                let written = self.fields(&mut image, fields, value);
                self.enclosing.pop();
                written.map(|()| image)
            }
            Kind::Enum(variants) => {
                self.enclosing.push(r#type);
                let mut image = Image::zeroed(r#type.size);
                let written = self.variant(&mut image, variants, value);
                self.enclosing.pop();
                written.map(|()| image)
            }
            _ => self.plain(r#type, value),
        }
    }

    fn plain(&mut self, r#type: &'t Type, value: &Value) -> Result<Image> {
        let mut image = Image::zeroed(r#type.size);
        match &r#type.kind {
            Kind::Unsigned | Kind::Signed => image.bytes = self.integer(r#type, value)?,
            Kind::Float => image.bytes = self.float(r#type.size, value)?,
            Kind::Bool => {
                let value = value.as_bool().ok_or_else(|| self.wrong("true or false", value))?;
                image.bytes = vec![u8::from(value)];
            }
            Kind::Char => {
                let mut all = value.as_str().unwrap_or_default().chars();
                let one = all.next().filter(|_| all.next().is_none());
                let one = one.ok_or_else(|| self.wrong("a text of one character", value))?;
                image.set(0, &u32::from(one).to_le_bytes());
            }
            Kind::Unit if value.is_null() => {}
            Kind::Unit => return Err(self.wrong("null", value)),
            Kind::String => {
                let text = value.as_str().ok_or_else(|| self.wrong("a text", value))?;
                self.string(&mut image, text)?;
            }
            Kind::Bytes => {
                let bytes =
                    bytes_of(value).ok_or_else(|| self.wrong("a text, or {\"hex\":\"ff00\"}", value))?;
                self.list(&mut image, &Image { bytes, pointers: Vec::new() }, 1, None)?;
            }
            Kind::Nested(inner) => {
                let bytes = archive(inner, value, &self.path.join(""))?;
                self.list(&mut image, &Image { bytes, pointers: Vec::new() }, 1, None)?;
            }
            Kind::List(element) => {
                let (elements, count) = self.elements(element, value, None)?;
                let align = self.resolved(element).align;
                self.list(&mut image, &elements, align, Some(count))?;
            }
            Kind::Array(element, count) => image = self.elements(element, value, Some(*count))?.0,
            Kind::Option(some) => {
                if value.is_null() && some.is_nullable() {
                    return Err(self.error(AMBIGUOUS));
                }
                if !value.is_null() {
                    image.bytes[0] = 1;
                    let inner = self.value(some, value)?;
                    image.insert(some.align, &inner);
                }
            }
            Kind::Boxed(inner) => {
                let boxed = self.value(inner, value)?;
                let align = self.resolved(inner).align;
                let to = self.place(&boxed, align)?;
                image.point(0, to);
            }
            Kind::Map(key, of) => image = self.map(key, Some(of), value)?,
            Kind::Set(key) => image = self.map(key, None, value)?,
            Kind::Tuple(fields) => self.in_order(&mut image, fields, value)?,
            Kind::Result(variants) => self.variant(&mut image, variants, value)?,
            Kind::Struct(_) | Kind::Enum(_) | Kind::Enclosing(_) | Kind::Opaque => {
                return Err(self.wrong("nothing: only the job can write this type", value));
            }
        }
        Ok(image)
    }

    fn integer(&self, r#type: &Type, value: &Value) -> Result<Vec<u8>> {
        let bits = 8 * r#type.size as u32;
        let (is_signed, text) = (
            r#type.kind == Kind::Signed,
            match value {
                Value::Number(number) => number.to_string(),
                Value::String(text) => text.clone(),
                _ => String::new(),
            },
        );
        let bytes = if is_signed {
            let fits = |number: &i128| number << (128 - bits) >> (128 - bits) == *number;
            text.parse::<i128>().ok().filter(fits).map(i128::to_le_bytes)
        } else {
            let fits = |number: &u128| number << (128 - bits) >> (128 - bits) == *number;
            text.parse::<u128>().ok().filter(fits).map(u128::to_le_bytes)
        };
        let bytes = bytes.map(|bytes| bytes[..r#type.size].to_vec());
        bytes.ok_or_else(|| {
            let sign = if is_signed { "with" } else { "without" };
            self.wrong(&format!("a whole number of {bits} bits {sign} sign"), value)
        })
    }

    fn float(&self, size: usize, value: &Value) -> Result<Vec<u8>> {
        let named = || value.as_str().filter(|text| ["NaN", "inf", "-inf"].contains(text))?.parse().ok();
        let number = value.as_f64().or_else(named);
        let number = number.ok_or_else(|| self.wrong("a number, \"NaN\", \"inf\" or \"-inf\"", value))?;
        if size == 8 {
            return Ok(number.to_le_bytes().to_vec());
        }
        let small = number as f32;
        if small.is_infinite() && number.is_finite() {
            return Err(self.wrong("a number of 32 bits", value));
        }
        Ok(small.to_le_bytes().to_vec())
    }

    /// Up to eight bytes are in the root.
    fn string(&mut self, image: &mut Image, text: &str) -> Result<()> {
        if text.len() <= 8 {
            image.bytes.fill(0xff);
            image.set(0, text.as_bytes());
            return Ok(());
        }
        let Some(length) = u32::try_from(text.len()).ok().filter(|length| *length < 1 << 30) else {
            return Err(self.error("the text is longer than 1 GiB"));
        };
        let to = self.place(&Image { bytes: text.as_bytes().to_vec(), pointers: Vec::new() }, 1)?;
        let word = length & 0x3f | 0x80 | (length & !0x3f) << 2;
        image.set(0, &word.to_le_bytes());
        image.pointers.push(Pointer { at: 4, from: 0, to });
        Ok(())
    }

    /// Writes the elements; `count` is that of the bytes if it is not given.
    fn list(
        &mut self,
        image: &mut Image,
        elements: &Image,
        align: usize,
        count: Option<usize>,
    ) -> Result<()> {
        let count = u32::try_from(count.unwrap_or(elements.bytes.len()));
        let count = count.map_err(|_| no_such("a list is longer than 4 Gi".to_owned()))?;
        let to = self.place(elements, align)?;
        image.point(0, to);
        image.set(4, &count.to_le_bytes());
        Ok(())
    }

    fn elements(&mut self, element: &'t Type, value: &Value, count: Option<usize>) -> Result<(Image, usize)> {
        let found = value.as_array().filter(|all| count.is_none_or(|count| all.len() == count));
        let Some(all) = found else {
            let expected = count.map_or("a list".to_owned(), |count| format!("a list of {count}"));
            return Err(self.wrong(&expected, value));
        };
        let size = self.resolved(element).size;
        let mut image = Image::zeroed(size * all.len());
        for (at, value) in all.iter().enumerate() {
            let part = self.at(format!("[{at}]"), |writer| writer.value(element, value))?;
            image.insert(at * size, &part);
        }
        Ok((image, all.len()))
    }

    fn map(&mut self, key: &'t Type, of: Option<&'t Type>, value: &Value) -> Result<Image> {
        let entries = self.entries(key, of.is_some(), value)?;
        let mut names: Vec<String> = entries.iter().map(|(key, _)| key.to_string()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.error(&format!("the key {} is there twice", twice[0])));
        }
        let layout = MapLayout::of(self.resolved(key), of.map(|of| self.resolved(of)));
        let mut image = Image::zeroed(8);
        match self.node(&layout, (key, of), &entries)? {
            Some(root) => image.point(0, root),
            // It leads nowhere.
            None => image.set(0, &1i32.to_le_bytes()),
        }
        let count = u32::try_from(entries.len()).map_err(|_| no_such("a map is too long".to_owned()))?;
        image.set(4, &count.to_le_bytes());
        Ok(image)
    }

    fn entries(&self, key: &Type, is_map: bool, value: &Value) -> Result<Vec<(Value, Value)>> {
        match (value, is_map) {
            (Value::Object(named), true) if key.kind == Kind::String => {
                Ok(named.iter().map(|(name, value)| (Value::String(name.clone()), value.clone())).collect())
            }
            (Value::Array(keys), false) => Ok(keys.iter().map(|key| (key.clone(), Value::Null)).collect()),
            (Value::Array(pairs), true) if key.kind != Kind::String => pairs
                .iter()
                .map(|pair| match pair.as_array().map(Vec::as_slice) {
                    Some([key, value]) => Ok((key.clone(), value.clone())),
                    _ => Err(self.wrong("pairs of key and value", pair)),
                })
                .collect(),
            (_, true) if key.kind == Kind::String => Err(self.wrong("an object", value)),
            (_, true) => Err(self.wrong("a list of pairs", value)),
            _ => Err(self.wrong("a list", value)),
        }
    }

    fn in_order(&mut self, image: &mut Image, fields: &'t [Field], value: &Value) -> Result<()> {
        let all = value.as_array().filter(|all| all.len() == fields.len());
        let Some(all) = all else {
            return Err(self.wrong(&format!("a list of {}", fields.len()), value));
        };
        for (at, (field, value)) in fields.iter().zip(all).enumerate() {
            let part = self.at(format!("[{at}]"), |writer| writer.value(&field.r#type, value))?;
            image.insert(field.offset, &part);
        }
        Ok(())
    }

    /// By name, or in order where fields have numbers; a single one without a name stands for itself.
    fn fields(&mut self, image: &mut Image, fields: &'t [Field], value: &Value) -> Result<()> {
        match fields {
            [only] if only.name == "0" => {
                let part = self.value(&only.r#type, value)?;
                image.insert(only.offset, &part);
                Ok(())
            }
            [first, ..] if first.name == "0" => self.in_order(image, fields, value),
            fields => self.named(image, fields, value),
        }
    }

    fn named(&mut self, image: &mut Image, fields: &'t [Field], value: &Value) -> Result<()> {
        let names = || fields.iter().map(|field| &*field.name).collect::<Vec<_>>().join(", ");
        let Some(found) = value.as_object() else {
            return Err(self.wrong(&format!("an object of {}", names()), value));
        };
        if let Some(unknown) = found.keys().find(|name| fields.iter().all(|field| field.name != **name)) {
            let expected = format!("no field `{unknown}`, but {}", names());
            return Err(self.wrong(&expected, value));
        }
        for field in fields {
            let Some(value) = found.get(&field.name) else {
                return Err(self.wrong(&format!("a field `{}`", field.name), value));
            };
            let part = self.at(format!(".{}", field.name), |writer| writer.value(&field.r#type, value))?;
            image.insert(field.offset, &part);
        }
        Ok(())
    }

    /// The name of the variant, or an object of its name and its fields.
    fn variant(&mut self, image: &mut Image, variants: &'t [Variant], value: &Value) -> Result<()> {
        let null = Value::Object(Map::new());
        let chosen = match value {
            Value::String(name) => Some((name, &null, true)),
            Value::Object(one) if one.len() == 1 => {
                one.iter().next().map(|(name, value)| (name, value, false))
            }
            _ => None,
        };
        let of = |(name, ..): &(&String, &Value, bool)| variants.iter().find(|known| known.name == **name);
        let found = chosen.and_then(|chosen| Some((chosen, of(&chosen)?)));
        let found = found.filter(|((_, _, is_plain), variant)| variant.fields.is_empty() == *is_plain);
        let Some(((name, inner, _), variant)) = found else {
            let known = variants.iter().map(|known| match known.fields.is_empty() {
                true => format!("\"{}\"", known.name),
                false => format!("{{\"{}\":..}}", known.name),
            });
            return Err(self.wrong(&format!("one of {}", known.collect::<Vec<_>>().join(", ")), value));
        };
        let width = Type::tag_bytes(variants.len());
        image.set(0, &variant.tag.to_le_bytes()[..width]);
        if variant.fields.is_empty() {
            return Ok(());
        }
        self.at(format!(".{name}"), |writer| writer.fields(image, &variant.fields, inner))
    }

    pub(super) fn at<T>(&mut self, step: String, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.path.push(step);
        let outcome = inner(self);
        self.path.pop();
        outcome
    }

    fn resolved(&self, r#type: &'t Type) -> &'t Type {
        match r#type.kind {
            Kind::Enclosing(outwards) => {
                let place = self.enclosing.len().checked_sub(outwards + 1);
                place.map_or(r#type, |place| self.enclosing[place])
            }
            _ => r#type,
        }
    }

    fn wrong(&self, expected: &str, found: &Value) -> crate::error::Error {
        self.error(&format!("expected {expected}, found {}", shortened(found)))
    }

    fn error(&self, what: &str) -> crate::error::Error {
        let path = self.path.join("");
        let at = if path.is_empty() { String::new() } else { format!("at `{path}`: ") };
        no_such(format!("{at}{what}"))
    }
}

fn bytes_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        value => unhex(value.as_object().filter(|fields| fields.len() == 1)?.get("hex")?.as_str()?),
    }
}

/// What was found, in a few words.
pub(crate) fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}..", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
