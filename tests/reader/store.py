"""A store: sections 4, 6.4, 7.4, 10 and 12 of checkpoint-format.md. Nothing is written."""

import re
import struct
from pathlib import Path

import database
from frames import HEADER_BYTES, ROOTS, Corrupt, Incompatible, frame, record
from xxh3 import hash

IDENTITY_BYTES_MAX = 4096
TRAILER_BYTES = HEADER_BYTES + 16
TOMBSTONE = 1 << 31
SALTS = [0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31]
RETAINED_MIN = 2
CATALOG = [kind for kind, root in ROOTS.items() if root.endswith("Record") and kind != "Pin"]


def numbered(directory, suffix=""):
    """The entries that are named by a number, ascending (R-09)."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else []:
        match = re.fullmatch(r"(0|[1-9][0-9]*)" + re.escape(suffix), path.name)
        if match and int(match[1]) < 1 << 64:
            found.append((int(match[1]), path))
    return sorted(found)


class Epoch:
    """One database and its witness: as far as its records are sound, and what is wrong with it."""

    def __init__(self, number, directory, store):
        self.number, self.records, self.damage = number, [], []
        witness = directory / "witness"
        self.witness = self._witness(witness)
        try:
            parts = database.pairs((directory / "db").read_bytes())
            self._take(parts, store)
        except FileNotFoundError:
            self.damage.append("there is no database")
        except Corrupt as error:
            self.damage.append(str(error))
        self.unfinished = not witness.exists() and len(self.records) <= 1
        self.has_witness = witness.exists()
        if self.witness is None and self.has_witness:
            self.damage.append("its witness is not sound")
        if self.witness is not None and self.last() < self.witness:
            self.damage.append(f"records up to {self.witness} were committed, and end with {self.last()}")

    def _witness(self, path):
        try:
            _, newest, payload, _, end = frame(path.read_bytes(), kind=["Witness"])
        except (FileNotFoundError, Corrupt):
            return None
        return newest if not payload and end == path.stat().st_size else None

    def _take(self, parts, store):
        frames = {}
        for key in sorted(key for key in parts if len(key) == 10):
            seq, part = struct.unpack(">QH", key)
            whole, next_part = frames.get(seq, (b"", 0))
            # A part that is missing ends the record.
            frames[seq] = (whole + parts[key], next_part + 1) if part == next_part else (whole, next_part)
        for seq, (whole, _) in frames.items():
            try:
                kind, _, payload, _, end = frame(whole, kind=CATALOG, id=seq)
                if end != len(whole):
                    raise Corrupt("a record is followed by something")
                found = record(ROOTS[kind], payload)
            except Corrupt:
                return
            if kind == "Epoch" and found.get("incompatible"):
                raise Incompatible(f"epochs/{self.number} has features that are not known (R-45)")
            if not self.records and (kind != "Epoch" or found["store"] != store):
                if kind == "Epoch":
                    raise Incompatible(f"epochs/{self.number} is of another store")
                raise Corrupt("its first record is missing")
            if self.records and seq != self.last() + 1:
                raise Corrupt(f"records between {self.last()} and {seq} are missing")
            self.records.append((seq, kind, found))

    def last(self):
        return self.records[-1][0] if self.records else 0

    def misses_witness(self, following):
        """Whether it is damage that there is none: the next epoch may stand in for it (section 11)."""
        if self.has_witness:
            return False
        if following is not None and following.records:
            return self.last() < following.records[0][2]["continues_after"]
        return not all(kind in ("Epoch", "Job", "Run") for _, kind, _ in self.records)


class Segment:
    """A segment that a checkpoint lists."""

    def __init__(self, root, store, reference):
        self.number = reference["segment"]
        self.name = f"state/{self.number}.segment"
        try:
            self.data = (root / self.name).read_bytes()
        except FileNotFoundError:
            raise Corrupt(f"{self.name} is missing") from None
        try:
            self._open(store, reference)
        except Corrupt as error:
            raise Corrupt(f"{self.name}: {error}") from None

    def _open(self, store, reference):
        data = self.data
        if len(data) != reference["length"] or len(data) < TRAILER_BYTES:
            raise Corrupt(f"it has {len(data)} bytes, not {reference['length']}")
        header = frame(data, 0, kind=["SegmentHeader"], id=self.number)
        if record("SegmentHeader", header[2])["store"] != store:
            raise Incompatible(f"{self.name} is of another store")
        at = len(data) - TRAILER_BYTES
        trailer = frame(data, at, kind=["Trailer"], id=self.number)[2]
        if len(trailer) != 16:
            raise Corrupt("a trailer of another length")
        offset, length = struct.unpack("<QQ", trailer)
        if offset + length != at:
            raise Corrupt("the trailer does not follow the directory")
        _, _, payload, crc, end = frame(data, offset, end=at, kind=["Directory"], id=self.number)
        if end != at or crc != reference["directory_crc"]:
            raise Corrupt("the directory is not the one that the checkpoint names")
        self.operators = {one["name"]: one for one in record("Directory", payload)["operators"]}

    def group(self, operator, number, schema):
        """What is there of a key group: its line of the directory and its entries, or nothing."""
        found = self.operators.get(operator)
        for group in found["groups"] if found else []:
            if group["group"] == number:
                if hash(found["schema"].encode()) != schema:
                    raise Corrupt(f"{self.name} has values of another schema (R-44)")
                return group, self.entries(group)
        return None

    def entries(self, group):
        """(key, value) in their order; a value of None is a tombstone."""
        found, before, size = [], None, 0
        for page in group["pages"]:
            _, _, payload, _, end = frame(self.data, page["offset"], kind=["Page"], id=group["group"])
            size += end - page["offset"]
            at = 0
            while at < len(payload):
                if len(payload) - at < 16:
                    raise Corrupt(f"{self.name}: an entry is cut off")
                digest, key_length, value_length = struct.unpack_from("<QII", payload, at)
                is_gone, key_length = key_length & TOMBSTONE, key_length & ~TOMBSTONE
                middle = at + 16 + key_length
                end = middle + value_length
                if end > len(payload) or (is_gone and value_length):
                    raise Corrupt(f"{self.name}: an entry runs over its page")
                key = payload[at + 16 : middle]
                if digest != hash(key) or digest >> 48 & 0xFF != group["group"]:
                    raise Corrupt(f"{self.name}: a key has another hash")
                if at == 0 and digest != page["first_hash"]:
                    raise Corrupt(f"{self.name}: a page begins with another hash")
                if before is not None and before >= (digest, key):
                    raise Corrupt(f"{self.name}: entries are not in their order")
                before = (digest, key)
                found.append((key, None if is_gone else payload[middle:end]))
                at = end
        if len(found) != group["entries"] or size != group["bytes"]:
            raise Corrupt(f"{self.name}: a group has not what its directory says")
        if group["filter_bytes"]:
            self.filter(group, {hash(key) for key, _ in found})
        return found

    def filter(self, group, hashes):
        """Checks that the filter of a group leaves none of its entries out."""
        at = group["filter_offset"]
        _, _, payload, _, end = frame(self.data, at, kind=["Filter"], id=group["group"])
        blocks, rest = divmod(len(payload), 32)
        if end - at != group["filter_bytes"] or not blocks or rest:
            raise Corrupt(f"{self.name}: a filter of another length")
        words = struct.unpack(f"<{blocks * 8}I", payload)
        for digest in hashes:
            block = (digest & 0xFFFFFFFF) * blocks >> 32
            for word, salt in enumerate(SALTS):
                bit = ((digest >> 32) * salt & 0xFFFFFFFF) >> 27
                if not words[block * 8 + word] >> bit & 1:
                    raise Corrupt(f"{self.name}: a filter leaves out a key that is there")

    def check(self):
        for operator in self.operators.values():
            for group in operator["groups"]:
                self.entries(group)


class Store:
    """The catalog of a store, put together."""

    def __init__(self, root):
        self.root = Path(root)
        self._identity()
        self.damage, self.segments = [], {}
        epochs = [Epoch(number, path, self.store) for number, path in numbered(self.root / "epochs")]
        epochs = [epoch for epoch in epochs if not epoch.unfinished]
        for epoch, following in zip(epochs, epochs[1:] + [None]):
            if epoch.misses_witness(following):
                epoch.damage.append("there is no witness")
            self.damage += [f"epochs/{epoch.number}: {what}" for what in epoch.damage]
        self._fold(epochs)
        self._pins()

    def _identity(self):
        path = self.root / "millpond.id"
        if not path.is_file():
            is_store = numbered(self.root / "epochs") and all((self.root / part).is_dir() for part in ("log", "state"))
            raise Corrupt("millpond.id is missing") if is_store else Incompatible(f"{self.root} is no store")
        data = path.read_bytes()
        if len(data) > IDENTITY_BYTES_MAX:
            raise Corrupt("millpond.id is too long")
        _, _, payload, _, end = frame(data, kind=["Identity"], id=0)
        if end != len(data) or not 16 < len(payload) <= 16 + 255:
            raise Corrupt("millpond.id has another length")
        self.store = payload[:16]
        try:
            self.job = payload[16:].decode()
        except UnicodeDecodeError:
            raise Corrupt("the job's name is not UTF-8") from None

    def _fold(self, epochs):
        records = []
        for epoch in epochs:
            if not epoch.records:
                continue
            after = epoch.records[0][2]["continues_after"]
            if records and after > records[-1][0] or (not records and after and epoch is not epochs[0]):
                self.damage.append(f"epochs/{epoch.number}: records before it are gone")
            records = [one for one in records if one[0] <= after]
            records += [(seq, epoch.number, kind, found) for seq, kind, found in epoch.records]
        self.last = records[-1][0] if records else 0
        self.runs = [found for _, _, kind, found in records if kind == "Run"]
        self.committed = []
        for _, epoch, kind, found in records:
            if kind == "Checkpoint":
                self._commit(epoch, found)
            elif kind == "Rollback":
                target, batch = found["target"], found["target_batch"]
                self.committed = [
                    (at, one)
                    for at, one in self.committed
                    if one["checkpoint"] <= target and one["batch"] <= batch
                ]
                self._commit(epoch, found["checkpoint"])

    def _commit(self, epoch, checkpoint):
        """A repair says again what it keeps."""
        number = checkpoint["checkpoint"]
        self.committed = [(at, one) for at, one in self.committed if one["checkpoint"] != number]
        self.committed.append((epoch, checkpoint))
        self.committed.sort(key=lambda one: one[1]["checkpoint"])

    def _pins(self):
        """Checkpoints that are kept under a name."""
        self.pins = []
        directory = self.root / "pins"
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            if path.suffix != ".pin":
                continue
            try:
                data = path.read_bytes()
                _, _, payload, _, end = frame(data, kind=["Pin"])
                pin = record(ROOTS["Pin"], payload)
                if end != len(data) or pin["name"] != path.stem:
                    raise Corrupt("it is another pin")
                if pin["store"] != self.store:
                    raise Incompatible(f"pins/{path.name} is of another store")
                self.pins.append((path.stem, pin["checkpoint"]))
            except Corrupt as error:
                self.damage.append(f"pins/{path.name}: {error}")

    def _segment(self, reference):
        number = reference["segment"]
        if number not in self.segments:
            segment = Segment(self.root, self.store, reference)
            segment.check()
            self.segments[number] = reference, segment
        known, segment = self.segments[number]
        if known != reference:
            raise Corrupt(f"{segment.name} is not the one of this checkpoint")
        return segment

    def opened(self, checkpoint):
        """Every segment of a checkpoint with every page read, or Corrupt."""
        return [self._segment(reference) for reference in checkpoint["segments"]]

    def retained(self):
        """R-39 with the least number, and older ones whose segments are all there."""
        committed = self.committed
        first = max(0, len(committed) - RETAINED_MIN)
        earlier = [at for at, (epoch, _) in enumerate(committed) if epoch < committed[-1][0]]
        first = min(first, earlier[-1]) if earlier else first
        present = {number for number, _ in numbered(self.root / "state", ".segment")}
        while first and {one["segment"] for one in committed[first - 1][1]["segments"]} <= present:
            first -= 1
        return committed[first:]

    def newest_sound(self):
        """Where a start begins (R-31)."""
        damage = None
        for _, checkpoint in reversed(self.retained()):
            try:
                self.opened(checkpoint)
                return checkpoint
            except Corrupt as error:
                damage = damage or error
        if damage or self.damage:
            raise damage or Corrupt(self.damage[0])
        return None

    def schema(self, checkpoint, operator):
        """Of the operator's values; None as long as it has none."""
        found = {one.operators[operator["name"]]["schema"] for one in self.opened(checkpoint) if operator["name"] in one.operators}
        for schema in found:
            if hash(schema.encode()) == operator["schema"]:
                return schema
        return None

    def state(self, checkpoint, operator):
        """Key and value in bytes, ordered by key (R-30)."""
        segments, state = self.opened(checkpoint), {}
        for number in range(256):
            group, newest = {}, None
            for segment in sorted(segments, key=lambda segment: segment.number):
                part = segment.group(operator["name"], number, operator["schema"])
                if part is None:
                    continue
                newest, entries = part
                if newest["base"]:
                    group.clear()
                for key, value in entries:
                    group.pop(key, None)
                    if value is not None:
                        group[key] = value
            if newest:
                size = sum(16 + len(key) + len(value) for key, value in group.items())
                if (len(group), size) != (newest["live_keys"], newest["live_bytes"]):
                    raise Corrupt(f"group {number} of {operator['name']} has other live entries than it says")
            state.update(group)
        if len(state) != operator["keys"]:
            raise Corrupt(f"{operator['name']} has {len(state)} keys, not {operator['keys']}")
        return sorted(state.items())
