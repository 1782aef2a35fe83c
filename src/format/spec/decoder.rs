//! Decodes frames by the tables and rules of the document, which it reads them from, and by nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::format::frame::HEADER_BYTES;

pub(super) const SPEC: &str = include_str!("../../../checkpoint-format.md");

/// The layout tables by name.
pub(super) type Schemas = BTreeMap<String, Schema>;

struct Field {
    offset: usize,
    kind: String,
    name: String,
}

/// The layout of a structure by its table.
pub(super) struct Schema {
    pub(super) size: usize,
    pub(super) align: usize,
    fields: Vec<Field>,
}

/// The cells of the table rows of `text`, without their backticks.
pub(super) fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    let body = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    body.map(cells).collect()
}

/// What follows the heading that begins with `title`, up to the next heading.
pub(super) fn section(title: &str) -> &'static str {
    let at = SPEC.find(title).unwrap_or_else(|| panic!("the document has no `{title}`"));
    let body = &SPEC[at + title.len()..];
    body.find("\n#").map_or(body, |end| &body[..end])
}

/// The layout tables: `#### Name (N bytes, aligned to A)`.
pub(super) fn schemas() -> Schemas {
    let mut schemas = Schemas::new();
    for part in SPEC.split("\n#### ").skip(1) {
        let Some((title, body)) = part.split_once('\n') else { continue };
        let Some((name, rest)) = title.split_once(" (") else { continue };
        let Some((size, align)) = rest.trim_end_matches(')').split_once(" bytes, aligned to ") else {
            continue;
        };
        let body = &body[..body.find("\n#").unwrap_or(body.len())];
        let field = |row: &Vec<String>| {
            let offset = row[0].parse().ok()?;
            Some(Field { offset, kind: row[2].clone(), name: row[3].clone() })
        };
        let fields = rows(body).iter().filter_map(field).collect();
        let (Ok(size), Ok(align)) = (size.parse(), align.parse()) else { continue };
        schemas.insert(name.replace('`', ""), Schema { size, align, fields });
    }
    schemas
}

/// The names of the frame kinds by number.
pub(super) fn kinds() -> BTreeMap<u16, String> {
    let rows = rows(section("### Kinds of frames"));
    rows.iter().filter_map(|row| Some((row[0].parse().ok()?, row[1].clone()))).collect()
}

pub(super) fn hex_blocks() -> BTreeMap<&'static str, &'static str> {
    let block = |part: &'static str| {
        let (name, rest) = part.split_once('\n')?;
        Some((name, &rest[..rest.find("```")?]))
    };
    SPEC.split("```hex name=").skip(1).filter_map(block).collect()
}

/// Reads values by the rules of "Archives", and takes note of what each byte was for.
struct Decoder<'a> {
    schemas: &'a Schemas,
    frame: &'a [u8],
    spans: Vec<(usize, usize, String)>,
}

impl Decoder<'_> {
    fn bytes(&self, at: usize, length: usize) -> &[u8] {
        &self.frame[at..at + length]
    }

    fn int(&self, at: usize, length: usize) -> u64 {
        self.bytes(at, length).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn note(&mut self, at: usize, length: usize, text: String) {
        self.spans.push((at, length, text));
    }

    /// The place that the relative pointer at `at + from` points to, counted from `at`.
    fn target(&self, at: usize, from: usize) -> usize {
        at.wrapping_add_signed(self.int(at + from, 4) as u32 as i32 as isize)
    }

    fn size_of(&self, kind: &str) -> usize {
        match kind {
            "u8" | "bool" => 1,
            "u16" => 2,
            "u32" => 4,
            "u64" | "string" => 8,
            "u8 x 4" => 4,
            "u8 x 16" => 16,
            list if list.starts_with("list of ") => 8,
            name => self.schemas.get(name).unwrap_or_else(|| panic!("no table for {name}")).size,
        }
    }

    /// Decodes a value, written as Rust's `{:?}` does.
    fn value(&mut self, kind: &str, at: usize, name: &str) -> String {
        let size = self.size_of(kind);
        if let Some(item) = kind.strip_prefix("list of ") {
            return self.list(item, at, name);
        }
        match kind {
            "string" => self.string(at, name),
            "bool" => {
                let value = (self.int(at, 1) == 1).to_string();
                self.note(at, 1, format!("{name} = {value}"));
                value
            }
            "u8" | "u16" | "u32" | "u64" => {
                let value = self.int(at, size);
                let shown = if value >> 48 == 0 { value.to_string() } else { format!("{value:#018x}") };
                self.note(at, size, format!("{name} = {shown}"));
                value.to_string()
            }
            "u8 x 4" | "u8 x 16" => {
                let value = format!("{:?}", self.bytes(at, size));
                self.note(at, size, name.to_owned());
                value
            }
            _ => self.structure(kind, at, name),
        }
    }

    fn structure(&mut self, kind: &str, at: usize, name: &str) -> String {
        let schemas = self.schemas;
        let mut fields = Vec::new();
        for field in &schemas[kind].fields {
            let path = if name.is_empty() { field.name.clone() } else { format!("{name}.{}", field.name) };
            let value = self.value(&field.kind, at + field.offset, &path);
            fields.push(format!("{}: {value}", field.name));
        }
        format!("{kind} {{ {} }}", fields.join(", "))
    }

    fn list(&mut self, item: &str, at: usize, name: &str) -> String {
        let (to, count) = (self.target(at, 0), self.int(at + 4, 4) as usize);
        self.note(at, 8, format!("{name}: {count} at {to:04x}"));
        let size = self.size_of(item);
        let values: Vec<String> =
            (0..count).map(|i| self.value(item, to + i * size, &format!("{name}[{i}]"))).collect();
        format!("[{}]", values.join(", "))
    }

    fn string(&mut self, at: usize, name: &str) -> String {
        let inline = self.frame[at] & 0xc0 != 0x80;
        let value = if inline {
            let bytes = self.bytes(at, 8);
            let length = bytes.iter().position(|byte| *byte == 0xff).unwrap_or(8);
            text_of(&bytes[..length])
        } else {
            let word = self.int(at, 4);
            let length = (word & 0x3f | (word & !0xff) >> 2) as usize;
            let to = self.target(at, 4);
            let text = text_of(self.bytes(to, length));
            self.note(to, length, format!("{text:?}"));
            self.note(at, 8, format!("{name}: {length} bytes at {to:04x}"));
            return format!("{text:?}");
        };
        self.note(at, 8, format!("{name} = {value:?}, inline"));
        format!("{value:?}")
    }

    fn raw(&mut self, at: usize, length: usize, what: &str) -> usize {
        let text = String::from_utf8(self.bytes(at, length).to_vec());
        let printable = text.ok().filter(|text| !text.chars().any(|c| c.is_control() && c != '\n'));
        let shown = printable.map_or(what.to_owned(), |text| format!("{what} {text:?}"));
        if length > 0 {
            self.note(at, length, shown);
        }
        at + length
    }

    /// Decodes a frame's payload; the result is what `{:?}` shows of the record, or of the parts.
    fn payload(&mut self, kind: &str) -> String {
        let (start, end) = (HEADER_BYTES, self.frame.len());
        match kind {
            "Identity" => {
                self.note(start, 16, "store".to_owned());
                self.raw(start + 16, end - start - 16, "job");
                String::new()
            }
            "Witness" if end == start => String::new(),
            "Witness" => self.value("u64", start, "durable length"),
            "Block" => {
                let header = self.value("BlockHeader", start, "");
                let mut at = start + 24;
                if self.int(start + 8, 4) == 1 {
                    at = self.raw(at, end - at, "lines");
                }
                while at < end {
                    let length = self.int(at, 4) as usize;
                    self.note(at, 4, format!("record of {length} bytes"));
                    at = self.raw(at + 4, length, "archive");
                }
                header
            }
            "Page" => self.page(start, end),
            "Filter" => {
                let words = (start..end).step_by(4).enumerate();
                let words = words.map(|(at, place)| self.value("u32", place, &format!("word {}", at % 8)));
                words.collect::<Vec<_>>().join(" ")
            }
            "Trailer" => self.value("Trailer", start, ""),
            name => {
                let name =
                    if self.schemas.contains_key(name) { name.to_owned() } else { format!("{name}Record") };
                self.value(&name, end - self.size_of(&name), "")
            }
        }
    }

    fn page(&mut self, mut at: usize, end: usize) -> String {
        let mut entries = Vec::new();
        while at < end {
            let (hash, marked) = (self.int(at, 8), self.int(at + 8, 4));
            let (key, value) = ((marked & 0x7fff_ffff) as usize, self.int(at + 12, 4) as usize);
            self.value("EntryHeader", at, "");
            let from = at + 16;
            let bytes = self.bytes(from, key).to_vec();
            at = self.raw(from, key, "key");
            let gone = marked >> 31 == 1;
            let state = if gone { None } else { Some(self.bytes(at, value).to_vec()) };
            entries.push(format!("{hash:016x} {bytes:?} {state:?}"));
            at = self.raw(at, value, "value");
        }
        entries.join("\n")
    }

    /// The annotated hex of what was decoded. Bytes that nothing was said about are zero padding.
    fn dump(mut self) -> String {
        self.spans.sort();
        let (mut text, mut at) = (String::new(), 0);
        let spans = std::mem::take(&mut self.spans);
        for (start, length, what) in spans.into_iter().chain([(self.frame.len(), 0, String::new())]) {
            assert!(start >= at, "byte {at} was used twice, for {what}");
            if start > at {
                assert!(self.bytes(at, start - at).iter().all(|byte| *byte == 0), "padding is not zero");
                self.lines(&mut text, at, start, "padding");
            }
            self.lines(&mut text, start, start + length, &what);
            at = start + length;
        }
        text
    }

    fn lines(&self, text: &mut String, start: usize, end: usize, what: &str) {
        for from in (start..end).step_by(16) {
            let line = &self.frame[from..end.min(from + 16)];
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            let comment = if from == start { format!("  ; {what}") } else { String::new() };
            let line = format!("{from:04x}: {:<47}{comment}", hex.join(" "));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
}

/// The annotated hex of a frame and the record in it.
pub(super) fn read_frame(schemas: &Schemas, frame: &[u8]) -> (String, String) {
    let mut decoder = Decoder { schemas, frame, spans: Vec::new() };
    decoder.value("FrameHeader", 0, "");
    let (length, crc) = (decoder.int(8, 4), decoder.int(12, 4));
    let covered = [&frame[0..12], &frame[16..24], &frame[24..]].concat();
    assert_eq!((&covered[0..4], length), (&b"MLPD"[..], (frame.len() - HEADER_BYTES) as u64));
    assert_eq!(u64::from(crc32_by_the_book(&covered)), crc);
    let kind = kinds()[&(decoder.int(6, 2) as u16)].clone();
    let record = decoder.payload(&kind);
    (decoder.dump(), record)
}

/// The CRC bit by bit, as the document defines it.
pub(super) fn crc32_by_the_book(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
