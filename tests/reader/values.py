"""Keys and values as JSON: sections 7.1 to 7.3 of checkpoint-format.md, and docs/tool.md for how they are shown."""

import math
import re
import struct

from frames import Archive, Corrupt

UNSIGNED = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16}
SIGNED = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "i128": 16}
FLOATS = {"f32": 4, "f64": 8}
TIMERS = ["event time", "processing time", "time to live"]


class Unknown(Exception):
    """A type that cannot be shown without the job."""


def split(text):
    """The parts between the outermost commas."""
    parts, depth, part = [], 0, ""
    for char in text:
        depth += (char in "(<[{") - (char in ")>]}")
        if char == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += char
    return parts + [part.strip()] if part.strip() else parts


# Numbers that other readers of JSON would round are text, and so is what JSON has no number for.


def unsigned(number):
    return number if number < 1 << 64 else str(number)


def signed(number):
    return number if -(1 << 63) <= number < 1 << 63 else str(number)


def floating(number):
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else "inf" if number > 0 else "-inf"


def bytes_or_text(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def key(type, data):
    """A key of a type by its encoding."""
    if type == "utf8":
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise Corrupt("a key that is not UTF-8") from None
    if type == "bytes":
        return bytes_or_text(data)
    if type in ("bool", "char", *UNSIGNED, *SIGNED):
        width = {"bool": 1, "char": 4}.get(type) or {**UNSIGNED, **SIGNED}[type]
        if len(data) != width:
            raise Corrupt(f"a key of {len(data)} bytes is no {type}")
        number = int.from_bytes(data, "big")
        if type in SIGNED:
            return signed(number - (1 << 8 * width - 1))
        return boolean(number) if type == "bool" else char(number) if type == "char" else unsigned(number)
    if type == "()":
        if data:
            raise Corrupt("a key of type () has bytes")
        return None
    if type.startswith("option<"):
        if data == b"\0":
            return None
        if data[:1] != b"\1":
            raise Corrupt("an optional key has an unknown tag")
        return [key(type[len("option<") : -1], data[1:])]
    if type.startswith("("):
        found, at = [], 0
        for part in split(type[1:-1]):
            end = at + 4 + int.from_bytes(data[at : at + 4], "little")
            if at + 4 > len(data) or end > len(data):
                raise Corrupt("a part runs over its key")
            found.append(key(part, data[at + 4 : end]))
            at = end
        if at != len(data):
            raise Corrupt("a key has bytes behind its parts")
        return found
    raise Unknown(type)


def boolean(number):
    if number > 1:
        raise Corrupt("a truth value that is neither 0 nor 1")
    return number == 1


def char(number):
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise Corrupt("a number that is no character")
    return chr(number)


PLAIN = {**UNSIGNED, **SIGNED, **FLOATS, "bool": 1, "char": 4}
NODE_ENTRIES = 5


class Type:
    """A type by its schema, section 7.4: its size and alignment, and how it is read."""

    def __init__(self, text, around=()):
        """`around` are the sizes and alignments of the structures and enums around this place."""
        self.text, self.parts, self.names, self.variants, self.around = text, [], [], {}, around
        head, _, inner = text.partition("<")
        inner = inner[:-1]
        self.kind = head
        if text in PLAIN:
            self.size = self.align = PLAIN[text]
        elif text in ("string", "bytes"):
            self.size, self.align = 8, 4
        elif text == "()":
            self.size, self.align = 0, 1
        elif text.startswith("#"):
            self.kind, (self.size, self.align) = "#", around[-int(text[1:]) - 1]
        elif text.startswith("("):
            self.kind = "tuple"
            self._structure(split(text[1:-1]))
        elif head.startswith("struct "):
            self._of_a_job("struct", text)
        elif head.startswith("enum "):
            self._of_a_job("enum", text)
        elif head == "opaque":
            self.size, self.align = map(int, inner.split(","))
        elif head == "array":
            element, count = split(inner)
            self.parts, self.count = [Type(element, around)], int(count)
            self.size, self.align = self.parts[0].size * self.count, self.parts[0].align
        elif head in ("list", "nested", "map", "set"):
            self.parts = [Type(part, () if head == "nested" else around) for part in split(inner)]
            self.size, self.align = 8, 4
        elif head == "box":
            self.parts, self.size, self.align = [Type(inner, around)], 4, 4
        elif head == "option":
            self.parts = [Type(inner, around)]
            self.align = self.parts[0].align
            self.size = up(self.align + self.parts[0].size, self.align)
        elif head == "result":
            self._result(split(inner))
        else:
            raise Unknown(text)

    def _structure(self, parts, begin=0):
        self.parts, self.offsets, end, self.align = [Type(part, self.around) for part in parts], [], begin, 1
        for part in self.parts:
            end = up(end, part.align)
            self.offsets.append(end)
            end += part.size
            self.align = max(self.align, part.align)
        self.size = up(end, self.align)

    def _of_a_job(self, kind, text):
        head, inner = re.match(r"\w+ ([^<]*<\d+,\d+>)\{", text), text[text.index("{") + 1 : -1]
        size, align = map(int, head[1][head[1].index("<") + 1 : -1].split(","))
        self.kind, self.around = kind, (*self.around, (size, align))
        if kind == "struct":
            fields = [field.partition(":") for field in split(inner)]
            self.names = [name for name, _, _ in fields]
            self._structure([part for _, _, part in fields])
        else:
            self.tag_size, tag = 1 if len(split(inner)) <= 256 else 2, -1
            for one in split(inner):
                head, _, fields = one.partition("{")
                name, _, given = head.partition("=")
                tag = int(given) if given else tag + 1
                fields = [field.partition(":") for field in split(fields[:-1])]
                self._variant(tag, name, [name for name, _, _ in fields], [field for _, _, field in fields])
        self.size, self.align = size, align

    def _variant(self, tag, name, names, fields):
        part = Type("()", self.around)
        part.kind, part.names = "struct", names
        part._structure(fields, self.tag_size)
        self.variants[tag] = (name, part)

    def _result(self, parts):
        self.kind, self.tag_size = "result", 1
        for tag, name in enumerate(("Ok", "Err")):
            self._variant(tag, name, ["0"], [parts[tag]])
        variants = [part for _, part in self.variants.values()]
        self.align = max(part.align for part in variants)
        self.size = up(max(part.size for part in variants), self.align)

    def read(self, archive, at, around=()):
        """`around` are the structures and enums around this place, the innermost last."""
        if self.kind == "#":
            outwards = int(self.text[1:]) + 1
            return around[-outwards].read(archive, at, around[:-outwards])
        if at % self.align:
            raise Corrupt("a value that is not aligned")
        archive.spend(1)
        text, size = self.text, self.size
        if self.kind in ("struct", "enum"):
            return self._named(archive, at, (*around, self))
        if text in UNSIGNED:
            return unsigned(archive.unsigned(at, size))
        if text in SIGNED:
            number = archive.unsigned(at, size)
            return signed(number - (number >> 8 * size - 1 << 8 * size))
        if text in FLOATS:
            return floating(struct.unpack("<f" if size == 4 else "<d", archive.bytes(at, size))[0])
        if text == "bool":
            return archive.boolean(at)
        if text == "char":
            return char(archive.unsigned(at, 4))
        if text == "()":
            return None
        if text == "string":
            return archive.text(at)
        if text == "bytes":
            return bytes_or_text(archive.bytes(*archive.list(at, 1, 1)))
        reads = self._tagged if self.kind == "result" else getattr(self, "_" + self.kind)
        return reads(archive, at, around)

    def _opaque(self, archive, at, around):
        return {"hex": archive.bytes(at, self.size).hex()}

    def _option(self, archive, at, around):
        return self.parts[0].read(archive, at + self.align, around) if archive.boolean(at) else None

    def _tuple(self, archive, at, around):
        return [part.read(archive, at + offset, around) for part, offset in zip(self.parts, self.offsets)]

    def _array(self, archive, at, around):
        return self._elements(archive, at, self.count, around)

    def _list(self, archive, at, around):
        element = self.parts[0]
        to, count = archive.list(at, element.size, element.align)
        return self._elements(archive, to, count, around)

    def _elements(self, archive, to, count, around):
        element = self.parts[0]
        return [element.read(archive, to + n * element.size, around) for n in range(count)]

    def _nested(self, archive, at, around):
        return whole(self.parts[0], archive.bytes(*archive.list(at, 1, 1)))

    def _box(self, archive, at, around):
        return self.parts[0].read(archive, archive.target(at, at), around)

    def _map(self, archive, at, around):
        entries = self._entries(archive, at, around)
        return dict(sorted(entries)) if self.parts[0].text == "string" else [list(entry) for entry in entries]

    def _set(self, archive, at, around):
        return [key for key, _ in self._entries(archive, at, around)]

    def _entries(self, archive, at, around):
        types = [*self.parts, Type("()")][:2]
        root, count = archive.target(at, at), archive.unsigned(at + 4, 4)
        found = list(node(archive, root, types, around)) if count else []
        if len(found) != count:
            raise Corrupt("a map has another number of entries than it says")
        return found

    def _named(self, archive, at, around):
        return self._tagged(archive, at, around) if self.kind == "enum" else self._fields(archive, at, around)

    def _tagged(self, archive, at, around):
        tag = archive.unsigned(at, self.tag_size)
        if tag not in self.variants:
            raise Corrupt("an unknown variant")
        name, fields = self.variants[tag]
        return {name: fields._fields(archive, at, around)} if fields.parts else name

    def _fields(self, archive, at, around):
        values = self._tuple(archive, at, around)
        if self.names[:1] == ["0"]:
            return values[0] if len(values) == 1 else values
        # Objects are shown with their keys in order.
        return dict(sorted(zip(self.names, values)))


def node(archive, at, types, around):
    """The entries below a node of a map, in order."""
    archive.spend(1)
    key, value = types
    keys = up(1, key.align)
    values = up(keys + NODE_ENTRIES * key.size, value.align)
    rest = at + up(up(values + NODE_ENTRIES * value.size, max(key.align, value.align)), 4)
    is_inner = archive.boolean(at)
    count = NODE_ENTRIES if is_inner else archive.unsigned(rest, 4)
    if count > NODE_ENTRIES:
        raise Corrupt("a node of a map with too many entries")

    def below(n):
        pointer = rest + 4 * n
        if is_inner and archive.unsigned(pointer, 4) != 1:
            yield from node(archive, archive.target(pointer, pointer), types, around)

    for n in range(count):
        yield from below(n)
        yield types[0].read(archive, at + keys + n * key.size, around), types[1].read(archive, at + values + n * value.size, around)
    yield from below(NODE_ENTRIES)


def whole(type, data):
    return type.read(Archive(data), len(data) - type.size)


def up(at, align):
    return -(-at // align) * align


def value_reader(type, schema):
    """A function from the bytes of a value to what is shown of it."""
    if schema == "position":
        return position
    if schema.startswith("chunk<"):
        record = Type(schema[len("chunk<") : -1])
        return lambda data: [whole(record, one) for one in records(data)]
    if schema.startswith("pairs<"):
        key_type, _, value = schema[len('pairs<"') : -1].partition('",')
        value = Type(value)

        def pair(data):
            end = 4 + int.from_bytes(data[:4], "little")
            if end > len(data):
                raise Corrupt("a key runs over its record")
            return [key(key_type, data[4:end]), whole(value, data[end:])]

        return lambda data: [pair(one) for one in records(data)]
    root = Type(schema)
    if type.endswith(" with timers"):
        return lambda data: with_timers(data, lambda state: whole(root, state))
    return lambda data: whole(root, data)


def records(data):
    """R-23."""
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data) or at + 4 > len(data):
            raise Corrupt("a record runs over its end")
        yield data[at + 4 : end]
        at = end


def position(data):
    if len(data) != 24:
        raise Corrupt("a position of another length")
    numbers = [int.from_bytes(data[at : at + 8], "little") for at in (0, 8, 16)]
    return dict(zip(("offset", "size", "stamp"), numbers))


def with_timers(data, archived):
    head = int.from_bytes(data[:4], "little")
    count, at, timers = head & 0x7FFFFFFF, 4, []
    if 4 + 9 * count > len(data):
        raise Corrupt("timers run over their value")
    for _ in range(count):
        if data[at] >= len(TIMERS):
            raise Corrupt("an unknown timer")
        timers.append({"at_ms": int.from_bytes(data[at + 1 : at + 9], "little"), "timer": TIMERS[data[at]]})
        at += 9
    if not head >> 31 and at != len(data):
        raise Corrupt("bytes behind the timers of a key without a state")
    return {"state": archived(data[at:]) if head >> 31 else None, "timers": timers}
