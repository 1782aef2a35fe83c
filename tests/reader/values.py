"""Keys and values as JSON: sections 7.1 to 7.3 of checkpoint-format.md, and docs/tool.md for how they are shown."""

import math
import re
import struct

from frames import Archive, Corrupt

UNSIGNED = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16, "usize": 4}
SIGNED = {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "i128": 16, "isize": 4}
FLOATS = {"f32": 4, "f64": 8}
TIMERS = ["event time", "processing time", "time to live"]


class Unknown(Exception):
    """A type that cannot be shown without the job."""


def split(text):
    """The parts between the outermost commas."""
    parts, depth, part = [], 0, ""
    for char in text:
        depth += (char in "(<[") - (char in ")>]")
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
    if type in ("bool", "char", *UNSIGNED, *SIGNED) and "size" not in type:
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


class Shape:
    """How a type of Rust is archived, by its name: its size, its alignment, and how it is read."""

    def __init__(self, name):
        widths = {**UNSIGNED, **SIGNED, **FLOATS, "bool": 1, "char": 4}
        self.name, self.parts = name, []
        if name in widths:
            self.size = self.align = widths[name]
        elif name in ("String", "Text") or name.startswith("Vec<"):
            self.size, self.align = 8, 4
            self.parts = [Shape(name[len("Vec<") : -1])] if name.startswith("Vec<") else []
        elif name.startswith("Option<"):
            self.parts = [Shape(name[len("Option<") : -1])]
            self.align = self.parts[0].align
            self.size = up(self.align + self.parts[0].size, self.align)
        elif name.startswith("(") and name.endswith(")"):
            self.parts = [Shape(part) for part in split(name[1:-1])]
            self.align = max([part.align for part in self.parts], default=1)
            end = 0
            for part in self.parts:
                end = up(end, part.align) + part.size
            self.size = up(end, self.align)
        else:
            raise Unknown(name)

    def read(self, archive, at):
        name = self.name
        if name in UNSIGNED:
            return unsigned(archive.unsigned(at, self.size))
        if name in SIGNED:
            number = archive.unsigned(at, self.size)
            return signed(number - (number >> 8 * self.size - 1 << 8 * self.size))
        if name in FLOATS:
            archive.unsigned(at, self.size)
            return floating(struct.unpack("<f" if self.size == 4 else "<d", archive.bytes(at, self.size))[0])
        if name == "bool":
            return archive.boolean(at)
        if name == "char":
            return char(archive.unsigned(at, 4))
        if name == "String":
            return archive.text(at)
        if name in ("Text", "Vec<u8>"):
            return bytes_or_text(archive.bytes(*archive.list(at, 1, 1)))
        if name.startswith("Vec<"):
            element = self.parts[0]
            to, count = archive.list(at, element.size, element.align)
            return [element.read(archive, to + n * element.size) for n in range(count)]
        if name.startswith("Option<"):
            return self.parts[0].read(archive, at + self.align) if archive.boolean(at) else None
        values = []
        for part in self.parts:
            at = up(at, part.align)
            values.append(part.read(archive, at))
            at += part.size
        return values or None


def up(at, align):
    return -(-at // align) * align


def value_reader(type, width):
    """A function from the bytes of a value to what is shown of it."""
    if type == "position":
        return position
    has_timers = type.endswith(" with timers")
    name = re.sub(r"\w+::", "", type.removesuffix(" with timers"))
    shape = Shape(name)

    def archived(data):
        if shape.size != width:
            raise Corrupt(f"{type} is archived in {width} bytes, not {shape.size}")
        return shape.read(Archive(data), len(data) - shape.size)

    return (lambda data: with_timers(data, archived)) if has_timers else archived


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
