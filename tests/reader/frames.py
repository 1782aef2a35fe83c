"""Frames and archives: sections 3, 5, 6 and 7.1 of checkpoint-format.md."""

import struct
import zlib

VERSIONS = range(1, 2)
MAGIC = b"MLPD"
HEADER_BYTES = 24

# Section 5. To a new kind belongs a line here, and one in RECORDS if it has an archive.
KINDS = {
    1: "Identity",
    2: "Epoch",
    3: "Run",
    4: "Plan",
    5: "Done",
    6: "Checkpoint",
    7: "Witness",
    8: "Tallies",
    16: "ExtentHeader",
    17: "Block",
    32: "SegmentHeader",
    33: "Page",
    34: "Directory",
    35: "Trailer",
}

# The kinds of the catalog and the structure at the root of their archives.
CATALOG = {
    "Epoch": "EpochRecord",
    "Run": "RunRecord",
    "Plan": "PlanRecord",
    "Done": "DoneRecord",
    "Checkpoint": "CheckpointRecord",
    "Tallies": "TalliesRecord",
}

# Section 6: the name, size and alignment of each structure, then offset, type and name of its fields.
RECORDS = """
EpochRecord 24 8
    0 u8x16 store
    16 u64 continues_after
RunRecord 64 8
    0 string job
    8 string version
    16 u64 started_ms
    24 u64 batch_interval_ms
    32 u64 checkpoint_every_batches
    40 u32 partitions
    44 u32 threads
    48 u64 fingerprint
    56 list:LineageNode lineage
LineageNode 40 4
    0 u32 id
    4 string operation
    12 string name
    20 string record_type
    28 list:u32 parents
    36 bool wide
PlanRecord 32 8
    0 u64 batch
    8 u64 time_ms
    16 u64 next_block
    24 list:InputPlan inputs
InputPlan 24 8
    0 u64 stream
    8 list:BlockRef blocks
    16 list:RangeRef ranges
BlockRef 32 8
    0 u64 block
    8 u64 extent
    16 u64 offset
    24 u32 length
    28 u32 crc
RangeRef 40 8
    0 string partition
    8 u64 start
    16 u64 end
    24 u64 size
    32 u64 stamp
TalliesRecord 24 8
    0 u64 batch
    8 u32 part
    12 u32 parts
    16 list:TallyDelta deltas
TallyDelta 16 4
    0 string name
    8 list:u8 archive
DoneRecord 40 8
    0 u64 batch
    8 u64 records
    16 u64 bytes
    24 u64 processing_us
    32 list:string outputs
CheckpointRecord 56 8
    0 u64 checkpoint
    8 u64 batch
    16 u64 time_ms
    24 u64 next_block
    32 u64 fingerprint
    40 list:SegmentRef segments
    48 list:OperatorRef operators
SegmentRef 24 8
    0 u64 segment
    8 u64 length
    16 u32 directory_crc
OperatorRef 40 8
    0 string name
    8 string key_type
    16 string value_type
    24 u32 value_width
    32 u64 keys
ExtentHeader 40 8
    0 u8x16 store
    16 u64 previous
    24 u64 previous_length
    32 u64 first_block
SegmentHeader 24 8
    0 u8x16 store
    16 u64 checkpoint
Directory 8 4
    0 list:OperatorDirectory operators
OperatorDirectory 16 4
    0 string name
    8 list:GroupDirectory groups
GroupDirectory 48 8
    0 u16 group
    2 bool base
    8 u64 entries
    16 u64 bytes
    24 u64 live_keys
    32 u64 live_bytes
    40 list:PageRef pages
PageRef 16 8
    0 u64 offset
    8 u64 first_hash
"""


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


def _tables():
    tables = {}
    for line in RECORDS.strip().splitlines():
        if line.startswith(" "):
            offset, type, name = line.split()
            tables[last][2].append((int(offset), type, name))
        else:
            last, size, align = line.split()
            tables[last] = (int(size), int(align), [])
    return tables


TABLES = _tables()
INTEGERS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}


class Archive:
    """Section 7.1. What is asked for lies within the archive, or it is Corrupt."""

    def __init__(self, data):
        self.data = data

    def bytes(self, at, length):
        if at < 0 or length < 0 or at + length > len(self.data):
            raise Corrupt("an archive refers to what is outside of it")
        return self.data[at : at + length]

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
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise Corrupt("a text that is not UTF-8") from None

    def list(self, at, size, align):
        """Where the elements of a list begin and how many there are."""
        to, count = self.target(at, at), self.unsigned(at + 4, 4)
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
        if type == "u8x16":
            return self.bytes(at, 16)
        if type == "string":
            return self.text(at)
        if type == "list:u8":
            return self.bytes(*self.list(at, 1, 1))
        if type.startswith("list:"):
            type = type[len("list:") :]
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
    if type == "string" or type.startswith("list:"):
        return 8, 4
    return TABLES[type][:2]


def record(type, payload):
    """The structure at the root of an archive."""
    return Archive(payload).value(type, len(payload) - TABLES[type][0])
