"""Frames and archives: sections 3, 5, 6 and 7.1 of checkpoint-format.md, whose tables are read from it."""

import re
import struct
import zlib
from pathlib import Path

VERSIONS = range(1, 2)
MAGIC = b"MLPD"
HEADER_BYTES = 24

class Corrupt(Exception):
    """Stored bytes are damaged."""


class Incompatible(Exception):
    """Sound perhaps, but not for this reader, or of another store."""


def frame(data, at=0, end=None, kind=None, id=None):
    """The frame of a kind at a place: its id, its payload, its CRC and the place behind it."""
    end = len(data) if end is None else end
    if end - at < HEADER_BYTES or data[at : at + 4] != MAGIC:
        raise Corrupt(f"there is no frame at byte {at}")
    version, number, length, crc, found = struct.unpack_from("<HHIIQ", data, at + 4)
    if version not in VERSIONS:
        raise Incompatible(f"unsupported format version {version} at byte {at}")
    if number not in KINDS or (kind is not None and KINDS[number] not in kind):
        raise Corrupt(f"a frame of kind {number} at byte {at}")
    behind = at + HEADER_BYTES + length
    if behind > end:
        raise Corrupt(f"the frame at byte {at} runs over its end")
    payload = data[at + HEADER_BYTES : behind]
    sum = zlib.crc32(data[at : at + 12])
    sum = zlib.crc32(data[at + 16 : at + HEADER_BYTES], sum)
    if zlib.crc32(payload, sum) != crc:
        raise Corrupt(f"the checksum of the frame at byte {at} does not agree")
    if id is not None and found != id:
        raise Corrupt(f"the frame at byte {at} has the id {found}, not {id}")
    return KINDS[number], found, payload, crc, behind


def _cells(line):
    return [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]


def _kinds(document):
    """Section 5: kinds of frames by number, and of those with an archive its root by the name of the kind."""
    kinds, roots = {}, {}
    for line in document.partition("### Kinds of frames")[2].partition("\n0 is no kind")[0].splitlines():
        number, name, *_, payload = _cells(line) if line.startswith("|") else [""] * 5
        if number.isdigit():
            kinds[int(number)] = name
            root = re.fullmatch(r"archive of an? (\w+)", payload)
            roots.update({name: root[1]} if root else {})
    return kinds, roots


def _tables(document):
    """Section 6: the size and alignment of each structure, and the offset, type and name of its fields."""
    tables = {}
    for part in re.split(r"^####? ", document, flags=re.M):
        head = re.match(r"`(\w+)` \((\d+) bytes, aligned to (\d+)\)", part)
        if head:
            rows = [_cells(line) for line in part.splitlines() if re.match(r"\| \d", line)]
            fields = [(int(offset), type, name) for offset, _, type, name, *_ in rows]
            tables[head[1]] = int(head[2]), int(head[3]), fields
    return tables


DOCUMENT = (Path(__file__).resolve().parents[2] / "checkpoint-format.md").read_text(encoding="utf-8")
KINDS, ROOTS = _kinds(DOCUMENT)
TABLES = _tables(DOCUMENT)
INTEGERS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class Archive:
    """Section 7.1. What is asked for lies within the archive, or it is Corrupt."""

    def __init__(self, data):
        self.data = data
        # Lists and texts that share their bytes must not multiply, nor elements without any.
        self.left = 4 * len(data) + 16

    def bytes(self, at, length):
        if at < 0 or length < 0 or at + length > len(self.data):
            raise Corrupt("an archive refers to what is outside of it")
        return self.data[at : at + length]

    def spend(self, count):
        self.left -= count
        if self.left < 0:
            raise Corrupt("an archive that refers to more than it has")

    def unsigned(self, at, width):
        if at % width:
            raise Corrupt("a number that is not aligned")
        return int.from_bytes(self.bytes(at, width), "little")

    def target(self, at, base):
        return base + int.from_bytes(self.bytes(at, 4), "little", signed=True)

    def boolean(self, at):
        byte = self.bytes(at, 1)[0]
        if byte > 1:
            raise Corrupt("a truth value or tag that is neither 0 nor 1")
        return byte == 1

    def text(self, at):
        inline = self.bytes(at, 8)
        if inline[0] & 0xC0 == 0x80:
            word = int.from_bytes(inline[:4], "little")
            length = (word & 0x3F) | ((word & 0xFFFFFF00) >> 2)
            if length <= 8:
                raise Corrupt("a short text that is not inline")
            found = self.bytes(self.target(at + 4, at), length)
        else:
            found = inline[: inline.find(0xFF)] if 0xFF in inline else inline
        self.spend(len(found))
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise Corrupt("a text that is not UTF-8") from None

    def list(self, at, size, align):
        """Where the elements of a list begin and how many there are."""
        to, count = self.target(at, at), self.unsigned(at + 4, 4)
        self.spend(count)
        self.bytes(to, count * size)
        if to % align:
            raise Corrupt("a list that is not aligned")
        return to, count

    def value(self, type, at):
        """A value of one of the types of the tables."""
        if type in INTEGERS:
            return self.unsigned(at, INTEGERS[type])
        if type == "bool":
            return self.boolean(at)
        if type == "u8 x 16":
            return self.bytes(at, 16)
        if type == "string":
            return self.text(at)
        if type == "list of u8":
            return self.bytes(*self.list(at, 1, 1))
        if type.startswith("list of "):
            type = type[len("list of ") :]
            size, align = layout(type)
            to, count = self.list(at, size, align)
            return [self.value(type, to + n * size) for n in range(count)]
        size, align, fields = TABLES[type]
        if at % align:
            raise Corrupt(f"a {type} that is not aligned")
        self.bytes(at, size)
        return {name: self.value(field, at + offset) for offset, field, name in fields}


def layout(type):
    """Size and alignment."""
    if type in INTEGERS:
        return INTEGERS[type], INTEGERS[type]
    if type == "bool":
        return 1, 1
    if type == "string" or type.startswith("list of "):
        return 8, 4
    return TABLES[type][:2]


def record(type, payload):
    """The structure at the root of an archive."""
    return Archive(payload).value(type, len(payload) - TABLES[type][0])
